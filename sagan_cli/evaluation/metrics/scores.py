"""KID, inception score, precision and recall of features, each with its interval: torch-fidelity's own numbers.

The Frechet distance is in `frechet.py`. Features are float32 (N, D), a picture a row, in memory or mapped from a file.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sagan_cli.errors import SaganError
from sagan_cli.evaluation.metrics.bootstrap import bootstrap_mean, isc_influence, kid_influence, share_interval, take

SEED = 2020
"""torch-fidelity's, for the subsets of KID and the order of the inception score."""
AT_ONCE = 64 << 20
"""Bytes of float64 probabilities up to which a split of the inception score goes to torch-fidelity as a whole."""
ALL_PAIRS = 10_000
"""Pictures a side up to which precision and recall hold all distances at once, in 1.6 GB at most."""
BLOCK = 64 << 20
"""Bytes of float32 distances at a time beyond that; torch-fidelity needs up to six times that to sort them."""

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Score:
    """A number and what has to be known to read it."""

    value: float
    interval: tuple[float, float] | None
    """95 %, bootstrap; see `interval.py` for what it covers."""
    std: float | None
    """Over KID's subsets or the inception score's splits, as papers print it; not an error of `value`."""
    details: dict[str, Any] = field(default_factory=dict)
    """Settings as they were used, for the record; no name is used by two metrics."""


def kid(fake: Rows, real: Rows, *, seed: int = SEED, subsets: int = 100, subset_size: int = 1000) -> Score:
    """Kernel inception distance (Binkowski et al. 2018): the unbiased squared MMD, averaged over random subsets.

    The number is unbounded below (a perfect generator scatters around 0). The interval combines the two sources of its
    scatter: the generated pictures, by bootstrap of the influence, and the choice of the subsets, whose variance is
    std^2 / subsets.

    Args:
        fake, real: features (N, D) and (M, D).
        subset_size: pictures of each side in a subset; min(N, M) where there are fewer, and `details` has it.

    Raises:
        SaganError: fewer than two pictures a side, different widths, or no finite value.
    """
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    _require(fake, real, 2, "KID")
    size = min(subset_size, len(fake), len(real))
    with np.errstate(all="ignore"):  # overflow is found below, in one line
        found = kid_features_to_metric(
            _tensor(fake), _tensor(real), kid_subsets=subsets, kid_subset_size=size, rng_seed=seed, verbose=False
        )
        value, std = _finite(found[KEY_METRIC_KID_MEAN], "KID"), float(found[KEY_METRIC_KID_STD])
        low, high = bootstrap_mean(kid_influence(fake, real))
    choice = 1.96 * std / math.sqrt(subsets)
    interval = value - math.hypot(low, choice), value + math.hypot(high, choice)
    return Score(value, interval, std, {"kid_subset_size": size, "kid_subsets": subsets, "kid_seed": seed})


