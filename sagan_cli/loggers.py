"""The events of a training run and the loggers that receive them: the progress display, metrics.jsonl, and plugins'."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from sagan_cli import console
from sagan_cli.contracts import Logger, RunInfo
from sagan_cli.errors import SaganError
from sagan_cli.plugins import registry
from sagan_cli.runs import Run

ALWAYS = ("progress", "jsonl", "diagnosis")
"""Loggers of every run."""


class Events:
    """Sends each event to all loggers: `events.grid(step, path)` calls `grid(step, path)` of each.

    A plugin's logger that raises is dropped with one warning; an error of a built-in one ends training.
    """

    def __init__(self, loggers: Iterable[tuple[str, Logger, bool]], warn: Callable[[str], None]) -> None:
        """Take loggers as (name, logger, whether it is built in)."""
        self._loggers, self._warn = list(loggers), warn

    def send(self, event: str, *values: Any) -> None:
        """Call the method `event` of every logger."""
        for entry in list(self._loggers):
            name, logger, builtin = entry
            try:
                getattr(logger, event)(*values)
            except Exception as e:
                if builtin:
                    raise
                self._loggers.remove(entry)
                self._warn(f"--logger {name}: {type(e).__name__}: {e}; training continues without it")


def open_events(names: str, run: RunInfo, warn: Callable[[str], None], *, leads: bool = True) -> Events:
    """Create the loggers of a run: the usual ones and those of `--logger`; none on processes that do not lead.

    Raises:
        UsageError: an unknown name.
        PluginError: a plugin's logger that cannot be created.
    """
    chosen = dict.fromkeys((*ALWAYS, *(n.strip() for n in names.split(",") if n.strip()))) if leads else {}
    loggers = []
    for name in chosen:
        entry = registry.find("loggers", name)
        try:
            loggers.append((name, registry.load_entry(entry)(run), entry.builtin))
        except SaganError:
            raise
        except Exception as e:
            if entry.builtin:
                raise
            raise registry.failure(entry, e) from e
    return Events(loggers, warn)


class MetricsJsonl(Logger):
    """Append statistics and scores to the run's metrics.jsonl."""

    def start(self, step: int) -> None:
        """Drop the lines after `step`, which a resumed run writes again."""
        Run(self.run.path).rewind_metrics(step)

    def statistics(self, step: int, numbers: Mapping[str, float]) -> None:
        """Append a line of statistics."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        Run(self.run.path).append_metrics({"step": step, **numbers, "time": now})

    def score(self, step: int, scores: Mapping[str, Any]) -> None:
        """Append a line of scores."""
        Run(self.run.path).append_metrics({"kind": "score", "step": step, **scores})


class Progress(Logger):
    """Show step, speed, time left and the newest statistics on standard error."""

    def __init__(self, run: RunInfo, every: float = console.EVERY) -> None:
        """Take the seconds between two plain lines."""
        super().__init__(run)
        self._every = every
        self._state: _ProgressState | None = None
        self._shown_at = time.monotonic()
        self._fresh = False
        self._live: Any = None
        self._on_terminal = console.terminal()

    def step(self, step: int, images_per_second: float, eta_seconds: float, numbers: Mapping[str, float]) -> None:
        """Show the state after a step; cheap enough for every step."""
        self._state = (step, self.run.steps, images_per_second, eta_seconds, dict(numbers))
        self._fresh = True
        if console.quiet():
            return
        if self._on_terminal:
            # The live display's own thread draws the state a few times a second.
            self._live = self._live or _live_display(lambda: self._state)
        elif time.monotonic() - self._shown_at >= self._every:
            self._show_line()

    def end(self, step: int, finished: bool) -> None:
        """Leave the last state on the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        elif self._fresh and not console.quiet() and not self._on_terminal:
            self._show_line()
        self._fresh = False

    def _show_line(self) -> None:
        self._shown_at, self._fresh = time.monotonic(), False
        if self._state is not None:
            console.note("  ".join(_parts(self._state)))


_ProgressState = tuple[int, int, float, float, dict[str, float]]


def _live_display(state: Any) -> Any:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    def draw() -> Any:
        now: _ProgressState = state()
        where, *rest = _parts(now)
        line = Table.grid(padding=(0, 2))
        line.add_row(Text(where), ProgressBar(total=now[1], completed=now[0], width=24), *map(Text, rest[:2]))
        return Group(line, Text("  ".join(rest[2:])))

    live = Live(get_renderable=draw, console=Console(stderr=True), refresh_per_second=4, redirect_stdout=False)
    live.start()
    return live


_NOT_SHOWN = ("d_sign", "d_grad", "g_grad")
"""Statistics that are only in metrics.jsonl."""


def _parts(state: _ProgressState) -> list[str]:
    """Return the parts of a line: step, speed, time left, then the statistics."""
    step, total, speed, eta, values = state
    share = f" ({step / total:.0%})" if total else ""
    return [
        f"step {step}/{total}{share}",
        f"{speed:.0f} image/s" if speed >= 10 else f"{speed:.2g} image/s",
        f"ETA {console.clock(eta)}",
        *(f"{name} {value:.4g}" for name, value in values.items() if name not in _NOT_SHOWN),
    ]
