"""95 % bootstrap intervals of every metric, made cheap: a metric is linearised, then the bootstrap of a mean does it.

The generated pictures are resampled and the reference is held fixed, so an interval says how far another draw of as
many pictures from the same generator would move the score; recall alone is the other way round (`scores.py`). It is
centred on the estimate and removes none of its bias: the Frechet distance of few pictures stays too high, however
narrow its interval is.

The influence of picture i on a score T is the derivative of T((1 - e) P + e delta_i) at e = 0, P being the pictures'
empirical distribution (Hampel 1974). T of a resample is then T + mean of the resampled influences + O(1/N) (the
infinitesimal jackknife: Efron and Tibshirani, An Introduction to the Bootstrap, chapters 20 to 22).
"""

from __future__ import annotations

import mmap

import numpy as np
import torch
from numpy.typing import NDArray

from sagan_cli.errors import SaganError

LEVEL = 0.95
RESAMPLES = 1000
CHUNK = 2048
"""Rows in float64 at a time."""
KERNEL_ROWS = 5000
"""Pictures of each side that the influence on KID is computed from, at most."""

Floats = NDArray[np.float64]
Rows = NDArray[np.float32]


def bootstrap_mean(
    influence: Floats, *, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
) -> tuple[float, float]:
    """Percentile bootstrap of a mean, as offsets (low, high) around the estimate; low <= 0 <= high in practice.

    Args:
        influence: (N,); its own mean is taken off first.
        resamples: bootstrap samples of N pictures with replacement.
        level: probability that the interval is to hold.

    Raises:
        SaganError: an influence that is not finite.
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
    """Percentile bootstrap of a share hits / count; the number of hits in a resample is binomial, so that is drawn.

    A share of 0 or 1 resamples to itself alone, as if it were certain. There the exact binomial bound (Clopper and
    Pearson 1934) is given: (0, 1 - ((1 - level) / 2)^(1 / count)), or its mirror image.
    """
    if hits in (0, count):
        reach = 1 - ((1 - level) / 2) ** (1 / count)
        return (0.0, reach) if hits == 0 else (1 - reach, 1.0)
    shares = np.random.default_rng(seed).binomial(count, hits / count, resamples) / count
    low, high = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def frechet_influence(
    rows: Rows, mu1: NDArray[np.floating], sigma1: Floats, mu2: NDArray[np.floating], sigma2: Floats
) -> Floats:
    """Influence of each generated picture on the squared Frechet distance to fixed moments (mu2, sigma2).

    With m = mu1 and A the optimal transport map from N(0, S1) to N(0, S2), the derivative of the distance by S1 is
    I - A (Bhatia, Jain and Lim 2019, On the Bures-Wasserstein distance), and that of S1 by the weight of x is
    (x - m)(x - m)^T - S1, hence

        influence(x) = 2 (m - mu2).(x - m) + (x - m)^T (I - A) (x - m) - mean of the same over all x.

    Singular covariances are no obstacle: reweighting the pictures cannot leave the space that they span, and there the
    distance is smooth. It is curved as well where pictures are few for so many features and the two sets much alike:
    there the interval is two to three times too wide, and a bootstrap of the distance itself wider still.

    Costs one symmetric eigendecomposition of size min(N, D).

    Args:
        rows: generated features (N, D), N >= 2; may be mapped from a file, and is read in chunks.
        mu1, sigma1: (D,) and (D, D), their moments, sigma divided by N - 1.
        mu2, sigma2: moments of the reference.

    Returns:
        (N,), with mean 0.
    """
    count, width = rows.shape
    mean = mu1.astype(np.float64)
    slope = 2 * (mean - mu2.astype(np.float64))
    if count <= width:
        centred = rows.astype(np.float64) - mean
        quadratic = (centred**2).sum(axis=1) - _transported_few(centred, sigma2)
        linear = centred @ slope
    else:
        half = _transport_factor(sigma1, sigma2)
        quadratic, linear = np.empty(count), np.empty(count)
        for start in range(0, count, CHUNK):
            here = np.arange(start, min(start + CHUNK, count))
            centred = take(rows, here).astype(np.float64) - mean
            quadratic[here] = (centred**2).sum(axis=1) - ((centred @ half) ** 2).sum(axis=1)
            linear[here] = centred @ slope
    influence = linear + quadratic * (count / (count - 1))  # sigma1 is divided by N - 1, a mean by N
    centred_influence: Floats = influence - influence.mean()
    return centred_influence


def _transport_factor(sigma1: Floats, sigma2: Floats) -> Floats:
    """H, (D, r), with A = H H^T = S2^1/2 (S2^1/2 S1 S2^1/2)^-1/2 S2^1/2, a pseudo-inverse where S1 or S2 is singular.

    The inner square root may be any factor S2 = L L^T, for L = S2^1/2 Q with Q orthogonal, and Q cancels; so Cholesky's
    takes the place of a second eigendecomposition.
    """
    try:
        factor = np.linalg.cholesky(sigma2)
    except np.linalg.LinAlgError:  # singular, or not quite a covariance, as statistics saved in float32 are not
        values, vectors = np.linalg.eigh(sigma2)
        factor = vectors * np.sqrt(np.maximum(values, 0))
    values, vectors = np.linalg.eigh(factor.T @ sigma1 @ factor)
    kept = _above_rounding(values)
    half: Floats = (factor @ vectors[:, kept]) * values[kept] ** -0.25
    return half


def _transported_few(centred: Floats, sigma2: Floats) -> Floats:
    """(x - m)^T A (x - m) for each of N <= D rows x - m.

    For B = rows^T / sqrt(N - 1), S1 = B B^T, and on the span of the rows A = pinv(B)^T (B^T S2 B)^1/2 pinv(B). With
    x_i - m = sqrt(N - 1) B e_i that leaves the diagonal of (N - 1) (B^T S2 B)^1/2: no inverse at all.
    """
    values, vectors = np.linalg.eigh(centred @ sigma2 @ centred.T)
    kept = _above_rounding(values)
    diagonal: Floats = (vectors[:, kept] ** 2) @ np.sqrt(values[kept])
    return diagonal * float(np.sqrt(len(centred) - 1))


def _above_rounding(values: Floats) -> NDArray[np.bool_]:
    """Which of a semidefinite matrix's eigenvalues, in rising order, are more than rounding errors."""
    kept: NDArray[np.bool_] = values > len(values) * np.finfo(np.float64).eps * max(values[-1], 0.0)
    return kept


