"""The metric `mean-distance`: the distance between the mean features of generated and real images."""

from __future__ import annotations

from collections.abc import Iterator

from sagan_cli.contracts import Metric, MetricInputs, Score


def _compute(inputs: MetricInputs) -> Iterator[Score]:
    import numpy as np

    assert inputs.real is not None  # because of real="moments"
    power = inputs.knobs["distance_power"]
    difference = np.abs(inputs.fake.mean.astype(np.float64) - inputs.real.mean)
    yield Score("mean_distance", float((difference**power).sum() ** (1 / power)), details={"features": len(difference)})


MEAN_DISTANCE = Metric(
    "distance of the mean features of generated and real images",
    better={"mean_distance": "lower"},
    compute=_compute,
    real="moments",
    knobs={"distance_power": 2},
)
