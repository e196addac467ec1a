"""Improved precision and recall (Kynkaanniemi et al. 2019), computed by torch-fidelity's function."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sagan_cli.contracts import Metric, MetricInputs, Score

if TYPE_CHECKING:
    from sagan_cli.evaluation.metrics.bootstrap import FeatureArray

ALL_PAIRS = 10_000
"""Images of a set up to which all distances are in memory at once, at most 1.6 GB."""
BLOCK = 64 << 20
"""Bytes of float32 distances per block for larger sets; torch-fidelity needs up to six times as much to sort them."""


def compute(inputs: MetricInputs) -> Iterator[Score]:
    """Return precision and recall of the features."""
    assert inputs.real is not None
    yield from precision_recall(inputs.fake.rows, inputs.real.rows, neighbours=inputs.knobs["prc_neighbours"])


METRIC = Metric(
    about="share of generated images inside the real manifold, and of real ones inside the generated manifold "
    "(Kynkaanniemi et al. 2019)",
    better={"precision": "higher", "recall": "higher"},
    compute=compute,
    layer="prc",
    knobs={"prc_neighbours": 3},
)


def precision_recall(fake: FeatureArray, real: FeatureArray, *, neighbours: int = 3) -> tuple[Score, Score]:
    """Return precision, the share of generated images inside the balls of real ones, and recall, the reverse.

    The radius of an image's ball is the distance to its k-th neighbour in its own set.

    Both intervals keep the balls fixed. The interval of precision resamples the generated images, as for other metrics.
    The interval of recall resamples the real images, because its balls belong to the generated ones: copies in a
    resample would have distance 0, which shrinks the balls and lowers every resample (the bootstrap fails for nearest
    neighbours: Abadie and Imbens 2008). Recall's interval therefore does not show the effect of another sample of
    generated images, which is two to three times as large with a few hundred images.

    Args:
        fake, real: features (N, D) and (M, D).
        neighbours: k; reduced to min(N, M) - 1, and recorded in `details`.

    Raises:
        SaganError: fewer than two images in a set, different widths, or distances that are not finite.
    """
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    from sagan_cli.errors import SaganError
    from sagan_cli.evaluation.features import as_tensor
    from sagan_cli.evaluation.metrics.bootstrap import require_images, share_interval

    require_images(fake, real, 2, "precision and recall")
    for side in (fake, real):  # NaN distances would count as outside
        if not _squares_fit(side):
            raise SaganError("precision or recall is not a finite number: the features are degenerate or too large")
    k = min(neighbours, len(fake) - 1, len(real) - 1)
    most = max(len(fake), len(real))
    blocks = {"save_cpu_ram": True, "prc_batch_size": max(1, BLOCK // (4 * most))} if most > ALL_PAIRS else {}
    found = prc_features_to_metric(as_tensor(fake), as_tensor(real), prc_neighborhood=k, verbose=False, **blocks)
    scores = []
    for name, key, resampled, count in (
        ("precision", KEY_METRIC_PRECISION, "fake", len(fake)),
        ("recall", KEY_METRIC_RECALL, "real", len(real)),
    ):
        value = float(found[key])
        details = {"prc_neighbours": k, f"{name}_interval_resamples": resampled}
        scores.append(Score(name, value, share_interval(round(value * count), count), details))
    return scores[0], scores[1]


def _squares_fit(rows: FeatureArray) -> bool:
    """Return whether the squared distances of these rows are finite in float32."""
    import numpy as np

    limit = math.sqrt(float(np.finfo(np.float32).max) / 8 / rows.shape[1])
    return all(bool((np.abs(rows[i : i + 4096]) < limit).all()) for i in range(0, len(rows), 4096))
