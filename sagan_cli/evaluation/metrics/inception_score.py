"""Inception score (Salimans et al. 2016)."""

from __future__ import annotations

from collections.abc import Iterator

from sagan_cli.contracts import Metric, MetricInputs, Score


def _compute(inputs: MetricInputs) -> Iterator[Score]:
    from sagan_cli.evaluation.metrics.scores import isc

    found = isc(inputs.fake.rows, splits=inputs.knobs["isc_splits"])
    yield Score("isc", found.value, found.interval, {"isc_std": found.std, **found.details})


INCEPTION_SCORE = Metric(
    "exp of the mean KL divergence of class probabilities from their mean (Salimans et al. 2016)",
    better={"isc": "higher"},
    compute=_compute,
    layer="isc",
    real="none",
    knobs={"isc_splits": 10},
)