def kid_influence(fake: Rows, real: Rows, *, most: int = KERNEL_ROWS, seed: int = 0) -> Floats:
    """Influence of generated pictures on the squared MMD under torch-fidelity's kernel k(x, y) = (x.y / D + 1)^3.

    The Hajek projection of the U-statistic: h(x_i) = 2 (mean over j != i of k(x_i, x_j) - mean over j of k(x_i, y_j)).

    Args:
        fake, real: features (N, D), N >= 2, and (M, D), M >= 1.
        most: pictures of each side that take part; a seeded choice among more.

    Returns:
        (min(N, most),), with mean 0, scaled by sqrt(most / N) where there were more: so `bootstrap_mean` gives the
        interval of N pictures.
    """
    rng = np.random.default_rng(seed)
    x, y = (_some(side, most, rng).astype(np.float64) for side in (fake, real))
    count, width = x.shape
    projection = np.empty(count)
    for start in range(0, count, CHUNK // 4):
        part = x[start : start + CHUNK // 4]
        own = (np.einsum("ij,ij->i", part, part) / width + 1) ** 3
        within = (((part @ x.T) / width + 1) ** 3).sum(axis=1) - own
        across = (((part @ y.T) / width + 1) ** 3).mean(axis=1)
        projection[start : start + len(part)] = 2 * (within / (count - 1) - across)
    centred: Floats = projection - projection.mean()
    return centred * float(np.sqrt(count / len(fake)))


def _some(rows: Rows, most: int, rng: np.random.Generator) -> Rows:
    if len(rows) <= most:
        return rows
    return take(rows, np.sort(rng.choice(len(rows), most, replace=False)))


def isc_influence(logits: Rows, places: NDArray[np.int64]) -> tuple[float, Floats]:
    """Logarithm L of the inception score of the pictures at `places`, and the influence of each of them on L.

    L = mean_i KL_i, KL_i = sum_c p_ic (log p_ic - log q_c), q = mean_i p_i. Moving weight to picture i moves L by
    KL_i - L directly, and through q by -sum_c (q_c / q_c) (p_ic - q_c) = 0, for both sum to one: L is stationary in q.
    So the influence is KL_i - L.

    Args:
        logits: (N, C); may be mapped from a file, and is read in chunks.
        places: (n,) indices of rows, n >= 1.
    """
    parts = np.array_split(places, -(-len(places) // CHUNK))

    def probabilities(part: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        wide = torch.from_numpy(take(logits, part)).double()
        return wide.softmax(dim=1), wide.log_softmax(dim=1)

    marginal = torch.zeros(logits.shape[1], dtype=torch.float64)
    for part in parts:
        marginal += probabilities(part)[0].sum(dim=0) / len(places)
    divergence = np.empty(len(places))
    start = 0
    for part in parts:
        p, log_p = probabilities(part)
        divergence[start : start + len(part)] = (p * (log_p - marginal.log())).sum(dim=1).numpy()
        start += len(part)
    level = float(divergence.mean())
    return level, divergence - level


def take(rows: Rows, places: NDArray[np.integer]) -> Rows:
    """A copy of the rows at `places`; what was read of a mapped file does not stay part of this process's memory."""
    found: Rows = np.asarray(rows)[places]
    base: object = rows.base
    # A page that is let go comes back from the file, so changes made to a writable map would be lost.
    if isinstance(base, mmap.mmap) and not rows.flags.writeable and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
    return found
