"""The numbers of a score, one function each: from collected features to a value, an interval and what to know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagan_cli.errors import DataError
from sagan_cli.evaluation.extractors.extractor import Extractor
from sagan_cli.evaluation.features import Found, Probe
from sagan_cli.evaluation.metrics.frechet import FEW, Moments, distance, moments_of_array, rank_note
from sagan_cli.evaluation.metrics.interval import bootstrap_mean, frechet_influence, share_interval
from sagan_cli.evaluation.metrics.scores import isc, kid, precision_recall
from sagan_cli.evaluation.sides import Places, Side
from sagan_cli.evaluation.store import Reference

METRICS = ("fid", "isc", "kid", "prc", "structure")
STRUCTURE = "structure"


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
    """Pictures of the reference, chosen once and for all; None is all."""
    per_class: bool = False
    batch: int = 64
    kid_subsets: int = 100
    kid_subset_size: int = 1000
    isc_splits: int = 10
    prc_neighbours: int = 3
    structure: Callable[[NDArray[np.uint8]], NDArray[np.bool_]] | None = None
    """Which pictures are built right, where the data set can tell: uint8 (n, H, W, 3) -> (n,)."""


@dataclass
class Scores:
    """What came out."""

    values: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float] | None] = field(default_factory=dict)
    """95 %, by bootstrap over the fake pictures; None where there is none."""
    per_class: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    n_fake: int = 0
    n_real: int | None = 0
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, value: float, interval: tuple[float, float] | None = None) -> None:
        """One more number."""
        self.values[name], self.intervals[name] = value, interval


@dataclass(frozen=True)
class Known:
    """What the metrics are computed from."""

    features: dict[str, Found]
    reference: Reference
    extractor: Extractor
    want: Want

    def fake(self, metric: str) -> NDArray[np.float32]:
        """(N, D) of the generated pictures."""
        return _rows(self.features[self.extractor.layers[metric]])

    def real(self, metric: str) -> NDArray[np.float32]:
        """(N, D) of the real ones."""
        if self.reference.rows is None:
            raise DataError(f"--metrics {metric} needs the real pictures themselves: statistics alone serve fid only")
        return self.reference.rows


def _fid(scores: Scores, known: Known) -> None:
    found = known.features[known.extractor.layers["fid"]]
    fake, real = found.moments(), known.reference.moments
    value = distance(fake, real)
    low, high = bootstrap_mean(frechet_influence(_rows(found), fake.mu, fake.sigma, real.mu, real.sigma))
    scores.add("fid", value, (value + low, value + high))
    scores.notes += filter(None, (rank_note("generated", fake), rank_note("real", real)))
    if min(fake.count, real.count or FEW) < FEW and "kid" not in known.want.metrics:
        scores.notes.append(
            f"FID of fewer than {FEW:,} pictures is biased: compare it only with scores of as many pictures, "
            "or use --metrics kid, which is not"
        )


def _kid(scores: Scores, known: Known) -> None:
    want = known.want
    score = kid(known.fake("kid"), known.real("kid"), subsets=want.kid_subsets, subset_size=want.kid_subset_size)
    scores.add("kid", score.value, score.interval)
    scores.details |= {"kid_std": score.std, **score.details}


def _isc(scores: Scores, known: Known) -> None:
    score = isc(known.fake("isc"), splits=known.want.isc_splits)
    scores.add("isc", score.value, score.interval)
    scores.details |= {"isc_std": score.std, **score.details}


def _prc(scores: Scores, known: Known) -> None:
    both = precision_recall(known.fake("prc"), known.real("prc"), neighbours=known.want.prc_neighbours)
    for name, score in zip(("precision", "recall"), both, strict=True):
        scores.add(name, score.value, score.interval)
        scores.details |= score.details


def structure_score(scores: Scores, features: dict[str, Found]) -> None:
    right = _rows(features[STRUCTURE])[:, 0]
    hits = int(np.count_nonzero(right))
    scores.add(STRUCTURE, hits / len(right), share_interval(hits, len(right)))


SCORES: dict[str, Callable[[Scores, Known], None]] = {
    "fid": _fid, "isc": _isc, "kid": _kid, "prc": _prc,
}  # fmt: skip


def _rows(found: Found) -> NDArray[np.float32]:
    assert found.rows is not None
    return found.rows.array()


def per_class(scores: Scores, fake: Side, real: Real, places: Places, known: Known) -> None:
    """FID of each class by itself, and its mean, the intra-FID of Miyato and Koyama 2018."""
    rows, real_rows = known.fake("fid"), known.real("fid --per-class")
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
    scores.add("intra_fid", float(np.mean(list(scores.per_class.values()))))
    fewest = int(min(np.bincount(side).min() for side in (labels, real_labels)))
    if fewest < FEW:
        scores.notes.append(f"intra-FID of classes with fewer than {FEW:,} pictures (here {fewest:,}) is biased")


def probe_of(structure: Callable[[NDArray[np.uint8]], NDArray[np.bool_]]) -> Probe:
    return lambda pictures: structure(pictures)[:, None].astype(np.float32)
