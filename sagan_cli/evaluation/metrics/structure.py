"""Structure score: the share of images that a dataset's own checker finds correct, for example four legs."""

from __future__ import annotations

from collections.abc import Iterator

from sagan_cli.contracts import Metric, MetricInputs, Score


def _compute(inputs: MetricInputs) -> Iterator[Score]:
    import numpy as np

    from sagan_cli.evaluation.metrics.bootstrap import share_interval

    correct = inputs.fake.rows[:, 0]
    hits = int(np.count_nonzero(correct))
    yield Score("structure", hits / len(correct), share_interval(hits, len(correct)))


STRUCTURE = Metric(
    "share of images that the dataset's own `structure` function finds correct",
    better={"structure": "higher"},
    compute=_compute,
    layer=None,
    real="none",
)
