"""Inception score (Salimans et al. 2016), equal to torch-fidelity's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sagan_cli.contracts import Metric, MetricInputs, Score

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from sagan_cli.evaluation.metrics.bootstrap import FeatureArray, Floats

SEED = 2020
"""torch-fidelity's seed for the order of the images."""
AT_ONCE = 64 << 20
"""Bytes of float64 probabilities up to which torch-fidelity's function computes a whole split."""


def compute(inputs: MetricInputs) -> Iterator[Score]:
    """Return the inception score of the logits."""
    yield isc(inputs.fake.rows, splits=inputs.knobs["isc_splits"])


METRIC = Metric(
    about="Inception score (Salimans et al. 2016); needs no real images",
    better={"isc": "higher"},
    compute=compute,
    layer="isc",
    real="none",
    knobs={"isc_splits": 10},
)


def isc(logits: FeatureArray, *, seed: int = SEED, splits: int = 10) -> Score:
    """Return exp of the mean KL(p(y|x) || p(y)), averaged over splits; between 1 and the number of classes.

    Small splits use torch-fidelity's function and equal its value to the bit; larger ones are summed in chunks and are
    equal up to rounding. The interval is computed for the logarithm.

    Args:
        logits: (N, C), in the order of the images; shuffled here.
        splits: reduced to N, and recorded in `details`.

    Raises:
        SaganError: no images, or a value that is not finite.
    """
    import numpy as np
    import torch
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

    from sagan_cli.errors import SaganError
    from sagan_cli.evaluation.metrics.bootstrap import bootstrap_mean, finite, take_rows

    count, classes = logits.shape
    if count < 1:
        raise SaganError("no images: the inception score needs at least 1")
    splits = min(splits, count)
    order = np.random.RandomState(seed).permutation(count)
    values, parts = [], []
    for i in range(splits):
        chosen = order[i * count // splits : (i + 1) * count // splits]
        in_order = np.sort(chosen)  # so that a mapped file is read in order
        level, influence = isc_influence(logits, in_order)
        if 8 * len(chosen) * classes <= AT_ONCE:
            chunk = torch.from_numpy(take_rows(logits, chosen))
            value = float(isc_features_to_metric(chunk, splits=1, shuffle=False)[KEY_METRIC_ISC_MEAN])
        else:
            value = math.exp(level)
        values.append(finite(value, "the inception score"))
        parts.append((in_order, influence))
    mean, std = float(np.mean(values)), float(np.std(values))
    # d log(mean of the splits' scores), as a mean over all images: a split has the weight of its score and its size.
    influence = np.empty(count)
    for (chosen, part), value in zip(parts, values, strict=True):
        influence[chosen] = part * (value / mean) * (count / (splits * len(chosen)))
    low, high = bootstrap_mean(influence)
    interval = mean * math.exp(low), mean * math.exp(high)
    return Score("isc", mean, interval, {"isc_std": std, "isc_splits": splits, "isc_seed": seed})


def isc_influence(logits: FeatureArray, indices: NDArray[np.int64]) -> tuple[float, Floats]:
    """Return the logarithm L of the inception score of the images at `indices`, and the influence of each on L.

    L = mean_i KL_i, KL_i = sum_c p_ic (log p_ic - log q_c), q = mean_i p_i. The weight of image i changes L directly by
    KL_i - L, and through q by -sum_c (q_c / q_c) (p_ic - q_c) = 0, because both sum to one. The influence is KL_i - L.

    Args:
        logits: (N, C); may be mapped from a file, and is read in chunks.
        indices: (n,) indices of rows, n >= 1.
    """
    import numpy as np
    import torch

    from sagan_cli.evaluation.metrics.bootstrap import CHUNK, take_rows

    parts = np.array_split(indices, -(-len(indices) // CHUNK))

    def probabilities(part: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        wide = torch.from_numpy(take_rows(logits, part)).double()
        return wide.softmax(dim=1), wide.log_softmax(dim=1)

    marginal = torch.zeros(logits.shape[1], dtype=torch.float64)
    for part in parts:
        marginal += probabilities(part)[0].sum(dim=0) / len(indices)
    divergence = np.empty(len(indices))
    start = 0
    for part in parts:
        p, log_p = probabilities(part)
        divergence[start : start + len(part)] = (p * (log_p - marginal.log())).sum(dim=1).numpy()
        start += len(part)
    level = float(divergence.mean())
    return level, divergence - level
