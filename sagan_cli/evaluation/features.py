"""Features of a set of images, computed in one pass: the rows, and their mean and covariance."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from sagan_cli.engine.runtime import Runtime
from sagan_cli.errors import SaganError
from sagan_cli.evaluation.extractors.extractor import Extractor, as_rgb, three_channels

Indices: TypeAlias = NDArray[np.int64]
Measure: TypeAlias = Callable[[NDArray[np.uint8]], NDArray[Any]]
"""uint8 (n, H, W, 3) images -> (n, D) or (n,); see `contracts.Metric.measure`."""

IN_MEMORY = 128 << 20
"""Bytes up to which features stay in memory: 16,384 images of 2,048 features."""
CHUNK = 4096


class ImageSet(Protocol):
    """Numbered images that can be read in any order, a batch at a time."""

    def __len__(self) -> int: ...

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """(N,), or None where the images have no classes."""
        ...

    def batches(self, size: int, order: Indices | None = None) -> Iterator[NDArray[np.uint8]]:
        """uint8 (n, H, W, C) in `order`; n is `size`, or less where the size of the images changes."""
        ...


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of N feature vectors."""

    mean: NDArray[np.float32]
    """(D,); float32, as torch-fidelity has it."""
    covariance: NDArray[np.float64]
    """(D, D), divided by N - 1."""
    count: int
    """N; 0 if unknown."""


