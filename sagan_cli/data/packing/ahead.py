"""One step ahead: an iterator that works in a background thread while its consumer works on what came before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(make: Callable[[Callable[[], bool]], Generator[T, None, None]]) -> Generator[T, None, None]:
    """What `make(stopped)` yields, the next item always being made while the last one is looked at.

    At most two items exist besides the consumer's. An exception in `make` reaches the consumer in its place. Closing
    the generator early, as leaving a loop does, turns `stopped()` true and waits for the thread to see it: a maker
    that asks often ends at once.
    """
    stop = threading.Event()
    items = make(stop.is_set)
    pool = ThreadPoolExecutor(1, thread_name_prefix="sagan-ahead")
    try:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item
            del item  # or it would be kept while the next one is waited for
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        items.close()
