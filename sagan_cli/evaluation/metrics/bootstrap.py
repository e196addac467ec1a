"""95 % bootstrap intervals: a metric is linearised once, so that resampling costs no more than that of a mean.

The generated images are resampled with the real images fixed, so that an interval shows how much another sample of the
same size from the same generator would change the score. Only recall resamples the real images. The interval is centred
on the estimate and does not remove its bias: the Frechet distance of few images stays too high.

The influence of image i on a score T is the derivative of T((1 - e) P + e delta_i) at e = 0, where P is the empirical
distribution of the images (Hampel 1974). T of a resample is then T + mean of the resampled influences + O(1/N) (the
infinitesimal jackknife: Efron and Tibshirani, An Introduction to the Bootstrap, chapters 20 to 22).
"""

from __future__ import annotations

import math
import mmap
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sagan_cli.errors import SaganError

LEVEL = 0.95
RESAMPLES = 1000
CHUNK = 2048
"""Rows converted to float64 at a time."""

Floats: TypeAlias = NDArray[np.float64]
FeatureArray: TypeAlias = NDArray[np.float32]
"""float32 (N, D), one row per image, in memory or mapped from a file."""


def bootstrap_mean(
    influence: Floats, *, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean, as offsets (low, high) from the estimate.

    Args:
        influence: (N,); its own mean is subtracted first.
        resamples: number of samples of N images with replacement.
        level: coverage probability.

    Raises:
        SaganError: an influence is not finite.
    """
    count = len(influence)
    if not np.isfinite(influence).all():
        raise SaganError("no interval can be computed: the features are degenerate or too large")
    centred = influence - influence.mean()
    rng = np.random.default_rng(seed)
    at_once = max(1, (1 << 20) // count)
    means = np.empty(resamples)
    for start in range(0, resamples, at_once):
        some = min(at_once, resamples - start)
        means[start : start + some] = centred[rng.integers(0, count, (some, count), dtype=np.int32)].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def share_interval(
    hits: int, count: int, *, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a share hits / count; the hits of a resample are binomial.

    Every resample of a share of 0 or 1 is the same, so there the exact binomial bound is returned (Clopper and Pearson
    1934): (0, 1 - ((1 - level) / 2)^(1 / count)), or its mirror image.
    """
    if hits in (0, count):
        reach = 1 - ((1 - level) / 2) ** (1 / count)
        return (0.0, reach) if hits == 0 else (1 - reach, 1.0)
    shares = np.random.default_rng(seed).binomial(count, hits / count, resamples) / count
    low, high = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def take_rows(rows: FeatureArray, indices: NDArray[np.integer]) -> FeatureArray:
    """Return a copy of the rows at `indices`, and release the pages of a mapped file."""
    found: FeatureArray = np.asarray(rows)[indices]
    base: object = rows.base
    # Releasing pages of a writable map would lose changes.
    if isinstance(base, mmap.mmap) and not rows.flags.writeable and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
    return found


def require_images(fake: FeatureArray, real: FeatureArray, least: int, what: str) -> None:
    """Raise SaganError if a set has fewer than `least` images, or the two have different numbers of features."""
    for name, side in (("generated", fake), ("real", real)):
        if len(side) < least:
            raise SaganError(f"{len(side)} {name} image(s): {what} needs at least {least}")
    if fake.shape[1] != real.shape[1]:
        raise SaganError(
            f"{what}: generated images have {fake.shape[1]:,} features and real ones {real.shape[1]:,}: "
            "they come from different extractors"
        )


def finite(value: float, what: str) -> float:
    """Return the value as a float; raise SaganError if it is not finite."""
    if not math.isfinite(value):
        raise SaganError(f"{what} is not a finite number: the features are degenerate or too large")
    return float(value)
