"""Score one set of images against another: features of both sets, metrics with intervals, and the record."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from typing import IO, Any

import numpy as np
import torch

from sagan_cli import __version__
from sagan_cli.config.schema import DataConfig
from sagan_cli.contracts import Metric, MetricInputs, Progress, Score
from sagan_cli.data.packing.pack import cache_dir
from sagan_cli.engine.runtime import Runtime
from sagan_cli.engine.sample import Sampler
from sagan_cli.errors import PluginError, SaganError, UsageError
from sagan_cli.evaluation.extractors.extractor import CLASSIFIER, Extractor
from sagan_cli.evaluation.extractors.opening import check_extractor, open_extractor
from sagan_cli.evaluation.features import (
    CollectedFeatures,
    ImageFeatures,
    ImageSet,
    Indices,
    Measure,
    collect_features,
)
from sagan_cli.evaluation.image_sets import (
    CachedFeatures,
    FeatureCache,
    FirstImages,
    GeneratedImages,
    RealImages,
    choose_indices,
    fitted_images,
    needs_fitting,
    real_features,
    requests_for,
    unfitted_images,
)
from sagan_cli.evaluation.images.opening import open_images
from sagan_cli.evaluation.metrics.structure import STRUCTURE
from sagan_cli.evaluation.options import Options, known_knobs
from sagan_cli.model.ema import standing_statistics
from sagan_cli.ops.randomness import generator, latents_and_labels
from sagan_cli.plugins import registry

STANDING_BATCHES = 16


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

    def add(self, score: Score) -> None:
        """Add one number."""
        self.values[score.name], self.intervals[score.name] = float(score.value), score.interval
        self.details |= score.details
        self.notes += score.notes


def score_generator(sampler: Sampler, data: DataConfig, options: Options, context: Context) -> dict[str, Any] | None:
    """Return the record of a generator against real images resized to its size; None on non-leading processes.

    Raises:
        UsageError, DataError, SaganError: with one line that names the flag or file.
    """
    spec, protocol, runtime = sampler.spec, options.protocol, context.runtime
    if protocol.batch_norm == "batch" and runtime.world > 1:
        raise UsageError(f"--protocol {protocol.name} normalises by batch statistics: use one process")
    with context.leader_first():
        real = fitted_images(data, spec.height, spec.width, spec.channels, context.progress, context.notify)
    metrics = choose_metrics(options, real, classes=spec.num_classes > 0)
    extractor = open_checked(options, real, metrics, context)
    labels = real.pack.labels if protocol.labels == "data" and real.pack else None
    if labels is not None and spec.num_classes and len(real.class_names) != spec.num_classes:
        raise UsageError(
            f"--protocol {protocol.name} draws classes as often as the data has them, but {data.data} has other "
            "classes than the model"
        )
    if protocol.batch_norm == "standing":
        standing_statistics(sampler.generator, _standing_latents(sampler, runtime, options.batch))
    fake = GeneratedImages(
        sampler.generator, spec, requests_for(options.n or protocol.n_fake, options.seed, labels, spec.num_classes),
        runtime, protocol.truncation, protocol.batch_norm == "batch",
    )  # fmt: skip
    scores = _score(fake, real, extractor, metrics, options, context)
    if scores is None:
        return None
    path = sampler.facts.path
    facts = {
        "fake": str(path.parent.parent if path.parent.name == "checkpoints" else path), "fake_kind": "model",
        "checkpoint": str(path), "fake_size": f"{spec.height}x{spec.width}",
        "step": sampler.facts.step, "checkpoint_sha256": sampler.facts.digests, "seed": options.seed,
        "truncation": protocol.truncation, "ema": sampler.weights == "ema", "batch_norm": protocol.batch_norm,
        "labels": protocol.labels if spec.num_classes else None, "colour": _colour(spec.channels),
        "precision": runtime.precision,
    }  # fmt: skip
    return _record(scores, extractor, real, metrics, options, runtime, facts)


def score_images(
    target: str, stdin: IO[bytes], data: DataConfig, options: Options, context: Context
) -> dict[str, Any] | None:
    """Return the record of existing images against real ones; None on non-leading processes.

    Raises:
        UsageError, DataError, SaganError: with one line that names the flag or file.
    """
    if target == "-" and context.runtime.world > 1:
        raise UsageError("-: several processes cannot share standard input; save the images to a file")
    with ExitStack() as open_files:
        fake = open_files.enter_context(open_images(target, flag="", stdin=stdin))
        for line in fake.notes:
            context.notify(line)
        height, width = fake.first_size()
        with context.leader_first():
            if options.protocol.extractor == CLASSIFIER or needs_fitting(data, options.fit):
                real = fitted_images(data, height, width, None, context.progress, context.notify)
            else:
                real = unfitted_images(data, open_files)
        metrics = choose_metrics(options, real)
        extractor = open_checked(options, real, metrics, context)
        limited: ImageSet = fake if options.n is None else FirstImages(fake, options.n)
        scores = _score(limited, real, extractor, metrics, options, context)
        if scores is None:
            return None
        size = "various" if fake.sizes_vary else f"{height}x{width}"
        facts = {
            "fake": target, "fake_kind": fake.kind, "fake_digest": fake.digest(), "fake_size": size,
            "checkpoint": None, "checkpoint_sha256": None, "step": None, "seed": None, "truncation": None,
            "ema": None, "batch_norm": None, "labels": None, "colour": _colour(fake.channels), "precision": None,
        }  # fmt: skip
        return _record(scores, extractor, real, metrics, options, context.runtime, facts)


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
) -> Scores | None:
    """Compute metrics of `fake` against `real`; None on non-leading processes.

    Args:
        extractor: may be None if no metric has a layer.
        n_real: number of real images, always the same ones; None is all.
        knobs: values that replace the metrics' defaults.

    Raises:
        UsageError: a metric cannot be computed by this extractor or for this dataset.
        SaganError: too few images, or features or statistics that are not finite.
        DataError: an image cannot be read, or the images have too few classes.
        PluginError: a plugin's metric failed.
    """
    layers = {name: _layer(name, metric, extractor) for name, metric in metrics.items() if metric.layer}
    measures = {name: _measure(name, metric, real) for name, metric in metrics.items() if metric.measure}
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

        reference = real_features(
            real, indices, metrics, layers, measures, extractor, context.runtime, context.cache, collect
        )
        own_layers = list(dict.fromkeys(layers.values()))
        own = collect("measuring the generated images", fake, np.arange(len(fake)), own_layers, measures, True)
        if not context.runtime.leads:
            return None
        scores = Scores(len(fake), next((found.moments.count or None for found in reference.values()), None))
        with context.progress("computing the scores", len(metrics)) as tick:
            for done, (name, metric) in enumerate(metrics.items()):
                key = layers.get(name, name)
                inputs = MetricInputs(
                    ImageFeatures(own[key].array(), lambda: fake.labels, own[key].moments),
                    None if metric.real == "none" else _reference(reference[key], real, indices),
                    {knob: (knobs or {}).get(knob, default) for knob, default in metric.knobs.items()},
                    real.class_names,
                    tuple(metrics),
                )
                for score in _computed(name, metric, inputs):
                    scores.add(score)
                tick(done + 1)
        return scores


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


def _layer(name: str, metric: Metric, extractor: Extractor | None) -> str:
    assert extractor is not None
    assert metric.layer is not None
    if metric.layer not in extractor.layers:
        raise UsageError(f"--metrics {name}: the extractor {extractor.name} has no layer for it")
    return extractor.layers[metric.layer]


def _measure(name: str, metric: Metric, real: RealImages) -> Measure:
    measure = metric.measure
    assert measure is not None
    found = real.measure(measure) if isinstance(measure, str) else measure
    if found is None:
        having = " (quadrupeds has one)" if measure == STRUCTURE else ""
        raise UsageError(f"--metrics {name}: the data {real.source} has no {name} score{having}")
    return found


def choose_metrics(options: Options, real: RealImages, *, classes: bool = True) -> dict[str, Metric]:
    """Return the metrics of an evaluation by name.

    Args:
        classes: whether the generated images may have classes.

    Raises:
        UsageError: the dataset or the model lacks what a metric needs.
        PluginError: a plugin's metric cannot be imported.
    """
    names = options.metrics or (*options.protocol.metrics, *((STRUCTURE,) if real.measure(STRUCTURE) else ()))
    names = tuple(dict.fromkeys((*names, "intra_fid") if options.per_class else names))
    metrics: dict[str, Metric] = {name: registry.load("metrics", name) for name in names}
    for name, metric in metrics.items():
        if metric.measure:
            _measure(name, metric, real)
        if metric.classes and not classes:
            raise UsageError(
                f"{'--per-class' if options.per_class else f'--metrics {name}'}: this model has no classes"
            )
    return metrics


def open_checked(
    options: Options, real: RealImages, metrics: Mapping[str, Metric], context: Context
) -> Extractor | None:
    """Open and check the extractor before any image is drawn; None if no metric needs one."""
    if not any(metric.layer for metric in metrics.values()):
        return None
    extractor = open_extractor(
        options.protocol.extractor, options.weights, real.pack, context.runtime, context.progress, context.notify
    )
    for name, metric in metrics.items():
        if metric.layer:
            _layer(name, metric, extractor)
    if extractor.published is False:
        context.warn(
            f"these are not the published weights of {extractor.name} (sha256 {extractor.digest[:16]}...): "
            "compare the score only with others of the same weights"
        )
    checked = check_extractor(extractor, real.images, context.runtime, context.notify)
    return replace(extractor, facts={**extractor.facts, "self_check": checked})


def _score(
    fake: ImageSet, real: RealImages, extractor: Extractor | None, metrics: Mapping[str, Metric], options: Options,
    context: Context,
) -> Scores | None:  # fmt: skip
    scores = compute_scores(
        fake, real, extractor, metrics, context,
        n_real=options.real_limit(), batch=options.batch, knobs=options.protocol.knobs,
    )  # fmt: skip
    for sentence in scores.notes if scores else ():
        context.warn(sentence)
    return scores


def _record(
    scores: Scores, extractor: Extractor | None, real: RealImages, metrics: Mapping[str, Metric], options: Options,
    runtime: Runtime, facts: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    first = next(iter(scores.values))
    protocol = options.protocol
    return {
        **known_knobs(metrics), **protocol.knobs, **scores.details,
        "kind": "evaluation", "format": 1,
        "metric": first, "value": scores.values[first], "interval": scores.intervals[first],
        "values": scores.values, "intervals": scores.intervals,
        **_extractor_facts(extractor),
        "protocol": protocol.name, "departures": options.departures,
        "n_real": scores.n_real, "n_fake": scores.n_fake,
        **real.facts, **facts,
        "device": str(runtime.device), "processes": runtime.world, "versions": _versions(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"), "warnings": scores.notes,
    }  # fmt: skip


def _extractor_facts(extractor: Extractor | None) -> dict[str, Any]:
    if extractor is None:
        return {"extractor": None, "weights_sha256": None, "weights_published": None, "layers": {}, "resize": None}
    return {
        "extractor": extractor.name, "weights_sha256": extractor.digest, "weights_published": extractor.published,
        "layers": dict(extractor.layers), "extractor_facts": dict(extractor.facts), "resize": extractor.resize,
    }  # fmt: skip


def _versions() -> dict[str, str]:
    names = ("torch", "torchvision", "torch-fidelity", "numpy", "pillow")
    return {"sagan": __version__, "python": platform.python_version(), **{n: metadata.version(n) for n in names}}


def _colour(channels: int) -> str:
    return {1: "grey, repeated to three channels", 4: "laid on white"}.get(channels, "three channels")


def _standing_latents(
    sampler: Sampler, runtime: Runtime, batch: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """Latents for standing statistics, from a random stream of their own, the same on every process."""
    spec = sampler.spec
    for i in range(STANDING_BATCHES):
        z, y = latents_and_labels(generator(0, "standing", i), batch, spec.latent, spec.num_classes)
        yield z.to(runtime.device), None if y is None else y.to(runtime.device)
