"""From pictures to features: one pass over a side, spread over the processes, gathered in the order of the pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sagan_cli.engine.runtime import Runtime
from sagan_cli.evaluation.extractors.extractor import Extractor, three_channels
from sagan_cli.evaluation.metrics.frechet import Moments, Sums, moments_of
from sagan_cli.evaluation.rows import Rows
from sagan_cli.evaluation.sides import Places, Side

Probe = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Something measured on the pictures themselves: uint8 (n, H, W, C) -> float32 (n, D)."""


@dataclass(frozen=True)
class Pass:
    """What one pass over a side is to find."""

    layers: tuple[str, ...]
    """Layers of the extractor."""
    keep_rows: bool
    """Whether large sets keep their features, on disk; small ones always do."""
    batch: int
    probes: dict[str, Probe]
    """More columns, by name, as if they were layers."""


@dataclass
class Found:
    """The features of one layer: rows where they were kept, sums otherwise."""

    rows: Rows | None
    sums: Sums | None

    def moments(self) -> Moments:
        """Mean and covariance.

        Raises:
            SaganError: fewer than two pictures, or values that are not finite.
        """
        if self.rows is not None:
            return moments_of(self.rows)
        assert self.sums is not None
        return self.sums.moments()


def collect(
    side: Side,
    places: Places,
    extractor: Extractor | None,
    wanted: Pass,
    runtime: Runtime,
    *,
    open_files: ExitStack,
    folder: Path,
    tick: Callable[[int], None],
) -> dict[str, Found]:
    """Features of the pictures at `places`, by layer; complete on the leading process.

    Batches are dealt to the processes in turn and gathered after each round, so that a batch holds the same pictures
    however many processes there are, and no process ever holds more than a round.

    Args:
        open_files: closes what large sets keep on disk.
        folder: where that is.
        tick: told how many pictures are done, all processes together.
    """
    parts = [places[i : i + wanted.batch] for i in range(0, len(places), wanted.batch)]
    mine = parts[runtime.rank :: runtime.world]
    stream = side.batches(wanted.batch, np.concatenate(mine) if mine else places[:0])
    found: dict[str, Found] = {}
    rounds = -(-len(parts) // runtime.world)
    for number in range(rounds):
        batch = next_batch(stream, len(mine[number])) if number < len(mine) else None
        features = _features(batch, side, extractor, wanted)
        for name, values in features.items():
            padded = values.new_zeros(wanted.batch, values.shape[1])
            padded[: len(values)] = values
            gathered = runtime.gather(padded)
            if not runtime.leads:
                continue
            if name not in found:
                found[name] = _empty(len(places), values.shape[1], wanted.keep_rows, folder, open_files)
            for rank, rows in enumerate(gathered):
                index = number * runtime.world + rank
                if index < len(parts):
                    _add(found[name], index * wanted.batch, rows[: len(parts[index])].numpy())
        tick(min(len(places), (number + 1) * runtime.world * wanted.batch))
    return found


def next_batch(stream: Iterator[NDArray[np.uint8]], count: int) -> list[NDArray[np.uint8]]:
    """The next `count` pictures, in as many arrays as there are changes of size."""
    taken: list[NDArray[np.uint8]] = []
    while sum(map(len, taken)) < count:
        taken.append(next(stream))
    return taken


def _features(
    batch: list[NDArray[np.uint8]] | None, side: Side, extractor: Extractor | None, wanted: Pass
) -> dict[str, torch.Tensor]:
    if batch is None:
        # A process without a picture in the last round still takes part in the gathering.
        first = next(side.batches(1, np.zeros(1, dtype=np.int64)))
        return {name: value[:0] for name, value in _features([first], side, extractor, wanted).items()}
    found: dict[str, list[torch.Tensor]] = {}
    for pictures in batch:
        values = extractor(three_channels(pictures), wanted.layers) if extractor and wanted.layers else {}
        values |= {name: torch.from_numpy(probe(pictures)) for name, probe in wanted.probes.items()}
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return {name: torch.cat(values) if len(values) > 1 else values[0] for name, values in found.items()}


def _empty(count: int, width: int, keep: bool, folder: Path, open_files: ExitStack) -> Found:
    rows = Rows(count, width, folder) if keep or Rows.fits(count, width) else None
    if rows is not None:
        open_files.enter_context(rows)
    return Found(rows, Sums(width) if rows is None else None)


def _add(found: Found, start: int, rows: NDArray[np.float32]) -> None:
    if found.rows is not None:
        found.rows.put(start, rows)
    elif found.sums is not None:
        found.sums.add(rows)
