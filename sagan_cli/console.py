"""Output: results to stdout, messages and progress to stderr. No other module writes to them.

Progress is a bar on a terminal, and otherwise a plain line every few seconds. rich is imported when a bar is drawn.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO

from sagan_cli import console
from sagan_cli.errors import UsageError

if TYPE_CHECKING:
    from sagan_cli.contracts import Tick

EVERY = 5.0
"""Seconds between two plain lines of progress."""

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Silence notes, warnings and progress, but not errors and results."""
    global _quiet
    _quiet = quiet


@contextmanager
def silenced(silent: bool) -> Iterator[None]:
    """Silence notes, warnings and progress within the block, if `silent`; restore the previous state after it."""
    before = _quiet
    set_quiet(silent or before)
    try:
        yield
    finally:
        set_quiet(before)


def quiet() -> bool:
    """Return whether notes, warnings and progress are silenced."""
    return _quiet


def note(message: str) -> None:
    """Print a line for the user on stderr."""
    if not _quiet:
        _say(message)


def warn(message: str) -> None:
    """Print a warning on stderr."""
    if not _quiet:
        _say(f"sagan: warning: {message}")


def error(message: str, command: str = "sagan") -> None:
    """Print an error as one line on stderr, also when quiet."""
    _say(f"{command}: error: {' '.join(message.split())}")


def bug(e: BaseException) -> None:
    """Print one line for an unexpected exception, with the way to its traceback."""
    text = " ".join(f"{type(e).__name__}: {e}".split()).removesuffix(":")
    _say(f"sagan: bug: {text} (set SAGAN_DEBUG=1 for the traceback)")


def show_traceback(e: BaseException) -> None:
    """Print the traceback, as with SAGAN_DEBUG=1."""
    _say("".join(traceback.format_exception(e)).rstrip("\n"))


def result(text: str) -> None:
    """Print lines of the result on stdout."""
    sys.stdout.write(text + "\n")


def emit_json(value: Any) -> None:
    """Print the result as one line of JSON on stdout; paths and other objects become strings."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    # Unprintable characters are escaped: a lone surrogate cannot be encoded, and a line separator would split the line.
    result(text if text.isprintable() else json.dumps(value, allow_nan=False, default=str))


def result_on_screen() -> bool:
    """Return whether stdout is a terminal, not a pipe or file."""
    return sys.stdout.isatty()


def refuse_terminal(flag: str = "--out -") -> None:
    """Stop before the work if bytes would be written to a terminal.

    Raises:
        UsageError: stdout is a terminal.
    """
    if result_on_screen():
        raise UsageError(f"{flag}: standard output is a terminal; name a file, or add a pipe or > FILE")


def write_streamed(fill: Callable[[IO[bytes]], object]) -> None:
    """Write a binary result to stdout with `fill`.

    Raises:
        UsageError: stdout is a terminal.
    """
    refuse_terminal()
    sys.stdout.flush()
    fill(sys.stdout.buffer)
    sys.stdout.buffer.flush()


def write_bytes(data: bytes) -> None:
    """Write bytes to stdout, as `write_streamed`."""
    write_streamed(lambda f: f.write(data))


def terminal() -> bool:
    """Return whether stderr is a terminal on which a line can be redrawn."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def progress(label: str, total: int) -> Iterator[Tick]:
    """Show progress as a bar or plain lines, or not at all when quiet.

    Example: `with progress("packing", 5000) as tick: tick(1200)`.
    """
    if _quiet:
        yield lambda done, total=None: None
    elif terminal():
        with _bar(label, total) as tick:
            yield tick
    else:
        lines = _Lines(label, total)
        yield lines
        lines.finish()


@contextmanager
def _bar(label: str, total: int) -> Iterator[Tick]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # stdout is not redirected: a result written under the bar must not go to stderr.
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done, total=None: bar.update(task, completed=done, **({} if total is None else {"total": total}))


class _Lines:
    """Progress as a plain line at most every EVERY seconds; short work prints nothing."""

    def __init__(self, label: str, total: int) -> None:
        self._label, self._total, self._done = label, total, 0
        self._begun = self._told = time.monotonic()
        self._said = -1

    def __call__(self, done: int, total: int | None = None) -> None:
        self._done = done
        self._total = self._total if total is None else total
        if time.monotonic() - self._told >= EVERY:
            self._tell()

    def finish(self) -> None:
        """Print the last state, if any was printed before."""
        if 0 <= self._said < self._done:
            self._tell()

    def _tell(self) -> None:
        self._told, self._said = time.monotonic(), self._done
        left = (self._told - self._begun) * (self._total - self._done) / self._done if self._done else -1
        note(f"{self._label} {self._done}/{self._total}" + (f"  ETA {clock(left)}" if left > 0 else ""))


def clock(seconds: float) -> str:
    """Format seconds: 3725 -> 1:02:05, 65 -> 1:05; ?? if the time is unknown."""
    if not 0 <= seconds < float("inf"):
        return "??"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _say(message: str) -> None:
    # Looked up at each call: while a bar is drawn, sys.stderr is replaced and prints above it.
    try:
        sys.stderr.write(message + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):  # a full disk, a closed pipe or terminal: messages must not stop the work
        sys.stderr = _null()


def _null() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


def open_standard_streams() -> None:
    """Open the null device for each standard stream that the caller closed, as by `2>&-`.

    Otherwise the next file that is opened takes its number, and receives what libraries write to it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the smallest free number
    sys.stdout = sys.stdout or _null()
    sys.stderr = sys.stderr or _null()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Paths are written with the bytes that they have, and characters that the terminal lacks as escapes.
        utf8 = sys.stdout.encoding.lower() in ("utf-8", "utf8")
        sys.stdout.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Format rows of equal length, the heading first: aligned on a terminal, separated by tabs in a pipe."""
    if not console.result_on_screen():
        return "\n".join("\t".join(row) for row in rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)
