"""Reads every image of a dataset once, in order and in parallel, into the files of a pack."""

from __future__ import annotations

import contextlib
import hashlib
import io
import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.synchronize import Event
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import Image

from sagan_cli.contracts import Dataset
from sagan_cli.data.decode import Pixels, fit, is_gray
from sagan_cli.data.sources.folders import FileBacked
from sagan_cli.data.sources.opening import hints_of
from sagan_cli.errors import BadImage, DataError, PluginError, SaganError

IN_PROCESS_BELOW = 512
"""Images below which starting worker processes (a third of a second) costs more than it saves."""

_CHUNK_PICTURES = 64
_CHUNK_BYTES = 8 << 20
_SAMPLED = 16
"""Images looked at first to guess whether a dataset is gray."""


@dataclass(frozen=True)
class Built:
    """What was written: the images' shape (N, H, W, C), the pack's digest, and what is missing."""

    shape: tuple[int, int, int, int]
    digest: str
    skipped: list[Skipped]


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

    N counts the images that can be read, in the dataset's order. `channels` None means 1 if no image has a colour,
    else 3. Memory stays at a few chunks of images, whatever N is. `progress` is told (images done, all); whatever
    it raises stops the work and its processes.

    Raises:
        DataError: the dataset answered against its contract, or changed underneath.
        SaganError: a worker process was killed.
        PluginError: the dataset cannot be sent to worker processes.
    """
    guess = channels or guess_channels(dataset)
    shape = PackedShape(height, width, guess, how, gray_only=channels is None and guess == 1)
    try:
        return _write(folder, dataset, shape, workers, progress)
    except ColourFound:
        return _write(folder, dataset, PackedShape(height, width, 3, how), workers, progress)


def guess_channels(dataset: Dataset) -> int:
    """1 if none of a few images spread over the dataset has a colour, else 3."""
    for index in np.linspace(0, len(dataset) - 1, min(len(dataset), _SAMPLED)).astype(int):
        try:
            picture, _ = dataset.read(int(index))
        except BadImage:
            continue  # counted and listed when its turn comes
        if not is_gray(picture):
            return 3
    return 1


def _write(
    folder: Path, dataset: Dataset, shape: PackedShape, workers: int, progress: Callable[[int, int], None]
) -> Built:
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


def _chunks(dataset: Dataset, shape: PackedShape, workers: int) -> Iterator[Chunk]:
    total = len(dataset)
    size = max(1, min(_CHUNK_PICTURES, _CHUNK_BYTES // (shape.height * shape.width * shape.channels)))
    ranges = [(first, min(first + size, total)) for first in range(0, total, size)]
    # A daemonic process may have no children; below some size they are not worth starting.
    alone = workers <= 1 or total < IN_PROCESS_BELOW or hints_of(dataset).in_process
    if alone or multiprocessing.current_process().daemon:
        for first, last in ranges:
            yield read_stretch(dataset, shape, first, last, lambda: False)
    else:
        yield from read_in_processes(dataset, shape, ranges, workers)


@dataclass(frozen=True)
class PackedShape:
    """What every image is made into."""

    height: int
    width: int
    channels: int
    fit: str
    gray_only: bool = False
    """Stop at the first image with a colour: `channels` 1 was a guess."""


@dataclass(frozen=True)
class Skipped:
    """One image that cannot be read."""

    index: int
    reason: str


@dataclass(frozen=True)
class Chunk:
    """Consecutive images, those that can be read closed up."""

    images: Pixels
    labels: list[int]
    skipped: list[Skipped]
    seen: int
    """Images looked at, the skipped ones included."""


class ColourFound(Exception):
    """The guess that all images are gray was wrong."""


def read_stretch(dataset: Dataset, shape: PackedShape, first: int, last: int, stopped: Callable[[], bool]) -> Chunk:
    """Images first..last-1, or fewer when `stopped` turns true meanwhile.

    Raises:
        ColourFound: `shape.gray_only` was a wrong guess.
        DataError: an answer against the contract, or a dataset that cannot be read any further.
        PluginError: a dataset that is not one of files raised anything else.
    """
    images = np.empty((last - first, shape.height, shape.width, shape.channels), np.uint8)
    labels: list[int] = []
    skipped: list[Skipped] = []
    # Our own sets of files offer the decoded image itself, which saves half of a small JPEG's time.
    read: Callable[[int], tuple[Any, int]] = getattr(dataset, "image", dataset.read)
    for index in range(first, last):
        if stopped():
            break
        try:
            picture, label = read(index)
        except BadImage as e:
            skipped.append(Skipped(index, str(e)))
            continue
        except OSError as e:
            raise DataError(f"the dataset cannot be read at {name_of(dataset, index)}: {e.strerror or e}") from e
        except Exception as e:
            if isinstance(dataset, FileBacked) or isinstance(e, SaganError):
                raise  # our own code: said already, or a bug that should keep its traceback
            raise PluginError(f"the dataset failed at {name_of(dataset, index)}: {type(e).__name__}: {e}") from e
        _check_answer(dataset, index, picture, label)
        if shape.gray_only and not is_gray(picture):
            raise ColourFound
        images[len(labels)] = fit(picture, shape.height, shape.width, shape.channels, shape.fit)
        labels.append(int(label))
    return Chunk(images[: len(labels)], labels, skipped, last - first)


def name_of(dataset: Dataset, index: int) -> str:
    """What to call image `index` in a message: its file where the dataset knows one."""
    named: Callable[[int], str] | None = getattr(dataset, "name_of", None)
    return named(index) if named else f"image {index}"


def _is_legal(picture: Any) -> bool:
    if isinstance(picture, Image.Image):
        return True
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.size == 0:
        return False
    return picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] in (1, 3, 4))


def _check_answer(dataset: Dataset, index: int, picture: Any, label: int) -> None:
    if not _is_legal(picture):
        what = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise DataError(f"the dataset's {name_of(dataset, index)} is {what}; it must be uint8 (H, W) or (H, W, 1|3|4)")
    if not 0 <= label < max(1, len(dataset.class_names)):
        raise DataError(
            f"the dataset's {name_of(dataset, index)} has label {label}; it names {len(dataset.class_names)} classes"
        )


class NpyWriter:
    """Appends rows of one shape; on leaving the `with` block the header says how many there are.

    NumPy pads the header so that the first dimension can grow in place (format version 1.0, "growth axis").
    """

    def __init__(self, path: Path, dtype: DTypeLike, row: tuple[int, ...]) -> None:
        self._dtype, self._row, self._count = np.dtype(dtype), row, 0
        self._file = path.open("wb")
        self._file.write(self._header())

    def append(self, rows: NDArray[Any]) -> None:
        """Rows of shape (n, *row), C order."""
        if rows.shape[1:] != self._row or rows.dtype != self._dtype:
            raise ValueError(f"{rows.dtype} {rows.shape[1:]} in a file of {self._dtype} {self._row}")
        self._file.write(np.ascontiguousarray(rows).data)
        self._count += len(rows)

    def _header(self) -> bytes:
        out = io.BytesIO()
        fields = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._count, *self._row)}
        np.lib.format.write_array_header_1_0(out, fields)
        return out.getvalue()

    def __enter__(self) -> NpyWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if error is None:
                self._file.seek(0)
                self._file.write(self._header())


def read_in_processes(
    dataset: Dataset, shape: PackedShape, ranges: Sequence[tuple[int, int]], workers: int
) -> Iterator[Chunk]:
    """`read_stretch` of each (first, last); closing the iterator early stops the processes within an image.

    Raises:
        SaganError: a worker process died.
        PluginError: the dataset cannot be pickled, or not be unpickled in another process.
    """
    try:
        pickled = pickle.dumps((dataset, shape))
    # Pickling calls the dataset's own code: any exception there means the same.
    except Exception as e:
        raise PluginError(f"the dataset cannot be pickled, which packing in parallel needs: {e}") from e
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
        # images to nobody would keep it waiting for ever.
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


_job: tuple[Dataset, PackedShape, Event] | PluginError
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
    # Unpickling imports and runs the dataset's own code. Raising here would look like a process that died.
    except Exception as e:  # noqa: BLE001
        _job = PluginError(f"the dataset cannot be unpickled in a worker process, which packing in parallel needs: {e}")


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