class FeatureSums:
    """First and second sums of feature vectors, (D,) and (D, D), from which moments follow."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.first = np.zeros(width)
        self.second = np.zeros((width, width))

    def add(self, rows: NDArray[np.float32]) -> None:
        """Add rows (n, D)."""
        wide = rows.astype(np.float64)
        self.count += len(rows)
        self.first += wide.sum(axis=0)
        self.second += wide.T @ wide

    def moments(self) -> Moments:
        """Return mean and covariance of all rows so far.

        Raises:
            SaganError: fewer than two rows, or values that are not finite.
        """
        _require_two(self.count)
        mean = self.first / self.count
        covariance = (self.second - self.count * np.outer(mean, mean)) / (self.count - 1)
        return _require_finite(Moments(mean.astype(np.float32), covariance, self.count))


class FeatureRows:
    """float32 (N, D), written in any order and read in order; large sets are in a temporary file.

    A context manager: the temporary file has no name and is deleted on exit.
    """

    def __init__(self, count: int, width: int, folder: Path | None = None) -> None:
        """Allocate the rows; `folder` is the directory of the temporary file of a large set."""
        self.shape = (count, width)
        self._memory: NDArray[np.float32] | None = None
        self._file: IO[bytes] | None = None
        if self.small:
            self._memory = np.empty(self.shape, dtype=np.float32)
        else:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
            self._file.truncate(4 * count * width)

    @property
    def small(self) -> bool:
        """Whether these features are in memory, so that library functions can use them directly."""
        return fits_in_memory(*self.shape)

    def put(self, start: int, rows: NDArray[np.float32]) -> None:
        """Write rows start, start + 1, ..."""
        if self._memory is not None:
            self._memory[start : start + len(rows)] = rows
            return
        assert self._file is not None
        # Written, not mapped: a mapping would count as memory of this process.
        self._file.seek(4 * start * self.shape[1])
        self._file.write(np.ascontiguousarray(rows, dtype=np.float32).data)

    def array(self) -> NDArray[np.float32]:
        """Return all rows: the array itself, or a read-only map of the file."""
        if self._memory is not None:
            return self._memory
        assert self._file is not None
        self._file.flush()
        return np.memmap(self._file, dtype=np.float32, mode="r", shape=self.shape)

    def chunks(self) -> Iterator[NDArray[np.float32]]:
        """Yield the rows in order, a few thousand at a time."""
        for start in range(0, self.shape[0], CHUNK):
            count = min(CHUNK, self.shape[0] - start)
            if self._memory is not None:
                yield self._memory[start : start + count]
                continue
            assert self._file is not None
            self._file.seek(4 * start * self.shape[1])
            data = self._file.read(4 * count * self.shape[1])
            yield np.frombuffer(data, dtype=np.float32).reshape(count, self.shape[1])

    def __enter__(self) -> FeatureRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


@dataclass
class CollectedFeatures:
    """The features of a pass at one layer: rows if they were kept, sums otherwise."""

    rows: FeatureRows | None
    sums: FeatureSums | None

    def add(self, start: int, rows: NDArray[np.float32]) -> None:
        """Add the features of images start, start + 1, ..."""
        if self.rows is not None:
            self.rows.put(start, rows)
        elif self.sums is not None:
            self.sums.add(rows)

    def moments(self) -> Moments:
        """Return mean and covariance.

        Raises:
            SaganError: fewer than two images, or values that are not finite.
        """
        if self.rows is not None:
            return moments_of(self.rows)
        assert self.sums is not None
        return self.sums.moments()

    def array(self) -> NDArray[np.float32] | None:
        """Return the rows, or None if only sums were kept."""
        return None if self.rows is None else self.rows.array()


@dataclass
class ImageFeatures:
    """The features that a metric is computed from; implements `contracts.Features`."""

    array: NDArray[np.float32] | None
    read_labels: Callable[[], NDArray[np.int64] | None]
    compute_moments: Callable[[], Moments]

    @cached_property
    def labels(self) -> NDArray[np.int64] | None:
        return self.read_labels()

    @property
    def rows(self) -> NDArray[np.float32]:
        if self.array is None:
            raise ValueError("only mean and covariance of the real images are available: set Metric.real to 'rows'")
        return self.array

    @cached_property
    def moments(self) -> Moments:
        """Mean and covariance, computed when they are first used."""
        return self.compute_moments()

    @property
    def mean(self) -> NDArray[np.float32]:
        return self.moments.mean

    @property
    def covariance(self) -> NDArray[np.float64]:
        return self.moments.covariance

    @property
    def count(self) -> int:
        return self.moments.count if self.array is None else len(self.array)


def collect_features(
    images: ImageSet,
    indices: Indices,
    extractor: Extractor | None,
    layers: tuple[str, ...],
    runtime: Runtime,
    *,
    measures: Mapping[str, Measure],
    keep_rows: bool,
    batch: int,
    open_files: ExitStack,
    folder: Path,
    tick: Callable[[int], None],
) -> dict[str, CollectedFeatures]:
    """Compute the features of the images at `indices`, by layer; complete on the leading process only.

    Batches are assigned to the processes in turn and gathered after each round, so that a batch has the same images for
    any number of processes, and a process stores at most one round.

    Args:
        measures: functions of the images, collected by name like layers.
        keep_rows: whether the features of large sets are kept, on disk; those of small sets always are.
        open_files: closes the temporary files of large sets.
        folder: directory of these files.
        tick: called with the number of finished images over all processes.
    """
    parts = [indices[i : i + batch] for i in range(0, len(indices), batch)]
    mine = parts[runtime.rank :: runtime.world]
    stream = images.batches(batch, np.concatenate(mine) if mine else indices[:0])
    found: dict[str, CollectedFeatures] = {}
    for number in range(-(-len(parts) // runtime.world)):
        if number < len(mine):
            features = _features(next_batch(stream, len(mine[number])), extractor, layers, measures)
        else:  # a process without images in the last round must still take part in the gathering
            one = [next(images.batches(1, np.zeros(1, dtype=np.int64)))]
            features = {name: value[:0] for name, value in _features(one, extractor, layers, measures).items()}
        for name, values in features.items():
            padded = values.new_zeros(batch, values.shape[1])
            padded[: len(values)] = values
            gathered = runtime.gather(padded)
            if not runtime.leads:
                continue
            if name not in found:
                found[name] = _collector(len(indices), values.shape[1], keep_rows, folder, open_files)
            for rank, rows in enumerate(gathered):
                index = number * runtime.world + rank
                if index < len(parts):
                    found[name].add(index * batch, rows[: len(parts[index])].numpy())
        tick(min(len(indices), (number + 1) * runtime.world * batch))
    return found


def next_batch(stream: Iterator[NDArray[np.uint8]], count: int) -> list[NDArray[np.uint8]]:
    """Return the next `count` images, in one array for each run of equal sizes or batch."""
    taken: list[NDArray[np.uint8]] = []
    while sum(map(len, taken)) < count:
        taken.append(next(stream))
    return taken


def fits_in_memory(count: int, width: int) -> bool:
    """Return whether features (count, width) are kept in memory."""
    return 4 * count * width <= IN_MEMORY


def moments_of(rows: FeatureRows) -> Moments:
    """Return mean and covariance; large sets are summed in float64 chunks, so that memory does not grow with N.

    Raises:
        SaganError: fewer than two images, or values that are not finite.
    """
    if rows.small:
        return moments_of_array(rows.array())
    sums = FeatureSums(rows.shape[1])
    for chunk in rows.chunks():
        sums.add(chunk)
    return sums.moments()


def moments_of_array(rows: NDArray[np.float32]) -> Moments:
    """Return mean and covariance of float32 (N, D) by torch-fidelity's function; needs a few times its memory.

    Raises:
        SaganError: fewer than two images, or values that are not finite.
    """
    from torch_fidelity.metric_fid import fid_features_to_statistics

    _require_two(len(rows))
    found = fid_features_to_statistics(torch.from_numpy(np.ascontiguousarray(rows)))
    return _require_finite(Moments(found["mu"], np.atleast_2d(found["sigma"]), len(rows)))


def as_tensor(rows: NDArray[np.float32]) -> torch.Tensor:
    """Return a tensor that shares the memory of `rows`; do not write to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(rows)


def _features(
    batch: list[NDArray[np.uint8]],
    extractor: Extractor | None,
    layers: tuple[str, ...],
    measures: Mapping[str, Measure],
) -> dict[str, torch.Tensor]:
    found: dict[str, list[torch.Tensor]] = {}
    for images in batch:
        values = extractor(three_channels(images), layers) if extractor and layers else {}
        for name, measure in measures.items():
            measured = np.asarray(measure(as_rgb(images)), dtype=np.float32).reshape(len(images), -1)
            values[name] = torch.from_numpy(measured)
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return {name: torch.cat(values) if len(values) > 1 else values[0] for name, values in found.items()}


def _collector(count: int, width: int, keep: bool, folder: Path, open_files: ExitStack) -> CollectedFeatures:
    if not keep and not fits_in_memory(count, width):
        return CollectedFeatures(None, FeatureSums(width))
    return CollectedFeatures(open_files.enter_context(FeatureRows(count, width, folder)), None)


def _require_two(count: int) -> None:
    if count < 2:
        raise SaganError(f"{count} image(s): a covariance needs at least 2")


def _require_finite(moments: Moments) -> Moments:
    if not (np.isfinite(moments.mean).all() and np.isfinite(moments.covariance).all()):
        raise SaganError(
            "some features are not finite numbers: the extractor's weights are damaged, or overflow on these images"
        )
    return moments
