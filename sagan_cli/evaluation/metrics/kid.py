"""Kernel inception distance (Binkowski et al. 2018), computed by torch-fidelity's function."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sagan_cli.contracts import Metric, MetricInputs, Score

if TYPE_CHECKING:
    import numpy as np

    from sagan_cli.evaluation.metrics.bootstrap import FeatureArray, Floats

SEED = 2020
"""torch-fidelity's seed for the random subsets."""
KERNEL_ROWS = 5000
"""Largest number of images of each set that the influence is computed from."""


def compute(inputs: MetricInputs) -> Iterator[Score]:
    """Return the KID of the features."""
    assert inputs.real is not None
    knobs = inputs.knobs
    yield kid(inputs.fake.rows, inputs.real.rows, subsets=knobs["kid_subsets"], subset_size=knobs["kid_subset_size"])


METRIC = Metric(
    about="unbiased squared MMD with a cubic kernel, mean over random subsets (Binkowski et al. 2018)",
    better={"kid": "lower"},
    compute=compute,
    layer="kid",
    knobs={"kid_subsets": 100, "kid_subset_size": 1000},
    digits=6,
)


def kid(
    fake: FeatureArray, real: FeatureArray, *, seed: int = SEED, subsets: int = 100, subset_size: int = 1000
) -> Score:
    """Return the unbiased squared MMD, averaged over random subsets.

    The value can be negative: that of a perfect generator is 0 on average. The interval combines two sources of
    variance: the generated images (a bootstrap of the influence) and the choice of the subsets (std^2 / subsets).

    Args:
        fake, real: features (N, D) and (M, D).
        subset_size: images of each set in a subset; reduced to min(N, M), and recorded in `details`.

    Raises:
        SaganError: fewer than two images in a set, different widths, or a value that is not finite.
    """
    import numpy as np
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    from sagan_cli.evaluation.features import as_tensor
    from sagan_cli.evaluation.metrics.bootstrap import bootstrap_mean, finite, require_images

    require_images(fake, real, 2, "KID")
    size = min(subset_size, len(fake), len(real))
    with np.errstate(all="ignore"):  # an overflow raises below, with one message
        found = kid_features_to_metric(
            as_tensor(fake), as_tensor(real), kid_subsets=subsets, kid_subset_size=size, rng_seed=seed, verbose=False
        )
        value, std = finite(found[KEY_METRIC_KID_MEAN], "KID"), float(found[KEY_METRIC_KID_STD])
        low, high = bootstrap_mean(kid_influence(fake, real))
    choice = 1.96 * std / math.sqrt(subsets)
    interval = value - math.hypot(low, choice), value + math.hypot(high, choice)
    return Score(
        "kid", value, interval,
        {"kid_std": std, "kid_subset_size": size, "kid_subsets": subsets, "kid_seed": seed},
    )  # fmt: skip


def kid_influence(fake: FeatureArray, real: FeatureArray, *, most: int = KERNEL_ROWS, seed: int = 0) -> Floats:
    """Return the influence of generated images on the squared MMD with the kernel k(x, y) = (x.y / D + 1)^3.

    It is the Hajek projection of the U-statistic: h(x_i) = 2 (mean over j != i of k(x_i, x_j) - mean over j of
    k(x_i, y_j)).

    Args:
        fake, real: features (N, D), N >= 2, and (M, D), M >= 1.
        most: images of each set that are used; larger sets are subsampled with `seed`.

    Returns:
        (min(N, most),), with mean 0, scaled by sqrt(most / N) for larger sets, so that `bootstrap_mean` gives the
        interval for N images.
    """
    import numpy as np

    from sagan_cli.evaluation.metrics.bootstrap import CHUNK

    rng = np.random.default_rng(seed)
    x, y = (_choose(side, most, rng).astype(np.float64) for side in (fake, real))
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


def _choose(rows: FeatureArray, most: int, rng: np.random.Generator) -> FeatureArray:
    import numpy as np

    from sagan_cli.evaluation.metrics.bootstrap import take_rows

    return rows if len(rows) <= most else take_rows(rows, np.sort(rng.choice(len(rows), most, replace=False)))
