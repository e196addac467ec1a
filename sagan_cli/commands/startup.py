"""Fast start: commands that are imported only when they run, and shortcuts around slow parts of Typer.

The shortcuts replace internals of Typer, whose version pyproject.toml therefore limits; the gains are given.
"""

from __future__ import annotations

import atexit
import functools
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, TextIO

import typer
from typer.core import TyperCommand

from sagan_cli.errors import PluginError, SaganError
from sagan_cli.plugins import registry
from sagan_cli.plugins.registry import Entry


class QuickFlags:
    """Mixin of commands that avoids importing pydantic. Gain: 77 ms of the 204 ms of `sagan info --list`.

    Typer converts every value with pydantic, also str to str and the default None of its own flags to False. Values
    that need no conversion are returned directly here; others, and all errors, are left to Typer.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the command's parameters, including those of Typer."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if param.name in ("help", "install_completion", "show_completion") and param.default is None:
                param.default = False
            usual = getattr(param, "get_runtime_param", None)
            # Typer keeps its objects, so each is replaced once. Without the attribute, Typer's own way is used.
            if usual is not None and hasattr(param, "type_descriptor") and not isinstance(usual, functools.partial):
                param.get_runtime_param = functools.partial(_Plain, usual)
        return params


class _Plain:
    """Converts the values of one parameter."""

    def __init__(self, usual: Callable[[], Any]) -> None:
        self._usual = usual

    def coerce(self, value: Any, *, param: Any, ctx: Any) -> Any:
        """Return None, texts and integers within their bounds directly; call Typer for everything else."""
        about = param.type_descriptor
        of_one = not param.multiple and param.nargs == 1 and about.parameter_info.parser is None
        if of_one and value is None:
            return None
        if of_one and about.annotation is str and isinstance(value, str):
            return value
        if of_one and about.annotation is int and re.fullmatch(r"[0-9]{1,18}", str(value)):
            low, high = about.parameter_info.min, about.parameter_info.max
            if (low is None or low <= int(value)) and (high is None or int(value) <= high):
                return int(value)
        return self._usual().coerce(value, param=param, ctx=ctx)


class GroupedCommand(QuickFlags, TyperCommand):
    """A command whose plain help groups options by their `rich_help_panel`.

    Typer groups options only in its rich help, and importing rich would double the time of `sagan --help`.
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments first, then one section for each panel, then the other options."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                plain = "Arguments" if param.param_type_name == "argument" else "Options"
                sections.setdefault(getattr(param, "rich_help_panel", None) or plain, []).append(record)
        general = sections.pop("Options")
        for title, rows in (*sections.items(), ("Options", general)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class LazyCommand(TyperCommand):
    """A command that is imported when it is called."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry.name, short_help=entry.summary, rich_markup_mode=None)
        self.entry = entry

    def get_short_help_str(self, limit: int = 45) -> str:
        """Return the line in `sagan --help`, from the registry."""
        if self.entry.builtin:
            return str(super().get_short_help_str(limit))
        return f"{self.entry.problem or self.entry.summary} [{self.entry.package}]"

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Return the context of the real command.

        Raises:
            PluginError: a plugin command that cannot be imported or is not a Typer function.
        """
        return real_command(self.entry).make_context(info_name, args, parent=parent, **extra)


def real_command(entry: Entry) -> TyperCommand:
    """Import the function of an entry and make a Typer command of it.

    Raises:
        PluginError: it cannot be imported, or Typer cannot read its annotations.
    """
    function = registry.load_entry(entry)
    if entry.builtin:
        return _typed(entry.name, function)
    try:
        return _typed(entry.name, _blaming(entry, function))
    except Exception as e:  # a foreign signature can fail in any way inside Typer
        raise PluginError(f"{entry.title} is not a Typer function: {type(e).__name__}: {e}") from e


def _typed(name: str, function: Callable[..., Any]) -> TyperCommand:
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name, cls=GroupedCommand)(function)
    command = typer.main.get_command(app)
    assert isinstance(command, TyperCommand), "one function makes a command, not a group"
    return command


def _blaming(entry: Entry, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with errors that name the plugin."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)  # what it returns is no exit code
        except (SaganError, OSError, typer.Exit, typer.Abort, typer.TyperException):
            raise
        except Exception as e:
            raise PluginError(f"{entry.title} failed: {type(e).__name__}: {e}; report it to its authors") from e

    return run


_exit_requested = False


def exit_quickly() -> None:
    """Let `exit_now` skip the interpreter's shutdown; called when all files are closed and results are written.

    Gain: 460 ms of the 2.0 s of `sagan sample -n 1`, which the interpreter needs to free torch and its libraries.
    """
    global _exit_requested
    _exit_requested = True


def exit_now(code: int, streams: Iterable[TextIO]) -> None:
    """End the process with `code` if `exit_quickly` was called; return if a thread, debugger or profiler still runs."""
    watched = sys.gettrace() or sys.getprofile() or sys.flags.inspect
    if not _exit_requested or watched or threading.active_count() > 1:
        return
    atexit._run_exitfuncs()  # as `sys.exit` does: cleanup of plugins, logging and temporary files
    for stream in streams:
        stream.flush()
    os._exit(code)
