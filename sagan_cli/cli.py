"""`sagan`: the list of commands, and the one place where an exception becomes a line and an exit code."""

from __future__ import annotations

import errno
import os
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path
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
    """Answer `--version`, and nothing at all with the help."""
    if version:
        from importlib import metadata  # importing torch takes seconds, and this more than the rest of --help

        console.result(f"sagan {__version__}\nPython {platform.python_version()}, PyTorch {metadata.version('torch')}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        console.note(ctx.get_help())
        raise typer.Exit(2)


def group() -> TyperGroup:
    """The command `sagan` with everything the registry knows as its subcommands; imports none of them."""
    command = typer.main.get_command(app)
    assert isinstance(command, TyperGroup), "a Typer application with a callback is a group"
    for entry in registry.entries("commands"):
        if entry.name not in command.commands:  # a built-in's name is its own, whatever else claims it
            command.add_command(LazyCommand(entry))
    return command


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run `sagan` and end the process: 0 done, 1 failed, 2 wrong command line, 128 + n on signal n."""
    if sys.stdout is None:  # started with it closed, as by `>&-`
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - open for as long as the process lives
    code = run(argv)
    try:
        sys.stdout.flush()
    except OSError:
        code = _give_up_stdout()
    if argv is None:  # the process is ours, and not a caller's who goes on after SystemExit
        startup.exit_now(code, [s for s in (sys.stdout, sys.stderr) if s is not None])
    sys.exit(code)


def run(argv: Sequence[str] | None = None) -> int:
    """Run `sagan` and return its exit code, having said on standard error what went wrong."""
    try:
        # Outside standalone mode Typer hands its errors to us, and an exit code back.
        code = group().main(args=argv, prog_name="sagan", standalone_mode=False)
        sys.stdout.flush()  # here, so that a full disk or a reader that left is told like any other failure
        return _code(code)
    except SystemExit as e:  # shell completion, a reader that left (Typer turns EPIPE into exit 1), or a plugin's own
        if isinstance(e.code, str):
            console.error(e.code)
            return 1
        return _code(e.code)
    except KeyboardInterrupt:
        return 130
    except Exception as e:  # noqa: BLE001 - the error boundary: whatever arrives here ends as one line
        if os.environ.get("SAGAN_DEBUG", "") not in ("", "0"):
            console.show_traceback(e)
        return explain(e)


def explain(e: Exception) -> int:
    """Say what went wrong in one line, and return the exit code."""
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
        console.error("out of memory: lower --batch, --size or --width; 'sagan train --dry-run' tells what they cost")
        return 1
    console.bug(e)
    return 1


def _out_of_memory(e: Exception) -> bool:
    # torch's own classes are known by name, because torch may not be imported here; on a CPU it has none.
    return isinstance(e, MemoryError) or type(e).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(e)


def _wrong_usage(e: typer.TyperException) -> str:
    """Typer's message in the manner of this program: lower case, no full stop, the flag named once."""
    option = getattr(e, "option_name", None)
    if hasattr(e, "possibilities"):
        near = e.possibilities or []
        return f"no such option {option}" + (f" (did you mean {near[0]}?)" if near else "")
    text = re.sub(r"\. Did you mean (.*)\?$", r" (did you mean \1?)", e.format_message().strip()).rstrip(".")
    return text[:1].lower() + text[1:]


def _code(value: Any) -> int:
    """An exit code from Typer or from SystemExit; what a command returned besides is of no interest."""
    return value if isinstance(value, int) else 0


def _give_up_stdout() -> int:
    """Point standard output nowhere, so that Python's own flush at exit does not complain a second time."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
