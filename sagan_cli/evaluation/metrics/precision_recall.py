"""Precision and recall of manifolds estimated by nearest neighbours (Kynkäänniemi et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator

from sagan_cli.contracts import Metric, MetricInputs, Score


def _compute(inputs: MetricInputs) -> Iterator[Score]:
    from sagan_cli.evaluation.metrics.scores import precision_recall

    assert inputs.real is not None, "declared by `real`"
    both = precision_recall(inputs.fake.rows, inputs.real.rows, neighbours=inputs.knobs["prc_neighbours"])
    for name, found in zip(("precision", "recall"), both, strict=True):
        yield Score(name, found.value, found.interval, found.details)


PRECISION_RECALL = Metric(
    "share of generated images near real ones, and of real images near generated ones (Kynkäänniemi et al. 2019)",
    better={"precision": "higher", "recall": "higher"},
    compute=_compute,
    layer="prc",
    knobs={"prc_neighbours": 3},
)
