"""The structure score: the share of images for which the dataset's own function `structure` returns True."""

from __future__ import annotations

from collections.abc import Iterator

from sagan_cli.contracts import Metric, MetricInputs, Score

STRUCTURE = "structure"


def compute(inputs: MetricInputs) -> Iterator[Score]:
    """Return the share of images whose measurement is not 0."""
    import numpy as np

    from sagan_cli.evaluation.metrics.bootstrap import share_interval

    right = inputs.fake.rows[:, 0]
    hits = int(np.count_nonzero(right))
    yield Score(STRUCTURE, hits / len(right), share_interval(hits, len(right)))


METRIC = Metric(
    about="share of images with the correct structure, for datasets that define it: four legs on quadrupeds",
    better={STRUCTURE: "higher"},
    compute=compute,
    layer=None,
    real="none",
    measure=STRUCTURE,
)
