"""The numbers of a score, from collected features: every metric of the table, and FID per class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagan_cli.contracts import MetricInputs
from sagan_cli.errors import DataError
from sagan_cli.evaluation.features import Found, Probe
from sagan_cli.evaluation.metrics.frechet import FEW, Moments, distance, moments_of_array
from sagan_cli.evaluation.metrics.table import metric
from sagan_cli.evaluation.sides import Places, Side
from sagan_cli.evaluation.store import Reference


@dataclass(frozen=True)
class Real:
    """The reference side: pictures with a digest of their content, or statistics that somebody computed."""

    side: Side | None
    digest: str
    """Content and transform of the pictures: equal digests mean equal features."""
    class_names: tuple[str, ...] = ()
    moments: Moments | None = None
    """Ready statistics, where `side` is None."""


@dataclass(frozen=True)
class Want:
    """What is to be computed."""

    metrics: tuple[str, ...]
    n_real: int | None = None
    """Real images, chosen once and for all; None is all."""
    per_class: bool = False
    batch: int = 64
    knobs: Mapping[str, int] = field(default_factory=dict)
    """Parameters of the metrics (`table.knobs_of`)."""
    structure: Callable[[NDArray[np.uint8]], NDArray[np.bool_]] | None = None
    """The dataset's own checker, uint8 (n, H, W, 3) -> (n,)."""

    @property
    def rows(self) -> bool:
        """Whether features of the real images are needed, and not only their moments."""
        return self.per_class or any(metric(name).real == "rows" for name in self.metrics)

    @property
    def layers(self) -> dict[str, str]:
        """Metric -> key of its layer in `Extractor.layers`, for metrics of features; `fid` for FID per class."""
        found = {name: metric(name).layer for name in self.metrics} | ({"fid": "fid"} if self.per_class else {})
        return {name: layer for name, layer in found.items() if layer is not None}

    def probes(self) -> dict[str, Probe]:
        """Return the functions of images of the metrics that use no extractor, by metric."""
        found: dict[str, Probe] = {}
        for name in self.metrics:
            row, structure = metric(name), self.structure
            if row.layer is None and row.measure is not None:
                found[name] = row.measure
            elif row.layer is None and structure is not None:
                found[name] = _as_rows(structure)
        return found


def _as_rows(check: Callable[[NDArray[np.uint8]], NDArray[np.bool_]]) -> Probe:
    return lambda images: check(images)[:, None].astype(np.float32)


@dataclass
class Scores:
    """What came out."""

    values: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float] | None] = field(default_factory=dict)
    """95 %; None where there is none."""
    per_class: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    n_fake: int = 0
    n_real: int | None = 0
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, want: Want, found: Found, fake: Side, real: RealFeatures | None) -> None:
        """Compute a metric and add its numbers.

        Raises:
            DataError: it needs real images, and there are only their statistics.
        """
        row = metric(name)
        if row.real == "rows" and real is not None and real.reference.rows is None:
            raise DataError(f"--metrics {name} needs the real images themselves: statistics alone serve fid only")
        knobs = {key: want.knobs.get(key, default) for key, default in row.knobs.items()}
        inputs = MetricInputs(FakeFeatures(found, fake), None if row.real == "none" else real, knobs, want.metrics)
        for score in row.compute(inputs):
            if score.name not in row.better:
                raise DataError(f"--metrics {name}: returned '{score.name}', which it does not declare in `better`")
            self.values[score.name], self.intervals[score.name] = score.value, score.interval
            self.details |= score.details
            self.notes += score.notes


@dataclass(frozen=True)
class FakeFeatures:
    """The features of the generated images at one layer; see `contracts.Features`."""

    found: Found
    side: Side

    @property
    def labels(self) -> NDArray[np.int64] | None:
        return self.side.labels

    @property
    def rows(self) -> NDArray[np.float32]:
        assert self.found.rows is not None
        return self.found.rows.array()

    @property
    def moments(self) -> Moments:
        return self.found.moments()

    @property
    def mean(self) -> NDArray[np.float32]:
        return self.moments.mu

    @property
    def covariance(self) -> NDArray[np.float64]:
        return self.moments.sigma

    @property
    def count(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class RealFeatures:
    """The features of the real images at one layer; see `contracts.Features`."""

    reference: Reference
    labels: NDArray[np.int64] | None

    @property
    def rows(self) -> NDArray[np.float32]:
        assert self.reference.rows is not None, "asked for by `Metric.real`"
        return self.reference.rows

    @property
    def mean(self) -> NDArray[np.float32]:
        return self.reference.moments.mu

    @property
    def covariance(self) -> NDArray[np.float64]:
        return self.reference.moments.sigma

    @property
    def count(self) -> int:
        return self.reference.moments.count


def per_class(scores: Scores, fake: Side, real: Real, places: Places, found: Found, reference: Reference) -> None:
    """FID of each class by itself, and its mean, the intra-FID of Miyato and Koyama 2018."""
    rows, real_rows = FakeFeatures(found, fake).rows, reference.rows
    if real_rows is None:
        raise DataError("--per-class needs the real images themselves: statistics alone serve fid only")
    labels, real_labels = fake.labels, real.side.labels if real.side is not None else None
    if labels is None or real_labels is None:
        raise DataError("--per-class needs pictures with classes on both sides")
    real_labels = real_labels[places]
    for label, name in enumerate(real.class_names):
        generated, own = rows[labels == label], real_rows[real_labels == label]
        for side, part in (("generated", generated), ("real", own)):
            if len(part) < 2:
                raise DataError(f"--per-class: class '{name}' has {len(part)} {side} picture(s): raise -n")
        scores.per_class[name] = distance(moments_of_array(generated), moments_of_array(own))
    scores.values["intra_fid"] = float(np.mean(list(scores.per_class.values())))
    scores.intervals["intra_fid"] = None
    fewest = int(min(np.bincount(side).min() for side in (labels, real_labels)))
    if fewest < FEW:
        scores.notes.append(f"intra-FID of classes with fewer than {FEW:,} pictures (here {fewest:,}) is biased")
