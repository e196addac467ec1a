"""The two sides of a score: pictures that a generator draws on demand, and pictures that lie in a pack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sagan_cli.contracts import ModelSpec
from sagan_cli.data.packing.pack import Pack
from sagan_cli.engine.runtime import Runtime
from sagan_cli.engine.sample import Request, latents, pictures
from sagan_cli.errors import UsageError
from sagan_cli.ops.randomness import generator

Places = NDArray[np.int64]


class Side(Protocol):
    """Numbered pictures that can be had in any order, a batch at a time."""

    def __len__(self) -> int: ...

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """(N,), or None where the pictures have no classes."""
        ...

    def batches(self, size: int, order: Places | None = None) -> Iterator[NDArray[np.uint8]]:
        """uint8 (n, H, W, C) in `order`, n = size while the pictures are all of one shape, else fewer."""
        ...


@dataclass(frozen=True)
class Packed:
    """The pictures of a pack."""

    pack: Pack

    def __len__(self) -> int:
        return len(self.pack.images)

    @property
    def labels(self) -> NDArray[np.int64] | None:
        return self.pack.labels if self.pack.class_names else None

    def batches(self, size: int, order: Places | None = None) -> Iterator[NDArray[np.uint8]]:
        order = np.arange(len(self)) if order is None else order
        for start in range(0, len(order), size):
            yield self.pack.images[order[start : start + size]]


@dataclass(frozen=True)
class Drawn:
    """Pictures of a generator: picture i has seed `first + i`, as in `sagan sample --seed first`."""

    network: nn.Module
    spec: ModelSpec
    requests: Sequence[Request]
    runtime: Runtime
    truncation: float | None = None
    batch_statistics: bool = False

    def __len__(self) -> int:
        return len(self.requests)

    @property
    def labels(self) -> NDArray[np.int64] | None:
        if not self.spec.num_classes:
            return None
        _, y = latents(self.requests, self.spec, None)
        return None if y is None else y.numpy()

    def batches(self, size: int, order: Places | None = None) -> Iterator[NDArray[np.uint8]]:
        chosen = self.requests if order is None else [self.requests[i] for i in order.tolist()]
        with normalising_by_batch(self.network, self.batch_statistics):
            for drawn, _ in pictures(
                self.network, self.spec, chosen, self.runtime,
                truncation=self.truncation, batch=size, whole=self.batch_statistics,
            ):  # fmt: skip
                yield drawn


@dataclass(frozen=True)
class First:
    """The first `count` pictures of a side."""

    side: Side
    count: int

    def __post_init__(self) -> None:
        if self.count > len(self.side):
            raise UsageError(f"-n {self.count}: there are only {len(self.side):,} pictures")

    def __len__(self) -> int:
        return self.count

    @property
    def labels(self) -> NDArray[np.int64] | None:
        labels = self.side.labels
        return None if labels is None else labels[: self.count]

    def batches(self, size: int, order: Places | None = None) -> Iterator[NDArray[np.uint8]]:
        return self.side.batches(size, np.arange(self.count) if order is None else order)


class normalising_by_batch:
    """Batch norms that use the statistics of the batch at hand, and leave the stored ones alone."""

    def __init__(self, network: nn.Module, on: bool) -> None:
        self._norms = [m for m in network.modules() if isinstance(getattr(m, "running_mean", None), torch.Tensor)]
        self._norms = self._norms if on else []
        self._before: list[tuple[bool, float]] = []

    def __enter__(self) -> None:
        self._before = [(m.training, m.momentum) for m in self._norms]  # type: ignore[misc]
        for norm in self._norms:
            norm.training, norm.momentum = True, 0.0  # type: ignore[assignment]

    def __exit__(self, *_: object) -> None:
        for norm, (training, momentum) in zip(self._norms, self._before, strict=True):
            norm.training, norm.momentum = training, momentum  # type: ignore[assignment]


def requests_for(count: int, first: int, labels: NDArray[np.int64] | None, classes: int) -> list[Request]:
    """Seeds first, first + 1, ...; with `labels` of real pictures, classes drawn with their frequencies."""
    seeds = range(first, first + count)
    if labels is None or not classes:
        return [Request(seed) for seed in seeds]
    share = np.cumsum(np.bincount(labels, minlength=classes)) / len(labels)
    chance = [torch.rand((), generator=generator(seed, "label"), dtype=torch.float64).item() for seed in seeds]
    chosen = np.minimum(np.searchsorted(share, chance, side="right"), classes - 1)
    return [Request(seed, int(label)) for seed, label in zip(seeds, chosen, strict=True)]


def some_of(count: int, limit: int | None) -> Places:
    """Places of `limit` of `count` pictures, chosen once and for all, in order; all of them without a limit."""
    if limit is None or limit >= count:
        return np.arange(count)
    chosen = torch.randperm(count, generator=generator(0, "evaluation"))[:limit]
    return np.sort(chosen.numpy())
