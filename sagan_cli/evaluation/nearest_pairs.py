"""The generated images that are nearest to a training image, beside it: `sagan eval-fid --nearest pairs.png`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sagan_cli.data.decode import fit
from sagan_cli.engine.sample import encode, grid
from sagan_cli.evaluation.features import ImageSet
from sagan_cli.evaluation.metrics.bootstrap import FeatureArray
from sagan_cli.evaluation.metrics.memorization import nearest
from sagan_cli.files import write_atomic

LAYER = "prc"
"""Extractor layer whose distances are used, that of the metric of this name."""
COUNT = 16
COLUMNS = 4
SMALLEST = 16
"""Smallest height and width of an image in the picture, in pixels."""


@dataclass(frozen=True)
class Pair:
    """A generated image and the training image nearest to it, by index."""

    generated: int
    training: int
    distance: float


def find_pairs(generated: FeatureArray, training: FeatureArray, count: int = COUNT) -> list[Pair]:
    """Return the `count` generated images that are nearest to a training image, nearest first.

    Args:
        generated, training: features (N, D) and (T, D).
    """
    distances, indices = nearest(generated, training)
    first = np.argsort(distances, kind="stable")[:count]
    return [Pair(int(i), int(indices[i]), float(distances[i])) for i in first]


def write_pairs(path: Path, pairs: list[Pair], generated: ImageSet, training: ImageSet) -> None:
    """Write a PNG of all pairs, `COLUMNS` in a row, the training image on the left.

    Raises:
        SaganError: the file cannot be written.
    """
    left = _images(training, [pair.training for pair in pairs])
    right = _images(generated, [pair.generated for pair in pairs])
    height, width = (max(SMALLEST, side) for side in left[0].shape[:2])
    fitted = [fit(image, height, width, 3, "pad") for pair in zip(left, right, strict=True) for image in pair]
    couples = [grid(np.stack(fitted[i : i + 2]), columns=2) for i in range(0, len(fitted), 2)]
    write_atomic(path, encode(grid(np.stack(couples), columns=COLUMNS), "png"))


def _images(images: ImageSet, order: list[int]) -> list[NDArray[np.uint8]]:
    # Read one at a time, because the images of a folder may differ in size.
    return [batch[0] for batch in images.batches(1, np.array(order))]
