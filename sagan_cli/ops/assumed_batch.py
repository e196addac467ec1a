"""The batch size by which an operation chooses between two equivalent implementations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_assumed_batch: ContextVar[int | None] = ContextVar("assumed_batch", default=None)


@contextmanager
def assumed_batch(size: int) -> Iterator[None]:
    """Choose implementations within the block as for batches of `size` images.

    With 0, attention is always materialised and resampling always folded: both can be differentiated twice. Tracing
    uses it as well, because a choice made for the example batch would be used for every batch.
    """
    token = _assumed_batch.set(size)
    try:
        yield
    finally:
        _assumed_batch.reset(token)


def assumed_batch_size() -> int | None:
    """Return the size set by `assumed_batch`, or None outside of it."""
    return _assumed_batch.get()
