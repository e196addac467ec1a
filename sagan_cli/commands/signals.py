"""Signals that end long work at a good place instead of in the middle."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from sagan_cli import console


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that receives SIGINT or SIGTERM; the loop ends after its step; a second one ends the process."""
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)
        console.note("stopping: finishing this step and saving (again to stop at once)")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
