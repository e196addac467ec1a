"""The progress logger: a live display on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sagan_cli import console
from sagan_cli.contracts import Logger, RunInfo


class Progress(Logger):
    """Show step, speed, time left and the newest statistics on standard error."""

    def __init__(self, run: RunInfo, every: float = console.EVERY) -> None:
        """Take the seconds between two plain lines."""
        super().__init__(run)
        self._every = every
        self._state: _State | None = None
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
            self._live = self._live or _live(lambda: self._state)
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
            console.note("  ".join(_describe(self._state)))


_State = tuple[int, int, float, float, dict[str, float]]


def _live(state: Any) -> Any:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    def draw() -> Any:
        now: _State = state()
        where, *rest = _describe(now)
        line = Table.grid(padding=(0, 2))
        line.add_row(Text(where), ProgressBar(total=now[1], completed=now[0], width=24), *map(Text, rest[:2]))
        return Group(line, Text("  ".join(rest[2:])))

    live = Live(get_renderable=draw, console=Console(stderr=True), refresh_per_second=4, redirect_stdout=False)
    live.start()
    return live


def _describe(state: _State) -> list[str]:
    """Return the parts of a line: step, speed, time left, then the statistics."""
    step, total, speed, eta, values = state
    share = f" ({step / total:.0%})" if total else ""
    return [
        f"step {step}/{total}{share}",
        f"{speed:.0f} image/s" if speed >= 10 else f"{speed:.2g} image/s",
        f"ETA {console.clock(eta)}",
        *(f"{name} {value:.4g}" for name, value in values.items()),
    ]
