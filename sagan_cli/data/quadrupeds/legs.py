"""Counts the legs of an animal from the picture alone: runs of warm colour along the rows under the body.

There is no trained network here and no knowledge of how a picture was drawn, so the same count is a measure of
structure for real and generated pictures alike. It relies on one property of this data set: animals are warm in hue,
scenes are cool.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

WORKING_SIDE = 64
"""Larger pictures are averaged down to about this side: it removes a sample's noise and costs no leg."""
LEAST_CONTRAST = 0.08
"""Difference in warmth, of 1, below which there is no animal."""
CHUNK = 512


def count_legs(image: NDArray[np.uint8] | NDArray[np.floating]) -> int:
    """The number of legs in one picture, uint8 or floating in [0, 1], shape (H, W, 3); 0 where no animal is found."""
    return int(count_legs_batch(np.asarray(image)[None])[0])


def count_legs_batch(images: NDArray[np.uint8] | NDArray[np.floating]) -> Ints:
    """The number of legs in each of N pictures: images (N, H, W, 3), uint8 or floating in [0, 1] -> int64 (N,).

    Raises:
        ValueError: another shape.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"count_legs needs pictures of shape (H, W, 3), not {images.shape[1:]}")
    chunks = [_count(_warmth(images[i : i + CHUNK])) for i in range(0, len(images), CHUNK)]
    return np.concatenate(chunks) if chunks else np.zeros(0, dtype=np.int64)


def _warmth(images: NDArray[np.uint8] | NDArray[np.floating]) -> Floats:
    """Red above the mean of green and blue, in [-1, 1]: (N, H, W), at the working size."""
    x = images.astype(np.float32)
    if images.dtype == np.uint8:
        x /= 255
    factor = max(1, min(images.shape[1:3]) // WORKING_SIDE)
    if factor > 1:
        n, h, w = len(x), x.shape[1] // factor, x.shape[2] // factor
        x = x[:, : h * factor, : w * factor].reshape(n, h, factor, w, factor, 3).mean(axis=(2, 4))
    return np.asarray(x[..., 0] - 0.5 * (x[..., 1] + x[..., 2]), dtype=np.float32)


def _count(warmth: Floats) -> Ints:
    n, height, width = warmth.shape
    cool, warm = _two_means(warmth)
    mask = warmth > (0.5 * (cool + warm))[:, None, None]

    # The belly is the lowest row that is still crossed by a run of about the body's length.
    longest = _longest_run(mask)
    body = longest.max(axis=1)
    rows = np.arange(height)
    belly = np.where(longest >= 0.6 * body[:, None], rows, -1).max(axis=1)

    # Below it, keep what hangs together with the body, each row by its own mean between ground and leg.
    level = _row_level(warmth, cool, mask)
    hanging = warmth > level[:, :, None]
    for y in range(1, height):
        attached = hanging[:, y] & _spread(hanging[:, y - 1])
        hanging[:, y] = np.where((y > belly)[:, None], attached, mask[:, y])
    runs = _runs(hanging)

    # Feet end where the last row of legs does; the rows just under the belly, where legs still merge, have no vote.
    below = rows[None] > belly[:, None]
    feet = np.where(below & (runs > 0), rows, 0).max(axis=1)
    length = feet - belly
    voting = (rows[None] > (belly + 0.3 * length)[:, None]) & (rows[None] <= (feet - 0.08 * length)[:, None])
    votes = np.stack([(voting & (runs == k)).sum(axis=1) for k in range(10)], axis=1)
    found = (warm - cool >= LEAST_CONTRAST) & (body >= 0.25 * min(height, width)) & (length >= 0.06 * min(height, width))
    return np.where(found & (votes.sum(axis=1) > 0), votes.argmax(axis=1), 0).astype(np.int64)


def _two_means(warmth: Floats) -> tuple[Floats, Floats]:
    """The typical warmth of scene and animal, (N,) each: k-means with two centres, from the extremes inwards."""
    flat = warmth.reshape(len(warmth), -1)
    low, high = flat.min(axis=1), flat.max(axis=1)
    for _ in range(6):
        upper = flat > (0.5 * (low + high))[:, None]
        count = upper.sum(axis=1)
        total = (flat * upper).sum(axis=1)
        high = total / np.maximum(count, 1)
        low = (flat.sum(axis=1) - total) / np.maximum(flat.shape[1] - count, 1)
    return low.astype(np.float32), high.astype(np.float32)


def _row_level(warmth: Floats, cool: Floats, mask: Bools) -> Floats:
    """The warmth half-way between scene and leg in every row: (N, H)."""
    inside = (warmth * mask).sum(axis=2) / np.maximum(mask.sum(axis=2), 1)
    return np.asarray(0.5 * (cool[:, None] + inside), dtype=np.float32)


def _longest_run(mask: Bools) -> Ints:
    """Length of the longest run of True in each row: (N, H, W) -> (N, H)."""
    current = np.zeros(mask.shape[:2], dtype=np.int64)
    longest = np.zeros(mask.shape[:2], dtype=np.int64)
    for x in range(mask.shape[2]):
        current = (current + 1) * mask[:, :, x]
        longest = np.maximum(longest, current)
    return longest


def _runs(mask: Bools) -> Ints:
    """Number of runs of True in each row: (N, H, W) -> (N, H)."""
    starts = mask[:, :, 1:] & ~mask[:, :, :-1]
    return np.asarray(starts.sum(axis=2) + mask[:, :, 0], dtype=np.int64)


def _spread(row: Bools) -> Bools:
    """A row (N, W) widened by one pixel to both sides."""
    wide = row.copy()
    wide[:, 1:] |= row[:, :-1]
    wide[:, :-1] |= row[:, 1:]
    return wide
