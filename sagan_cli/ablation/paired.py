"""Whether two sets of runs differ by more than their seeds do: paired differences, Student's t, Wilson's interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

LEVEL = 0.95


@dataclass(frozen=True)
class Comparison:
    """The difference between two variants over the seeds that both have."""

    difference: float
    """Mean over the seeds of value minus baseline value."""
    interval: tuple[float, float] | None
    """95 % by Student's t on the paired differences; None for a single seed, whose noise nobody knows."""
    seeds: int

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval lies above or below 0; 0 where it does not, or there is none."""
        if self.interval is None:
            return 0
        low, high = self.interval
        return 1 if low > 0 else -1 if high < 0 else 0


def compare(values: Mapping[int, float], baseline: Mapping[int, float], level: float = LEVEL) -> Comparison | None:
    """Compare by seed; None where no seed has both.

    Args:
        values, baseline: seed -> value of its run.
    """
    differences = [values[seed] - baseline[seed] for seed in sorted(values) if seed in baseline]
    if not differences:
        return None
    return Comparison(fmean(differences), t_interval(differences, level), len(differences))


def t_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float] | None:
    """Student's interval of the mean of n values, n - 1 degrees of freedom; None for fewer than two."""
    if len(values) < 2:
        return None
    mean = fmean(values)
    reach = t_quantile(level, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return mean - reach, mean + reach


def t_quantile(level: float, freedom: int) -> float:
    """t with P(|T| <= t) = level for Student's T of `freedom` degrees, by halving the exact finite series.

    Args:
        level: in (0, 1).
        freedom: at least 1.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(100):  # of an angle, t = sqrt(freedom) tan(angle): halved until no float lies between
        middle = (low + high) / 2
        low, high = (middle, high) if _central(middle, freedom) < level else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def wilson(hits: int, count: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a share hits / count (Wilson 1927, JASA 22, 209-212); count >= 1."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, spare = hits / count, z * z / count
    centre = (share + spare / 2) / (1 + spare)
    reach = z / (1 + spare) * math.sqrt(share * (1 - share) / count + spare / (4 * count))
    # At the ends the bound is exactly 0 or 1, and rounding would miss it.
    return 0.0 if hits == 0 else centre - reach, 1.0 if hits == count else centre + reach


def _central(angle: float, freedom: int) -> float:
    """P(|T| <= sqrt(freedom) tan(angle)): Abramowitz and Stegun 1964, equations 26.7.3 and 26.7.4."""
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = freedom % 2
    if odd:
        term, total = cosine, 0.0
        for k in range(1, (freedom - 1) // 2 + 1):
            total += term
            term *= cosine * cosine * 2 * k / (2 * k + 1)
        return 2 / math.pi * (angle + sine * total)
    term, total = 1.0, 0.0
    for k in range(1, freedom // 2 + 1):
        total += term
        term *= cosine * cosine * (2 * k - 1) / (2 * k)
    return sine * total
