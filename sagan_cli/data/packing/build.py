"""Reads every picture of a data set once, in order and in parallel, into the files of a pack."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sagan_cli.contracts import Dataset
from sagan_cli.data.fit import is_gray
from sagan_cli.data.packing.npy import NpyWriter
from sagan_cli.data.packing.reading import Chunk, ColourFound, Shape, Skipped, read_stretch
from sagan_cli.data.packing.workers import read_in_processes
from sagan_cli.data.sources.hints import hints_of
from sagan_cli.errors import BadImage

IN_PROCESS_BELOW = 512
"""Pictures below which starting worker processes (a third of a second) costs more than it saves."""

_CHUNK_PICTURES = 64
_CHUNK_BYTES = 8 << 20
_SAMPLED = 16
"""Pictures looked at first to guess whether a data set is gray."""


@dataclass(frozen=True)
class Built:
    """What was written: the pictures' shape (N, H, W, C), the pack's digest, and what is missing."""

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

    N counts the pictures that can be read, in the data set's order. `channels` None means 1 if no picture has a colour,
    else 3. Memory stays at a few chunks of pictures, whatever N is. `progress` is told (pictures done, all); whatever
    it raises stops the work and its processes.

    Raises:
        DataError: the data set answered against its contract, or changed underneath.
        SaganError: a worker process was killed.
        PluginError: the data set cannot be sent to worker processes.
    """
    guess = channels or guess_channels(dataset)
    shape = Shape(height, width, guess, how, gray_only=channels is None and guess == 1)
    try:
        return _write(folder, dataset, shape, workers, progress)
    except ColourFound:
        return _write(folder, dataset, Shape(height, width, 3, how), workers, progress)


def guess_channels(dataset: Dataset) -> int:
    """1 if none of a few pictures spread over the data set has a colour, else 3."""
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


def _chunks(dataset: Dataset, shape: Shape, workers: int) -> Iterator[Chunk]:
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
