"""Paired differences over seeds, Student's t interval and Wilson's interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

LEVEL = 0.95


@dataclass(frozen=True)
class Comparison:
    """Difference between two variants over their common seeds."""

    difference: float
    """Mean over the seeds of value minus baseline value."""
    interval: tuple[float, float] | None
    """95 % interval by Student's t on the paired differences; None for a single seed."""
    seeds: int

    @property
    def sign(self) -> int:
        """1 or -1 if the whole interval is above or below 0; otherwise 0."""
        if self.interval is None:
            return 0
        low, high = self.interval
        return 1 if low > 0 else -1 if high < 0 else 0


def compare(values: Mapping[int, float], baseline: Mapping[int, float], level: float = LEVEL) -> Comparison | None:
    """Compare by seed; None without a common seed.

    Args:
        values, baseline: seed -> value of its run.
    """
    differences = [values[seed] - baseline[seed] for seed in sorted(values) if seed in baseline]
    if not differences:
        return None
    return Comparison(fmean(differences), t_interval(differences, level), len(differences))


def t_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float] | None:
    """Return Student's interval of the mean of n values, n - 1 degrees of freedom; None for fewer than two."""
    if len(values) < 2:
        return None
    mean = fmean(values)
    reach = t_quantile(level, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return mean - reach, mean + reach


def t_quantile(level: float, freedom: int) -> float:
    """Return t with P(|T| <= t) = level for Student's T with `freedom` degrees of freedom."""
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, freedom))


def wilson(hits: int, count: int, level: float = LEVEL) -> tuple[float, float]:
    """Return Wilson's score interval of the share hits / count (Wilson 1927, JASA 22, 209-212); count >= 1."""
    from scipy.stats import binomtest

    interval = binomtest(hits, count).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)
