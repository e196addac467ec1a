"""Read every image of a dataset once, in order and in parallel, into the files of a pack."""

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
"""With fewer images, starting worker processes (a third of a second) costs more than it saves."""

_CHUNK_PICTURES = 64
_CHUNK_BYTES = 8 << 20
_SAMPLED = 16
"""Number of images read first to guess whether a dataset is gray."""


@dataclass(frozen=True)
class Built:
    """The result: shape (N, H, W, C), digest and skipped images."""

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

    N is the number of readable images, in the dataset's order. `channels` None is 1 if all images are gray, else 3.
    Memory does not depend on N. `progress` receives (images done, all); an exception from it stops the work.

    Raises:
        DataError: the dataset returned an invalid image, or changed.
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
    """Return 1 if a few images spread over the dataset are gray, else 3."""
    for index in np.linspace(0, len(dataset) - 1, min(len(dataset), _SAMPLED)).astype(int):
        try:
            picture, _ = dataset.read(int(index))
        except BadImage:
            continue  # counted later
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
    # A daemonic process cannot have children.
    alone = workers <= 1 or total < IN_PROCESS_BELOW or hints_of(dataset).in_process
    if alone or multiprocessing.current_process().daemon:
        for first, last in ranges:
            yield read_stretch(dataset, shape, first, last, lambda: False)
    else:
        yield from read_in_processes(dataset, shape, ranges, workers)


@dataclass(frozen=True)
class PackedShape:
    """The form of the packed images."""

    height: int
    width: int
    channels: int
    fit: str
    gray_only: bool = False
    """Stop at the first image with colour, because `channels` 1 was a guess."""


@dataclass(frozen=True)
class Skipped:
    """An unreadable image."""

    index: int
    reason: str


@dataclass(frozen=True)
class Chunk:
    """Consecutive images without unreadable ones."""

    images: Pixels
    labels: list[int]
    skipped: list[Skipped]
    seen: int
    """Number of images, including skipped ones."""


class ColourFound(Exception):
    """The guess that all images are gray was wrong."""


def read_stretch(dataset: Dataset, shape: PackedShape, first: int, last: int, stopped: Callable[[], bool]) -> Chunk:
    """Read images first..last-1, or fewer if `stopped` becomes true.

    Raises:
        ColourFound: `shape.gray_only` was a wrong guess.
        DataError: an invalid image, or the dataset cannot be read.
        PluginError: a plugin's dataset failed.
    """
    images = np.empty((last - first, shape.height, shape.width, shape.channels), np.uint8)
    labels: list[int] = []
    skipped: list[Skipped] = []
    # `image` saves a copy, which is half of the time of a small JPEG.
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
                raise  # reported already, or a bug whose traceback is kept
            raise PluginError(f"the dataset failed at {name_of(dataset, index)}: {type(e).__name__}: {e}") from e
        _check_answer(dataset, index, picture, label)
        if shape.gray_only and not is_gray(picture):
            raise ColourFound
        images[len(labels)] = fit(picture, shape.height, shape.width, shape.channels, shape.fit)
        labels.append(int(label))
    return Chunk(images[: len(labels)], labels, skipped, last - first)


def name_of(dataset: Dataset, index: int) -> str:
    """Return the name of image `index` in messages."""
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
    """Writes an .npy file row by row; the number of rows is written at the end of the `with` block.

    NumPy pads the header so that the first dimension can grow in place (format version 1.0, "growth axis").
    """

    def __init__(self, path: Path, dtype: DTypeLike, row: tuple[int, ...]) -> None:
        self._dtype, self._row, self._count = np.dtype(dtype), row, 0
        self._file = path.open("wb")
        self._file.write(self._header())

    def append(self, rows: NDArray[Any]) -> None:
        """Append rows of shape (n, *row)."""
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
    """Yield `read_stretch` of each (first, last); closing the iterator early stops the processes after an image.

    Raises:
        SaganError: a worker process died.
        PluginError: the dataset cannot be pickled, or not be unpickled in another process.
    """
    try:
        pickled = pickle.dumps((dataset, shape))
    # Pickling calls the dataset's code, which may raise anything.
    except Exception as e:
        raise PluginError(f"the dataset cannot be pickled, which packing in parallel needs: {e}") from e
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(pickled, stop))
    waiting: deque[tuple[int, Future[Chunk]]] = deque()
    todo = iter(ranges)
    try:
        # Results are used in order; a bounded queue limits memory while the first one is slow.
        while True:
            while len(waiting) < 2 * workers + 1 and (bounds := next(todo, None)):
                with _signals_held():  # submitting starts processes
                    waiting.append((bounds[0], pool.submit(_work, *bounds)))
            if not waiting:
                return
            first, future = waiting.popleft()
            yield future.result()
    except BrokenProcessPool as e:
        # The pool waits for its workers, which ignore SIGTERM; one that is sending images would never end.
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
    """Block SIGINT and SIGTERM; processes started in the block inherit this.

    Ctrl-C reaches the whole process group, and a worker that is still importing would print a traceback.
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
"""The dataset of a worker process, unpickled once."""


def _start_worker(pickled: bytes, stop: Event) -> None:
    """Initialise a worker process."""
    global _job
    for number in _ENDINGS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        dataset, shape = pickle.loads(pickled)
        _job = dataset, shape, stop
    # Unpickling runs the dataset's code. An exception here would look like a process that died.
    except Exception as e:  # noqa: BLE001
        _job = PluginError(f"the dataset cannot be unpickled in a worker process, which packing in parallel needs: {e}")


def _die_with_parent() -> None:
    """End this worker when its parent is killed; otherwise it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _work(first: int, last: int) -> Chunk:
    if isinstance(_job, PluginError):
        raise _job
    dataset, shape, stop = _job
    return read_stretch(dataset, shape, first, last, stop.is_set)
