"""Memorization: whether generated images are nearer to the training images than held-out images are.

The statistic behind the test of Meehan, Chaudhuri and Dasgupta 2020 ("A Non-Parametric Test to Detect Data-Copying in
Generative Models", arXiv 2004.05675), as a probability.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sagan_cli.contracts import Metric, MetricInputs, Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sagan_cli.evaluation.metrics.bootstrap import FeatureArray, Floats

ROWS = 2048
"""Images of each set that are compared at once: 32 MiB of distances, and their features in float64."""
NAME = "memorization"


def compute(inputs: MetricInputs) -> Iterator[Score]:
    """Return the memorization of the features."""
    assert inputs.real is not None
    assert inputs.held_out is not None
    yield memorization(inputs.fake.rows, inputs.held_out.rows, inputs.real.rows)


METRIC = Metric(
    about="probability that a generated image is nearer to a training image than a held-out image is: 0.5 without "
    "copies, 1 if all are copies (Meehan et al. 2020)",
    better={NAME: "lower"},
    compute=compute,
    layer="prc",
    held_out=True,
)


def memorization(fake: FeatureArray, held_out: FeatureArray, training: FeatureArray) -> Score:
    """Return P(d(G) < d(H)) + P(d(G) = d(H)) / 2, where d is the distance to the nearest training image.

    The 95 % interval resamples the generated and the held-out images; their two parts add in quadrature.

    Args:
        fake, held_out, training: features (N, D), (M, D) and (T, D).

    Raises:
        SaganError: an empty set, different widths, or distances that are not finite.
    """
    import numpy as np

    from sagan_cli.evaluation.metrics.bootstrap import bootstrap_mean, finite, require_images

    require_images(fake, training, 1, NAME)
    require_images(held_out, training, 1, NAME)
    generated, held = (nearest(rows, training)[0] for rows in (fake, held_out))
    finite(float(generated.sum() + held.sum()), NAME)
    # The placement of each image among the other set, ties counted half; their means are equal.
    of_generated, of_held = 1 - _share_below(held, generated), _share_below(generated, held)
    value = float(of_held.mean())
    offsets = [bootstrap_mean(placements) for placements in (of_generated, of_held)]
    low, high = (math.hypot(*(offset[i] for offset in offsets)) for i in (0, 1))
    medians = {f"{NAME}_distance_{of}": float(np.median(d)) for of, d in (("generated", generated), ("held_out", held))}
    return Score(NAME, value, (max(0.0, value - low), min(1.0, value + high)), medians)


def nearest(rows: FeatureArray, training: FeatureArray) -> tuple[Floats, NDArray[np.int64]]:
    """Return distance and index of the nearest training image of each row, (N,) each."""
    import numpy as np
    import torch

    def blocks(features: FeatureArray) -> Iterator[tuple[int, torch.Tensor]]:
        for start in range(0, len(features), ROWS):
            yield start, torch.from_numpy(np.array(features[start : start + ROWS], np.float64))

    distances, indices = np.full(len(rows), np.inf), np.zeros(len(rows), np.int64)
    for start, some in blocks(rows):
        here = slice(start, start + len(some))
        for offset, others in blocks(training):
            found, places = (part.numpy() for part in torch.cdist(some, others).min(1))
            nearer = found < distances[here]
            distances[here][nearer], indices[here][nearer] = found[nearer], places[nearer] + offset
    return distances, indices


def _share_below(values: Floats, limits: Floats) -> Floats:
    """Return for each limit the share of values below it, plus half of those equal to it."""
    import numpy as np

    ordered = np.sort(values)
    below, up_to = (np.searchsorted(ordered, limits, side=side) for side in ("left", "right"))
    share: Floats = (below + up_to) / (2 * len(values))
    return share
