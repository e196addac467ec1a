"""Count the legs of an animal from the image alone: runs of warm colour in the rows below the body.

No trained network and no drawing parameters are used, so the count applies to real and generated images alike. It
relies on one property of the dataset: animals have warm hues, scenes have cool ones. Measured accuracy:
docs/results/quadrupeds_legs.json.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

WORKING_SIDE = 64
"""Larger images are averaged down to about this side, which removes noise."""
LEAST_CONTRAST = 0.08
"""Difference in warmth (range 1) below which there is no animal."""
LEAST_WHOLE = 0.8
"""Share of warm pixels that must be connected; below it, the image is noise and has no animal."""
LEAST_BODY = 0.25
"""Minimum length of a body, and (LEAST_LEG) of its legs, in units of the image's shorter side."""
LEAST_LEG = 0.07
SHARPEN = 0.5
MOST_LEGS = 9
CHUNK = 256


def count_legs(image: NDArray[np.uint8] | NDArray[np.floating]) -> int:
    """Return the number of legs in an image (H, W, 3), uint8 or floating in [0, 1]; 0 if no animal is found."""
    return int(count_legs_batch(np.asarray(image)[None])[0])


def count_legs_batch(images: NDArray[np.uint8] | NDArray[np.floating]) -> Ints:
    """Return the number of legs in each image: (N, H, W, 3), uint8 or floating in [0, 1] -> int64 (N,).

    Raises:
        ValueError: another shape.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"count_legs needs images of shape (H, W, 3), not {images.shape[1:]}")
    chunks = [_count(_warmth(images[i : i + CHUNK])) for i in range(0, len(images), CHUNK)]
    return np.concatenate(chunks) if chunks else np.zeros(0, dtype=np.int64)


def _warmth(images: NDArray[np.uint8] | NDArray[np.floating]) -> Floats:
    """Return red minus the mean of green and blue, in [-1, 1], at the working size: (N, H, W)."""
    factor = max(1, min(images.shape[1:3]) // WORKING_SIDE)
    rows, columns = images.shape[1] // factor, images.shape[2] // factor
    x = images[:, : rows * factor, : columns * factor].astype(np.float32)
    x = x.reshape(len(x), rows, factor, columns, factor, 3).mean(axis=(2, 4))
    if images.dtype == np.uint8:
        x /= 255
    warmth = x[..., 0] - 0.5 * (x[..., 1] + x[..., 2])
    # Legs are vertical: smoothing along columns removes noise and keeps the gaps between legs.
    padded = np.pad(warmth, ((0, 0), (1, 1), (0, 0)), mode="edge")
    return np.asarray(0.25 * padded[:, :-2] + 0.5 * warmth + 0.25 * padded[:, 2:], dtype=np.float32)


def _count(warmth: Floats) -> Ints:
    """Count legs in warmth maps (N, H, W)."""
    height, width = warmth.shape[1:]
    side, rows = min(height, width), np.arange(height)
    cool, warm = _two_means(warmth)
    everything = warmth > (0.5 * (cool + warm))[:, None, None]

    # The belly is the lowest row with a run of about the body's length.
    longest = _longest_run(everything)
    body = longest.max(axis=1)
    belly = np.where(longest >= 0.6 * body[:, None], rows, -1).max(axis=1)
    animal = _connected(everything, longest.argmax(axis=1))
    whole = animal.sum(axis=(1, 2)) >= LEAST_WHOLE * everything.sum(axis=(1, 2))

    # Legs are warm runs connected downwards to the body, at a threshold per row.
    hanging = _sharpened(warmth) > _row_threshold(warmth, everything)[:, :, None]
    for y in range(1, height):
        followed = hanging[:, y] & _widened(hanging[:, y - 1])
        hanging[:, y] = np.where((y > belly)[:, None], followed, animal[:, y])
    runs = _runs(hanging)

    # Rows just below the belly, where legs still touch, and the tips of the feet have no vote.
    feet = np.where((rows > belly[:, None]) & (runs > 0), rows, 0).max(axis=1)
    length = feet - belly
    voting = (rows > (belly + 0.3 * length)[:, None]) & (rows <= (feet - 0.08 * length)[:, None])
    votes = np.stack([(voting & (runs == k)).sum(axis=1) for k in range(MOST_LEGS + 1)], axis=1)
    found = whole & (warm - cool >= LEAST_CONTRAST) & (body >= LEAST_BODY * side) & (length >= LEAST_LEG * side)
    return np.where(found & votes.any(axis=1), votes.argmax(axis=1), 0).astype(np.int64)


def _two_means(warmth: Floats) -> tuple[Floats, Floats]:
    """Return the typical warmth of scene and animal, (N,) each: k-means with two centres, from the extremes."""
    flat = warmth.reshape(len(warmth), -1)
    low, high, every = flat.min(axis=1), flat.max(axis=1), flat.sum(axis=1)
    for _ in range(6):
        upper = flat > (0.5 * (low + high))[:, None]
        count, total = upper.sum(axis=1), np.einsum("np,np->n", flat, upper)
        high = total / np.maximum(count, 1)
        low = (every - total) / np.maximum(flat.shape[1] - count, 1)
    return low.astype(np.float32), high.astype(np.float32)


def _row_threshold(warmth: Floats, warm: Bools) -> Floats:
    """Return the midpoint of the means of scene and animal per row: (N, H)."""
    count = warm.sum(axis=2)
    inside = (warmth * warm).sum(axis=2)
    outside = warmth.sum(axis=2) - inside
    middle = 0.5 * (inside / np.maximum(count, 1) + outside / np.maximum(warmth.shape[2] - count, 1))
    return np.asarray(np.where(count > 0, middle, np.inf), dtype=np.float32)


def _sharpened(warmth: Floats) -> Floats:
    """Raise contrast along rows by SHARPEN, which reopens gaps in blurred samples."""
    padded = np.pad(warmth, ((0, 0), (0, 0), (1, 1)), mode="edge")
    return np.asarray((1 + SHARPEN) * warmth - 0.5 * SHARPEN * (padded[:, :, :-2] + padded[:, :, 2:]), dtype=np.float32)


def _connected(mask: Bools, start: Ints) -> Bools:
    """Return the parts of a mask (N, H, W) connected to its row `start` (N,), found by sweeps in all directions."""
    reached = mask & (np.arange(mask.shape[1]) == start[:, None])[:, :, None]
    # Each turn of a path needs one more sweep; three rounds reach the trunk and the tail of any animal.
    for _ in range(3):
        for axis in (1, 2):
            for step in (1, -1):
                r, m = np.moveaxis(reached, axis, 0)[::step], np.moveaxis(mask, axis, 0)[::step]
                for i in range(1, len(r)):
                    r[i] |= r[i - 1] & m[i]
    return np.asarray(reached, dtype=np.bool_)


def _longest_run(mask: Bools) -> Ints:
    """Return the length of the longest run of True in each row: (N, H, W) -> (N, H)."""
    current = np.zeros(mask.shape[:2], dtype=np.int64)
    longest = np.zeros(mask.shape[:2], dtype=np.int64)
    for x in range(mask.shape[2]):
        current = (current + 1) * mask[:, :, x]
        np.maximum(longest, current, out=longest)
    return longest


def _runs(mask: Bools) -> Ints:
    """Return the number of runs of True in each row: (N, H, W) -> (N, H)."""
    starts = mask[:, :, 1:] & ~mask[:, :, :-1]
    return np.asarray(starts.sum(axis=2) + mask[:, :, 0], dtype=np.int64)


def _widened(row: Bools) -> Bools:
    """Dilate rows (N, W) by one pixel to both sides."""
    wide = row.copy()
    wide[:, 1:] |= row[:, :-1]
    wide[:, :-1] |= row[:, 1:]
    return wide