def isc(logits: Rows, *, seed: int = SEED, splits: int = 10) -> Score:
    """Inception score (Salimans et al. 2016): exp of the mean KL(p(y|x) || p(y)), averaged over splits.

    Between 1 and the number of classes. Splits small enough go through torch-fidelity's function and give its number
    to the bit; larger ones are summed in chunks and agree up to rounding. The interval is taken on the logarithm.

    Args:
        logits: (N, C), in the order in which the pictures are numbered; shuffled here.
        splits: N where there are fewer pictures, and `details` has it.

    Raises:
        SaganError: no pictures, or no finite value.
    """
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

    count, classes = logits.shape
    if count < 1:
        raise SaganError("no pictures: the inception score needs at least 1")
    splits = min(splits, count)
    order = np.random.RandomState(seed).permutation(count)
    values, parts = [], []
    for i in range(splits):
        places = order[i * count // splits : (i + 1) * count // splits]
        in_order = np.sort(places)  # neighbours in a mapped file
        level, influence = isc_influence(logits, in_order)
        if 8 * len(places) * classes <= AT_ONCE:
            chunk = torch.from_numpy(take(logits, places))
            value = float(isc_features_to_metric(chunk, splits=1, shuffle=False)[KEY_METRIC_ISC_MEAN])
        else:
            value = math.exp(level)
        values.append(_finite(value, "the inception score"))
        parts.append((in_order, influence))
    mean, std = float(np.mean(values)), float(np.std(values))
    # d log(mean of the splits' scores), as a mean over all pictures: each split weighs by its score and its size.
    influence = np.empty(count)
    for (places, part), value in zip(parts, values, strict=True):
        influence[places] = part * (value / mean) * (count / (splits * len(places)))
    low, high = bootstrap_mean(influence)
    interval = mean * math.exp(low), mean * math.exp(high)
    return Score(mean, interval, std, {"isc_splits": splits, "isc_seed": seed})


def precision_recall(fake: Rows, real: Rows, *, neighbours: int = 3) -> tuple[Score, Score]:
    """Improved precision and recall (Kynkaanniemi et al. 2019).

    Precision is the share of generated pictures inside the balls of real ones, recall the share of real pictures
    inside the balls of generated ones; a ball reaches to its picture's k-th neighbour on its own side.

    Both intervals are of a share whose balls are held fixed. For precision that resamples the generated pictures, as
    everywhere else. For recall it resamples the real ones, because the generated ones make the balls: drawing those
    with replacement would lay copies on each other, whose distance 0 shrinks the balls and lowers every resample
    (nearest neighbours are where the bootstrap fails: Abadie and Imbens 2008). So recall's interval does not say how
    far another draw of generated pictures would move it; with a few hundred, that is two to three times as far.

    Args:
        fake, real: features (N, D) and (M, D).
        neighbours: k; min(N, M) - 1 where there are fewer pictures, and `details` has it.

    Raises:
        SaganError: fewer than two pictures a side, different widths, or distances that are not finite.
    """
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    _require(fake, real, 2, "precision and recall")
    for side in (fake, real):  # a distance that is no number would count as one that is too far
        if not _reaches(side):
            raise SaganError("precision and recall are no finite numbers: the features are degenerate or too large")
    k = min(neighbours, len(fake) - 1, len(real) - 1)
    most = max(len(fake), len(real))
    blocks = {"save_cpu_ram": True, "prc_batch_size": max(1, BLOCK // (4 * most))} if most > ALL_PAIRS else {}
    found = prc_features_to_metric(_tensor(fake), _tensor(real), prc_neighborhood=k, verbose=False, **blocks)
    scores = []
    for name, key, count in (
        ("precision", KEY_METRIC_PRECISION, len(fake)),
        ("recall", KEY_METRIC_RECALL, len(real)),
    ):
        value = float(found[key])
        details = {"prc_neighbours": k, f"{name}_interval_resamples": "fake" if name == "precision" else "real"}
        scores.append(Score(value, share_interval(round(value * count), count), None, details))
    return scores[0], scores[1]


def _require(fake: Rows, real: Rows, least: int, what: str) -> None:
    for name, side in (("generated", fake), ("real", real)):
        if len(side) < least:
            raise SaganError(f"{len(side)} {name} picture(s): {what} needs at least {least}")
    if fake.shape[1] != real.shape[1]:
        raise SaganError(
            f"{what}: generated pictures have {fake.shape[1]:,} features and real ones {real.shape[1]:,}: "
            "they are of different extractors"
        )


def _finite(value: float, what: str) -> float:
    if not math.isfinite(value):
        raise SaganError(f"{what} is not a finite number: the features are degenerate or too large")
    return float(value)


def _reaches(rows: Rows) -> bool:
    """Whether float32 holds the squared distances of these rows."""
    limit = math.sqrt(float(np.finfo(np.float32).max) / 8 / rows.shape[1])
    return all(bool((np.abs(rows[i : i + 4096]) < limit).all()) for i in range(0, len(rows), 4096))


def _tensor(rows: Rows) -> Tensor:
    """The same memory as a tensor, which is only ever read."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(rows)
