"""The Frechet distance between two sets of features (Heusel et al. 2017, equation 6), and the moments it is made of.

    d^2 = |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2))

The number is torch-fidelity's own. Moments of small sets are taken by its function as well, to the bit; those of large
ones by sums in float64, so that memory does not grow with the number of pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sagan_cli.errors import SaganError
from sagan_cli.evaluation.rows import Rows

FEW = 2048
"""Pictures below which the distance is known to be biased too far for comparison (Binkowski et al. 2018)."""


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of N feature vectors."""

    mu: NDArray[np.float32]
    """(D,); float32, as torch-fidelity has it."""
    sigma: NDArray[np.float64]
    """(D, D), divided by N - 1."""
    count: int

    @property
    def deficient(self) -> bool:
        """Whether there are too few pictures for the covariance to have full rank."""
        return self.count <= len(self.mu)


class Sums:
    """First and second sums of feature vectors, from which moments follow: (D,) and (D, D) whatever N is."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.first = np.zeros(width)
        self.second = np.zeros((width, width))

    def add(self, rows: NDArray[np.float32]) -> None:
        """More rows, (n, D)."""
        wide = rows.astype(np.float64)
        self.count += len(rows)
        self.first += wide.sum(axis=0)
        self.second += wide.T @ wide

    def moments(self) -> Moments:
        """Mean and covariance of all rows so far.

        Raises:
            SaganError: fewer than two, or values that are not finite.
        """
        _require_two(self.count)
        mean = self.first / self.count
        sigma = (self.second - self.count * np.outer(mean, mean)) / (self.count - 1)
        return _checked(Moments(mean.astype(np.float32), sigma, self.count))


def moments_of(rows: Rows) -> Moments:
    """Mean and covariance of collected features.

    Raises:
        SaganError: fewer than two pictures, or values that are not finite.
    """
    if rows.small:
        return moments_of_array(rows.array())
    sums = Sums(rows.shape[1])
    for chunk in rows.chunks():
        sums.add(chunk)
    return sums.moments()


def moments_of_array(rows: NDArray[np.float32]) -> Moments:
    """The same for an array float32 (N, D) that fits into memory several times."""
    from torch_fidelity.metric_fid import fid_features_to_statistics

    _require_two(len(rows))
    found = fid_features_to_statistics(torch.from_numpy(np.ascontiguousarray(rows)))
    return _checked(Moments(found["mu"], np.atleast_2d(found["sigma"]), len(rows)))


def distance(fake: Moments, real: Moments) -> float:
    """The squared Frechet distance; 0 for equal moments, up to rounding.

    Raises:
        SaganError: the moments have different numbers of features, or no finite distance.
    """
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    if fake.mu.shape != real.mu.shape:
        raise SaganError(
            f"statistics of {len(real.mu):,} features cannot be compared with features of {len(fake.mu):,}: "
            "they are another extractor's"
        )
    pair = [{"mu": m.mu, "sigma": m.sigma} for m in (fake, real)]
    value = float(fid_statistics_to_metric(*pair, verbose=False)[KEY_METRIC_FID])
    if not np.isfinite(value):
        raise SaganError("the Frechet distance is not a finite number: the features are degenerate or too large")
    return value


def rank_note(side: str, moments: Moments) -> str | None:
    """A sentence where a covariance lacks full rank: the distance then rests on rounding in the missing directions."""
    if not moments.deficient:
        return None
    return (
        f"{moments.count:,} {side} pictures for {len(moments.mu):,} features: their covariance has not full rank, "
        "so the distance is biased upwards"
    )


def _require_two(count: int) -> None:
    if count < 2:
        raise SaganError(f"{count} picture(s): a covariance needs at least 2")


def _checked(moments: Moments) -> Moments:
    if not (np.isfinite(moments.mu).all() and np.isfinite(moments.sigma).all()):
        raise SaganError(
            "some features are not finite numbers: the extractor's weights are damaged, or they overflow on "
            "these pictures"
        )
    return moments
