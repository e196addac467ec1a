"""Count the animals in a wide image from the image alone: runs of columns with warm colour.

As in `leg_counter`, no trained network is used; animals have warm hues, scenes have cool ones. Measured accuracy:
docs/results/quadrupeds_animals.json.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

WORKING_HEIGHT = 16
"""Larger images are averaged down to about this height, so that the thresholds apply at every size."""
WARM = 0.06
"""Red minus the mean of green and blue (range 1) above which a pixel belongs to an animal."""
LEAST_COLUMN = 1 / 16
"""Share of warm pixels from which a column belongs to a run."""
LEAST_ANIMAL = 0.05
"""Warm area of a run, relative to a square of the image's height, from which it is an animal."""
LONGEST = 1.4
"""Length of a run, in image heights, up to which it is one animal; longer runs are animals that touch."""
CHUNK = 256


def count_animals(images: NDArray[np.uint8] | NDArray[np.floating]) -> Ints:
    """Return the number of animals in each image: (N, H, W, 3), uint8 or floating in [0, 1] -> int64 (N,).

    Raises:
        ValueError: another shape.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"count_animals needs images of shape (H, W, 3), not {images.shape[1:]}")
    found = [_count(_warm(images[i : i + CHUNK])) for i in range(0, len(images), CHUNK)]
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)


def horizontal_positions(images: NDArray[np.uint8] | NDArray[np.floating]) -> Floats:
    """Return the mean x of warm pixels, in image heights from the left edge: (N, H, W, 3) -> float32 (N,).

    NaN without warm pixels. For images with one animal, the standard deviation measures how its position varies.
    """
    mass = _warm(np.asarray(images)).sum(axis=1).astype(np.float32)
    middle = mass @ (np.arange(mass.shape[1], dtype=np.float32) + 0.5)
    whole = mass.sum(axis=1)
    return np.asarray(np.where(whole > 0, middle / np.maximum(whole, 1), np.nan) / WORKING_HEIGHT, dtype=np.float32)


def _warm(images: NDArray[np.uint8] | NDArray[np.floating]) -> Bools:
    """Return which pixels belong to an animal, at the working size: (N, H, W)."""
    factor = max(1, images.shape[1] // WORKING_HEIGHT)
    rows, columns = images.shape[1] // factor, images.shape[2] // factor
    x = images[:, : rows * factor, : columns * factor].astype(np.float32)
    x = x.reshape(len(x), rows, factor, columns, factor, 3).mean(axis=(2, 4))
    if images.dtype == np.uint8:
        x /= 255
    return np.asarray(x[..., 0] - 0.5 * (x[..., 1] + x[..., 2]) > WARM)


def _count(warm: Bools) -> Ints:
    """Count animals in maps of warm pixels (N, H, W)."""
    height, width = warm.shape[1:]
    mass = warm.sum(axis=1)
    run = mass >= max(LEAST_COLUMN * height, 1)
    # Columns are labelled with the number of their run; sums by label are lengths and areas.
    begun = run & ~np.pad(run[:, :-1], ((0, 0), (1, 0)))
    number = np.where(run, begun.cumsum(axis=1), 0)
    slots = (width + 1) // 2 + 1
    flat = (number + slots * np.arange(len(warm))[:, None]).ravel()
    length = np.bincount(flat, minlength=slots * len(warm)).reshape(-1, slots)[:, 1:]
    area = np.bincount(flat, weights=mass.ravel(), minlength=slots * len(warm)).reshape(-1, slots)[:, 1:]
    animals = np.where(area >= LEAST_ANIMAL * height * height, np.ceil(length / (LONGEST * height)), 0)
    return np.asarray(animals.sum(axis=1), dtype=np.int64)
