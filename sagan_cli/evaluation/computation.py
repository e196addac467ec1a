"""Compute metrics of generated images against real ones: features of all sets of images, then the scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sagan_cli.contracts import Metric, MetricInputs, Progress, Score
from sagan_cli.data.packing.pack import cache_dir
from sagan_cli.engine.runtime import Runtime
from sagan_cli.errors import PluginError, SaganError, UsageError
from sagan_cli.evaluation.extractors.extractor import Extractor
from sagan_cli.evaluation.features import (
    CollectedFeatures,
    ImageFeatures,
    ImageSet,
    Indices,
    Measure,
    collect_features,
)
from sagan_cli.evaluation.image_sets import CachedFeatures, FeatureCache, RealImages, choose_indices, real_features
from sagan_cli.evaluation.metrics.bootstrap import FeatureArray
from sagan_cli.evaluation.metrics.structure import STRUCTURE
from sagan_cli.evaluation.nearest_pairs import LAYER, Pair, find_pairs
from sagan_cli.plugins import registry


@dataclass(frozen=True)
class Context:
    """The runtime and the callbacks of an evaluation."""

    runtime: Runtime
    progress: Progress
    notify: Callable[[str], None]
    warn: Callable[[str], None]

    @property
    def cache(self) -> FeatureCache:
        """The user's cache of features of real images."""
        return FeatureCache(cache_dir() / "statistics", self.notify)

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Run the block on the leading process first, then on the others, which use its files."""
        if not self.runtime.leads:
            self.runtime.barrier()
        yield
        if self.runtime.leads:
            self.runtime.barrier()


@dataclass
class Scores:
    """The results of an evaluation."""

    n_fake: int
    n_real: int | None
    """None if no metric needed real images, or if their number is unknown."""
    values: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float] | None] = field(default_factory=dict)
    """95 %; None where there is none."""
    details: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    nearest: list[Pair] = field(default_factory=list)

    def add(self, score: Score) -> None:
        """Add one number."""
        self.values[score.name], self.intervals[score.name] = float(score.value), score.interval
        self.details |= score.details
        self.notes += score.notes


def compute_scores(
    fake: ImageSet,
    real: RealImages,
    extractor: Extractor | None,
    metrics: Mapping[str, Metric],
    context: Context,
    *,
    n_real: int | None = None,
    batch: int = 64,
    knobs: Mapping[str, int] | None = None,
    held_out: RealImages | None = None,
    training: RealImages | None = None,
    pairs: bool = False,
) -> Scores | None:
    """Compute metrics of `fake` against `real`; None on non-leading processes.

    Args:
        extractor: may be None if no metric has a layer.
        n_real: number of real images, always the same ones; None is all.
        knobs: values that replace the metrics' defaults.
        held_out: images that were not trained on, for metrics that need them.
        training: the images among which copies are searched; None is `real`.
        pairs: whether `Scores.nearest` is wanted.

    Raises:
        UsageError: a metric cannot be computed by this extractor or for this dataset.
        SaganError: too few images, or features or statistics that are not finite.
        DataError: an image cannot be read, or the images have too few classes.
        PluginError: a plugin's metric failed.
    """
    layers = {name: layer_of(name, metric, extractor) for name, metric in metrics.items() if metric.layer}
    measures = {name: measure_of(name, metric, real) for name, metric in metrics.items() if metric.measure}
    indices = choose_indices(len(real.images), n_real) if real.images is not None else np.zeros(0, dtype=np.int64)
    with ExitStack() as open_files:

        def collect(
            title: str, images: ImageSet, indices: Indices, layers: Sequence[str], measures: Mapping[str, Measure],
            keep_rows: bool,
        ) -> dict[str, CollectedFeatures]:  # fmt: skip
            with context.progress(title, len(indices)) as tick:
                return collect_features(
                    images, indices, extractor, tuple(layers), context.runtime, measures=measures, keep_rows=keep_rows,
                    batch=batch, open_files=open_files, folder=context.cache.folder, tick=tick,
                )  # fmt: skip

        def features_of(
            images: RealImages, indices: Indices, metrics: Mapping[str, Metric], layers: Mapping[str, str] = layers
        ) -> dict[str, CachedFeatures]:
            return real_features(
                images, indices, metrics, {name: layers[name] for name in metrics if name in layers},
                {name: measures[name] for name in metrics if name in measures}, extractor, context.runtime,
                context.cache, collect,
            )  # fmt: skip

        reference = features_of(real, indices, {n: m for n, m in metrics.items() if not m.held_out})
        # A copy may be of any training image, so all of them are used, whatever the number of real images.
        trained_on = training or real
        everything = np.arange(len(trained_on.images)) if trained_on.images is not None else indices
        searching = {name: metric for name, metric in metrics.items() if metric.held_out}
        own_layers = dict(layers)
        others: dict[str, CachedFeatures] = {}
        if searching and held_out is not None and held_out.images is not None:
            others = features_of(held_out, choose_indices(len(held_out.images), n_real), searching)
        if pairs and extractor is not None:
            searching[LAYER] = registry.load("metrics", LAYER)
            own_layers[LAYER] = extractor.layers[LAYER]
        whole = features_of(trained_on, everything, searching, own_layers) if searching else {}
        own = collect(
            "measuring the generated images", fake, np.arange(len(fake)), list(dict.fromkeys(own_layers.values())),
            measures, True,
        )  # fmt: skip
        if not context.runtime.leads:
            return None
        scores = Scores(len(fake), next((found.moments.count or None for found in (reference | whole).values()), None))
        if pairs:
            key = own_layers[LAYER]
            scores.nearest = find_pairs(_rows(own[key].array()), _rows(whole[key].rows))
        with context.progress("computing the scores", len(metrics)) as tick:
            for done, (name, metric) in enumerate(metrics.items()):
                key = layers.get(name, name)
                compared = None
                if metric.real != "none":
                    used = (whole[key], trained_on, everything) if metric.held_out else (reference[key], real, indices)
                    compared = _reference(*used)
                inputs = MetricInputs(
                    ImageFeatures(own[key].array(), lambda: fake.labels, own[key].moments),
                    compared,
                    {knob: (knobs or {}).get(knob, default) for knob, default in metric.knobs.items()},
                    real.class_names,
                    tuple(metrics),
                    _without_labels(others[key]) if metric.held_out else None,
                )
                for score in _computed(name, metric, inputs):
                    scores.add(score)
                tick(done + 1)
        return scores


def _rows(found: FeatureArray | None) -> FeatureArray:
    assert found is not None, "collected with keep_rows"
    return found


def _without_labels(found: CachedFeatures) -> ImageFeatures:
    return ImageFeatures(found.rows, lambda: None, lambda: found.moments)


def _reference(found: CachedFeatures, real: RealImages, indices: Indices) -> ImageFeatures:
    def labels() -> Any:
        labels = None if real.images is None else real.images.labels
        return None if labels is None else labels[indices]

    return ImageFeatures(found.rows, labels, lambda: found.moments)


def _computed(name: str, metric: Metric, inputs: MetricInputs) -> list[Score]:
    """Compute a metric; check that its values are finite and listed in `Metric.better`."""
    entry = registry.find("metrics", name)
    try:
        found = list(metric.compute(inputs))
    except SaganError:
        raise
    except Exception as e:
        if entry.builtin:
            raise
        raise PluginError(f"{entry.title} failed: {type(e).__name__}: {' '.join(str(e).split())}") from e
    for score in found:
        if score.name not in metric.better:
            raise PluginError(f"{entry.title} returned '{score.name}', which Metric.better does not list")
        if not np.isfinite(score.value):
            raise SaganError(f"{score.name} is not a finite number")
    return found


def layer_of(name: str, metric: Metric, extractor: Extractor | None) -> str:
    assert extractor is not None
    assert metric.layer is not None
    if metric.layer not in extractor.layers:
        raise UsageError(f"--metrics {name}: the extractor {extractor.name} has no layer for it")
    return extractor.layers[metric.layer]


def measure_of(name: str, metric: Metric, real: RealImages) -> Measure:
    measure = metric.measure
    assert measure is not None
    found = real.measure(measure) if isinstance(measure, str) else measure
    if found is None:
        having = " (quadrupeds has one)" if measure == STRUCTURE else ""
        raise UsageError(f"--metrics {name}: the data {real.source} has no {name} score{having}")
    return found
