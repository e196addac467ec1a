"""Density and coverage (Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative Models")."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sagan_cli.contracts import Metric, MetricInputs, Score

if TYPE_CHECKING:
    from sagan_cli.evaluation.metrics.bootstrap import FeatureArray

BLOCK = 64 << 20
"""Bytes of float64 distances in memory at once."""


def compute(inputs: MetricInputs) -> Iterator[Score]:
    """Return density and coverage of the features."""
    assert inputs.real is not None
    yield from density_coverage(inputs.fake.rows, inputs.real.rows, neighbours=inputs.knobs["dc_neighbours"])


METRIC = Metric(
    about="mean number of real balls around a generated image, and share of real balls that contain one "
    "(Naeem et al. 2020)",
    better={"density": "higher", "coverage": "higher"},
    compute=compute,
    layer="prc",
    knobs={"dc_neighbours": 5},
)


def density_coverage(fake: FeatureArray, real: FeatureArray, *, neighbours: int = 5) -> tuple[Score, Score]:
    """Return density and coverage (equations 2 and 3 of the paper).

    The ball of a real image has the distance to its k-th neighbour among the real images as radius. Density is the
    number of balls that contain a generated image, divided by k, as a mean over the generated images: it may exceed 1.
    Coverage is the share of balls that contain a generated image. Unlike precision and recall, both depend on balls of
    real images only, so that outliers of the generator do not raise them.

    The interval of density resamples the generated images, that of coverage the real ones, as for recall.

    Args:
        fake, real: features (N, D) and (M, D).
        neighbours: k; reduced to M - 1, and recorded in `details`.

    Raises:
        SaganError: no generated image, fewer than two real ones, different widths, or distances that are not finite.
    """
    import numpy as np
    import torch

    from sagan_cli.evaluation.metrics.bootstrap import bootstrap_mean, finite, require_images, share_interval

    require_images(fake, real, 1, "density and coverage")
    require_images(real, real, 2, "density and coverage")
    k = min(neighbours, len(real) - 1)
    reals, fakes = (torch.from_numpy(np.array(rows, np.float64)) for rows in (real, fake))
    balls = torch.zeros(len(fakes), dtype=torch.float64)
    covered = 0
    step = max(1, BLOCK // (8 * max(len(reals), len(fakes))))
    for first in range(0, len(reals), step):
        block = reals[first : first + step]
        among = torch.cdist(block, reals)
        among[torch.arange(len(block)), torch.arange(first, first + len(block))] = torch.inf  # not its own neighbour
        radius = among.kthvalue(k, dim=1).values
        finite(float(radius.sum()), "density or coverage")
        inside = torch.cdist(block, fakes) < radius[:, None]
        balls += inside.sum(0)
        covered += int(inside.any(1).sum())
    per_image = (balls / k).numpy()
    density = float(per_image.mean())
    low, high = bootstrap_mean(per_image)
    return (
        Score("density", density, (density + low, density + high), {"dc_neighbours": k}),
        Score(
            "coverage", covered / len(reals), share_interval(covered, len(reals)),
            {"dc_neighbours": k, "coverage_interval_resamples": "real"},
        ),
    )  # fmt: skip
