"""Reads stretches of a data set in worker processes; results come back in order.

The processes are spawned, not forked: the parent may already run torch's threads, whose locks a fork copies in whatever
state they are.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from multiprocessing.synchronize import Event

from sagan_cli.contracts import Dataset
from sagan_cli.data.packing.reading import Chunk, Shape, name_of, read_stretch
from sagan_cli.errors import PluginError, SaganError


def read_in_processes(
    dataset: Dataset, shape: Shape, ranges: Sequence[tuple[int, int]], workers: int
) -> Iterator[Chunk]:
    """`read_stretch` of each (first, last); closing the iterator early stops the processes within a picture.

    Raises:
        SaganError: a worker process died.
        PluginError: the data set cannot be pickled, or not be unpickled in another process.
    """
    try:
        pickled = pickle.dumps((dataset, shape))
    # Pickling calls the data set's own code: any exception there means the same.
    except Exception as e:
        raise PluginError(f"the data set cannot be pickled, which packing in parallel needs: {e}") from e
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(pickled, stop))
    waiting: deque[tuple[int, Future[Chunk]]] = deque()
    todo = iter(ranges)
    try:
        # Results come back in order; a bounded queue keeps memory constant while the first of them is slow.
        while True:
            while len(waiting) < 2 * workers + 1 and (bounds := next(todo, None)):
                with _signals_held():  # submitting is what starts processes
                    waiting.append((bounds[0], pool.submit(_work, *bounds)))
            if not waiting:
                return
            first, future = waiting.popleft()
            yield future.result()
    except BrokenProcessPool as e:
        # The pool now ends the rest with SIGTERM, which they leave to their parent, and waits: one that is just sending
        # pictures to nobody would keep it waiting for ever.
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        raise SaganError(
            f"packing stopped: a worker process died near {name_of(dataset, first)}, killed from outside or for want "
            "of memory: free some and run the same command again"
        ) from e
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


_ENDINGS = {signal.SIGINT, signal.SIGTERM}


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Hold back what would end this process; processes started meanwhile have it held from their first instruction on.

    Ctrl-C reaches the whole process group. The parent alone decides what it means, and a worker that is still importing
    would answer with a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_job: tuple[Dataset, Shape, Event] | PluginError
"""A worker process's only work, unpickled once rather than with every stretch."""


def _start_worker(pickled: bytes, stop: Event) -> None:
    """Runs once in every worker process."""
    global _job
    for number in _ENDINGS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        dataset, shape = pickle.loads(pickled)
        _job = dataset, shape, stop
    # Unpickling imports and runs the data set's own code. Raising here would look like a process that died.
    except Exception as e:  # noqa: BLE001
        _job = PluginError(
            f"the data set cannot be unpickled in a worker process, which packing in parallel needs: {e}"
        )


def _die_with_parent() -> None:
    """A worker whose parent is killed outright would wait for work for ever: it holds both ends of its own queue."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _work(first: int, last: int) -> Chunk:
    if isinstance(_job, PluginError):
        raise _job
    dataset, shape, stop = _job
    return read_stretch(dataset, shape, first, last, stop.is_set)
