"""How many pictures a choice between two routes to one function is made for: the batch, unless it is said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_assumed_batch: ContextVar[int | None] = ContextVar("assumed_batch", default=None)


@contextmanager
def assumed_batch(pictures: int) -> Iterator[None]:
    """Within the block, routes are chosen as for batches of so many pictures.

    For 0, attention is always written out and resampling always folded.

    For tracing, where a choice made by the example's batch would hold for every batch.
    """
    token = _assumed_batch.set(pictures)
    try:
        yield
    finally:
        _assumed_batch.reset(token)


def assumed() -> int | None:
    """What `assumed_batch` says here; None where nothing does."""
    return _assumed_batch.get()
