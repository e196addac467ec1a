"""Callbacks that remember what they were told."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any


class Ear:
    """Hears notes and ticks."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.ticks: list[tuple[int, int]] = []

    @contextlib.contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[[int, int], None]]:
        yield lambda done, total: self.ticks.append((done, total))

    @property
    def how(self) -> dict[str, Any]:
        return {"progress": self.progress, "notify": self.notes.append}
