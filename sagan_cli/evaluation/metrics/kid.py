"""Kernel inception distance (Binkowski et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterator

from sagan_cli.contracts import Metric, MetricInputs, Score


def _compute(inputs: MetricInputs) -> Iterator[Score]:
    from sagan_cli.evaluation.metrics.scores import kid

    assert inputs.real is not None, "declared by `real`"
    knobs = inputs.knobs
    found = kid(inputs.fake.rows, inputs.real.rows, subsets=knobs["kid_subsets"], subset_size=knobs["kid_subset_size"])
    yield Score("kid", found.value, found.interval, {"kid_std": found.std, **found.details})


KID = Metric(
    "unbiased squared MMD with a cubic kernel (Binkowski et al. 2018)",
    better={"kid": "lower"},
    compute=_compute,
    layer="kid",
    knobs={"kid_subsets": 100, "kid_subset_size": 1000},
)
