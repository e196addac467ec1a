"""Reads every picture of a data set once, in order and in parallel, into the files of a pack."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np

from sagan_cli.contracts import Dataset
from sagan_cli.data.decode import Pixels
from sagan_cli.data.fit import fit, is_gray
from sagan_cli.data.hints import hints_of
from sagan_cli.data.npy import NpyWriter
from sagan_cli.errors import BadImage, DataError, PluginError, SaganError

IN_PROCESS_BELOW = 512
"""Pictures below which starting worker processes (a third of a second) costs more than it saves."""

_CHUNK_PICTURES = 64
_CHUNK_BYTES = 8 << 20
_SAMPLED = 16
"""Pictures looked at first to guess whether a data set is gray."""


@dataclass(frozen=True)
class Shape:
    """What every picture is made into."""

    height: int
    width: int
    channels: int
    fit: str
    gray_only: bool = False
    """Stop at the first picture with a colour: `channels` 1 was a guess."""


@dataclass(frozen=True)
class Skipped:
    """One picture that cannot be read."""

    index: int
    reason: str


@dataclass(frozen=True)
class Built:
    """What was written: the pictures' shape (N, H, W, C), the pack's digest, and what is missing."""

    shape: tuple[int, int, int, int]
    digest: str
    skipped: list[Skipped]


@dataclass(frozen=True)
class _Chunk:
    images: Pixels
    labels: list[int]
    skipped: list[Skipped]
    seen: int


class _ColourFound(Exception):
    """The guess that all pictures are gray was wrong."""


def build(
    folder: Path,
    dataset: Dataset,
    *,
    height: int,
    width: int,
    channels: int | None,
    how: str,
    workers: int,
    progress: Callable[[int, int], None],
) -> Built:
    """Write `images.npy` uint8 (N, height, width, C) and `labels.npy` int64 (N,) into `folder`.

    N counts the pictures that can be read, in the data set's order. `channels` None means 1 if no picture has a colour,
    else 3. Memory stays at a few chunks of pictures, whatever N is. `progress` is told (pictures done, all); whatever
    it raises stops the work and its processes.

    Raises:
        DataError: the data set answered against its contract, or changed underneath.
        SaganError: a worker process was killed.
        PluginError: the data set cannot be sent to worker processes.
    """
    guess = channels or _guess_channels(dataset)
    shape = Shape(height, width, guess, how, gray_only=channels is None and guess == 1)
    try:
        return _write(folder, dataset, shape, workers, progress)
    except _ColourFound:
        return _write(folder, dataset, Shape(height, width, 3, how), workers, progress)


def _guess_channels(dataset: Dataset) -> int:
    for index in np.linspace(0, len(dataset) - 1, min(len(dataset), _SAMPLED)).astype(int):
        try:
            picture, _ = dataset.read(int(index))
        except BadImage:
            continue  # counted and listed when its turn comes
        if not is_gray(picture):
            return 3
    return 1


def _write(folder: Path, dataset: Dataset, shape: Shape, workers: int, progress: Callable[[int, int], None]) -> Built:
    total, done = len(dataset), 0
    labels: list[int] = []
    skipped: list[Skipped] = []
    digest = hashlib.sha256()
    row = (shape.height, shape.width, shape.channels)
    progress(0, total)
    with NpyWriter(folder / "images.npy", np.uint8, row) as images:
        for chunk in _chunks(dataset, shape, workers):
            images.append(chunk.images)
            digest.update(chunk.images.data)
            labels += chunk.labels
            skipped += chunk.skipped
            done += chunk.seen
            progress(done, total)
    with NpyWriter(folder / "labels.npy", np.int64, ()) as column:
        values = np.array(labels, np.int64)
        column.append(values)
        digest.update(values.astype("<i8").tobytes())
    digest.update(repr((len(labels), *row)).encode())
    return Built((len(labels), *row), digest.hexdigest(), skipped)


def _chunks(dataset: Dataset, shape: Shape, workers: int) -> Iterator[_Chunk]:
    total = len(dataset)
    size = max(1, min(_CHUNK_PICTURES, _CHUNK_BYTES // (shape.height * shape.width * shape.channels)))
    ranges = [(first, min(first + size, total)) for first in range(0, total, size)]
    # A daemonic process may have no children; below some size they are not worth starting.
    alone = workers <= 1 or total < IN_PROCESS_BELOW or hints_of(dataset).in_process
    if alone or multiprocessing.current_process().daemon:
        for first, last in ranges:
            yield _read(dataset, shape, first, last, lambda: False)
    else:
        yield from _in_processes(dataset, shape, ranges, workers)


def _read(dataset: Dataset, shape: Shape, first: int, last: int, stopped: Callable[[], bool]) -> _Chunk:
    """Pictures first..last-1, those that can be read closed up."""
    images = np.empty((last - first, shape.height, shape.width, shape.channels), np.uint8)
    labels: list[int] = []
    skipped: list[Skipped] = []
    for index in range(first, last):
        if stopped():
            break
        try:
            picture, label = dataset.read(index)
        except BadImage as e:
            skipped.append(Skipped(index, str(e)))
            continue
        except OSError as e:
            raise DataError(f"the data set cannot be read at {name_of(dataset, index)}: {e.strerror or e}") from e
        _check_answer(dataset, index, picture, label)
        if shape.gray_only and not is_gray(picture):
            raise _ColourFound
        images[len(labels)] = fit(picture, shape.height, shape.width, shape.channels, shape.fit)
        labels.append(int(label))
    return _Chunk(images[: len(labels)], labels, skipped, last - first)


def name_of(dataset: Dataset, index: int) -> str:
    """What to call picture `index` in a message: its file where the data set knows one."""
    named: Callable[[int], str] | None = getattr(dataset, "name_of", None)
    return named(index) if named else f"picture {index}"


def _check_answer(dataset: Dataset, index: int, picture: Pixels, label: int) -> None:
    given: Any = picture  # a plugin's answer may be anything at all
    legal = isinstance(given, np.ndarray) and given.dtype == np.uint8 and given.size > 0
    if not legal or not (given.ndim == 2 or (given.ndim == 3 and given.shape[2] in (1, 3, 4))):
        what = f"{given.dtype} {given.shape}" if isinstance(given, np.ndarray) else type(given).__name__
        raise DataError(f"the data set's {name_of(dataset, index)} is {what}; it must be uint8 (H, W) or (H, W, 1|3|4)")
    if not 0 <= label < max(1, len(dataset.class_names)):
        raise DataError(
            f"the data set's {name_of(dataset, index)} has label {label}; it names {len(dataset.class_names)} classes"
        )


# ---------------------------------------------------------------------------------------------------------------------
# Worker processes. They are spawned, not forked: the parent may already run torch's threads, whose locks a fork copies
# in whatever state they are.


def _in_processes(dataset: Dataset, shape: Shape, ranges: list[tuple[int, int]], workers: int) -> Iterator[_Chunk]:
    try:
        pickled = pickle.dumps((dataset, shape))
    # Pickling calls the data set's own code: any exception there means the same.
    except Exception as e:
        raise PluginError(f"the data set cannot be pickled, which packing in parallel needs: {e}") from e
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(pickled, stop))
    waiting: deque[tuple[int, Future[_Chunk]]] = deque()
    todo = iter(ranges)
    try:
        # Results come back in order; a bounded queue keeps memory constant while the first of them is slow.
        while True:
            while len(waiting) < 2 * workers + 1 and (bounds := next(todo, None)):
                waiting.append((bounds[0], pool.submit(_work, *bounds)))
            if not waiting:
                return
            first, future = waiting.popleft()
            yield future.result()
    except BrokenProcessPool as e:
        raise SaganError(
            f"packing stopped: a worker process died near {name_of(dataset, first)}, killed from outside or for want "
            "of memory: free some and run the same command again"
        ) from e
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


_job: tuple[Dataset, Shape, Event]


def _start_worker(pickled: bytes, stop: Event) -> None:
    """Runs once in every worker process."""
    global _job
    # Ctrl-C reaches the whole process group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    dataset, shape = pickle.loads(pickled)
    _job = dataset, shape, stop


def _die_with_parent() -> None:
    """A worker whose parent is killed outright would wait for work for ever: it holds both ends of its own queue."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _work(first: int, last: int) -> _Chunk:
    dataset, shape, stop = _job
    return _read(dataset, shape, first, last, stop.is_set)
