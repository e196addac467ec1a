"""The program `sagan`: its list of commands, and the conversion of exceptions to error lines and exit codes."""

from __future__ import annotations

import errno
import os
import platform
import re
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from sagan_cli import __version__, console
from sagan_cli.commands import startup
from sagan_cli.commands.startup import LazyCommand, QuickFlags
from sagan_cli.errors import SaganError
from sagan_cli.plugins import registry

EPILOG = """
Exit codes: 0 done, 1 failed, 2 wrong command line, 130 interrupted (Ctrl-C), 143 terminated.

Plugins add datasets, architectures, metrics, losses and more: see 'sagan plugins'.
"""


class RootGroup(QuickFlags, TyperGroup):
    """The group of all commands."""


app = typer.Typer(
    cls=RootGroup,
    help="Train, sample, measure, explain and ship Self-Attention GANs.",
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the versions and exit.")] = False,
) -> None:
    """Print versions or the help."""
    if version:
        from importlib import metadata  # takes 20 ms; importing torch takes seconds

        console.result(f"sagan {__version__}\nPython {platform.python_version()}, PyTorch {metadata.version('torch')}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        console.note(ctx.get_help())
        raise typer.Exit(2)


def group() -> TyperGroup:
    """Return the command `sagan` with all registered commands; imports none of them."""
    command = typer.main.get_command(app)
    assert isinstance(command, TyperGroup), "a Typer application with a callback is a group"
    for entry in registry.entries("commands"):
        if entry.name not in command.commands:  # the name of a built-in cannot be taken
            command.add_command(LazyCommand(entry))
    return command


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run `sagan` and end the process: 0 done, 1 failed, 2 wrong command line, 128 + n on signal n."""
    console.open_standard_streams()
    registry.on_slow = console.warn
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGTERM"):
        # So that temporary files are removed. Training replaces this by finishing its step.
        signal.signal(signal.SIGTERM, _terminated)
    code = run(argv)
    try:
        sys.stdout.flush()
    except OSError:
        code = _give_up_stdout()
    if argv is None:  # not called from a program that continues after SystemExit
        startup.exit_now(code, [s for s in (sys.stdout, sys.stderr) if s is not None])
    sys.exit(code)


def _terminated(number: int, _frame: object) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)  # a second signal ends the process at once
    sys.exit(128 + number)


def run(argv: Sequence[str] | None = None) -> int:
    """Run `sagan` and return its exit code; errors are reported on standard error."""
    try:
        # Outside standalone mode, Typer raises its errors and returns the exit code.
        code = group().main(args=argv, prog_name="sagan", standalone_mode=False)
        sys.stdout.flush()  # here, so that a full disk or a closed pipe is handled below
        return _code(code)
    except SystemExit as e:  # shell completion, a closed pipe (in Typer), or a plugin
        if isinstance(e.code, str):
            console.error(e.code)
            return 1
        return _code(e.code)
    except KeyboardInterrupt:
        return 130
    except Exception as e:  # noqa: BLE001 - the error boundary
        if os.environ.get("SAGAN_DEBUG", "") not in ("", "0"):
            console.show_traceback(e)
        return explain(e)


def explain(e: Exception) -> int:
    """Report an exception in one line; return the exit code."""
    if isinstance(e, SaganError):
        console.error(str(e))
        return e.exit_code
    if isinstance(e, typer.TyperException):
        ctx = getattr(e, "ctx", None)
        command = ctx.command_path if ctx else "sagan"
        console.error(f"{_wrong_usage(e)}; see '{command} --help'", command)
        return e.exit_code
    if isinstance(e, typer.Abort):
        console.error("aborted")
        return 1
    if isinstance(e, BrokenPipeError):
        return _give_up_stdout()
    if isinstance(e, OSError) and e.errno:
        where = f"{e.filename}: " if e.filename else ""
        way_out = "; free some space" if e.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        console.error(f"{where}{e.strerror}{way_out}")
        return 1
    if _out_of_memory(e):
        console.error("out of memory: lower --batch, --size or --width; 'sagan train --dry-run' shows what they cost")
        return 1
    console.bug(e)
    return 1


def _out_of_memory(e: Exception) -> bool:
    # By name, because torch may not be imported. CPUs have no such class.
    return isinstance(e, MemoryError) or type(e).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(e)


def _wrong_usage(e: typer.TyperException) -> str:
    """Return Typer's message in the form of this program: lower case, no full stop, the flag named once."""
    option = getattr(e, "option_name", None)
    if hasattr(e, "possibilities"):
        near = e.possibilities or []
        return f"no such option {option}" + (f" (did you mean {near[0]}?)" if near else "")
    text = re.sub(r"\. Did you mean (.*)\?$", r" (did you mean \1?)", e.format_message().strip()).rstrip(".")
    return text[:1].lower() + text[1:]


def _code(value: Any) -> int:
    """Return the exit code of Typer or SystemExit; other values of a command are ignored."""
    return value if isinstance(value, int) else 0


def _give_up_stdout() -> int:
    """Redirect standard output to the null device, so that Python's flush at exit does not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
