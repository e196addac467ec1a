"""Score one set of images against another: features of both sets, metrics with intervals, and the record."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from typing import IO, Any

import torch

from sagan_cli import __version__
from sagan_cli.config.schema import DataConfig
from sagan_cli.contracts import Metric
from sagan_cli.data.sources.opening import has_parts
from sagan_cli.engine.runtime import Runtime
from sagan_cli.engine.sample import Sampler
from sagan_cli.errors import UsageError
from sagan_cli.evaluation.computation import Context, Scores, compute_scores, layer_of, measure_of
from sagan_cli.evaluation.extractors.extractor import CLASSIFIER, Extractor
from sagan_cli.evaluation.extractors.opening import check_extractor, open_extractor
from sagan_cli.evaluation.features import ImageSet
from sagan_cli.evaluation.image_sets import (
    FirstImages,
    GeneratedImages,
    RealImages,
    fitted_images,
    needs_fitting,
    requests_for,
    unfitted_images,
)
from sagan_cli.evaluation.images.opening import open_images
from sagan_cli.evaluation.metrics.structure import STRUCTURE
from sagan_cli.evaluation.nearest_pairs import write_pairs
from sagan_cli.evaluation.options import HELD_OUT, TRAINING, Options, known_knobs
from sagan_cli.model.ema import standing_statistics
from sagan_cli.ops.randomness import generator, latents_and_labels
from sagan_cli.plugins import registry

STANDING_BATCHES = 16


def score_generator(
    sampler: Sampler, data: DataConfig, options: Options, context: Context, held_out: DataConfig | None = None
) -> dict[str, Any] | None:
    """Return the record of a generator against real images resized to its size; None on non-leading processes.

    Args:
        held_out: other images that were not trained on; None for those that the run holds out, or the test split.

    Raises:
        UsageError, DataError, SaganError: with one line that names the flag or file.
    """
    spec, protocol, runtime = sampler.spec, options.protocol, context.runtime
    if protocol.batch_norm == "batch" and runtime.world > 1:
        raise UsageError(f"--protocol {protocol.name} normalises by batch statistics: use one process")
    fitted = partial(
        fitted_images, height=spec.height, width=spec.width, channels=spec.channels, progress=context.progress,
        notify=context.notify,
    )  # fmt: skip
    with context.leader_first():
        real = fitted(data, part=options.part)
        training = real if options.part == TRAINING else fitted(data)
        others = _held_out(data, held_out, options, fitted)
    metrics = choose_metrics(options, real, classes=spec.num_classes > 0)
    require_held_out(metrics, others)
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
    scores = _score(fake, real, extractor, metrics, options, context, others, training)
    if scores is None:
        return None
    path = sampler.facts.path
    facts = {
        "fake": str(path.parent.parent if path.parent.name == "checkpoints" else path), "fake_kind": "model",
        "checkpoint": str(path), "fake_size": f"{spec.height}x{spec.width}",
        "step": sampler.facts.step, "checkpoint_sha256": sampler.facts.digests, "seed": options.seed,
        "truncation": protocol.truncation, "ema": sampler.weights == "ema", "batch_norm": protocol.batch_norm,
        "labels": protocol.labels if spec.num_classes else None, "colour": _colour(spec.channels),
        "precision": runtime.precision, "held_out_digest": others and others.digest,
        **_nearest_facts(scores, fake, training, options),
    }  # fmt: skip
    return _record(scores, extractor, real, metrics, options, runtime, facts)


def score_images(
    target: str,
    stdin: IO[bytes],
    data: DataConfig,
    options: Options,
    context: Context,
    held_out: DataConfig | None = None,
) -> dict[str, Any] | None:
    """Return the record of existing images against real ones; None on non-leading processes.

    Args:
        held_out: images that were not trained on; None for the test split of the data, if it has one.

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
            fitted = partial(
                fitted_images, height=height, width=width, channels=None, progress=context.progress,
                notify=context.notify,
            )  # fmt: skip
            if options.protocol.extractor == CLASSIFIER or needs_fitting(data, options.fit):
                real = fitted(data)
                others = _held_out(data, held_out, options, fitted)
            else:
                real = unfitted_images(data, open_files)
                others = unfitted_images(held_out, open_files) if held_out is not None else None
        metrics = choose_metrics(options, real)
        require_held_out(metrics, others)
        extractor = open_checked(options, real, metrics, context)
        limited: ImageSet = fake if options.n is None else FirstImages(fake, options.n)
        scores = _score(limited, real, extractor, metrics, options, context, others)
        if scores is None:
            return None
        size = "various" if fake.sizes_vary else f"{height}x{width}"
        facts = {
            "fake": target, "fake_kind": fake.kind, "fake_digest": fake.digest(), "fake_size": size,
            "checkpoint": None, "checkpoint_sha256": None, "step": None, "seed": None, "truncation": None,
            "ema": None, "batch_norm": None, "labels": None, "colour": _colour(fake.channels), "precision": None,
            "held_out_digest": others and others.digest, **_nearest_facts(scores, limited, real, options),
        }  # fmt: skip
        return _record(scores, extractor, real, metrics, options, context.runtime, facts)


def _held_out(
    data: DataConfig, given: DataConfig | None, options: Options, fitted: Callable[..., RealImages]
) -> RealImages | None:
    """Return the images that were not trained on, if a metric needs them and there are any."""
    names = options.metrics or options.protocol.metrics
    if not any(registry.load("metrics", name).held_out for name in names):
        return None
    if given is not None:
        return fitted(given)
    if data.holdout:
        return fitted(data, part=HELD_OUT)
    if has_parts(data.data) and data.split == "train":
        return fitted(replace(data, split="test"))
    return None


def _nearest_facts(scores: Scores, fake: ImageSet, training: RealImages, options: Options) -> dict[str, Any]:
    """Write the picture of the nearest pairs, and return their entry in the record; {} if it was not asked for."""
    if options.nearest is None:
        return {}
    assert training.images is not None
    write_pairs(options.nearest, scores.nearest, fake, training.images)
    return {"nearest": [asdict(pair) for pair in scores.nearest]}


def require_held_out(metrics: Mapping[str, Metric], held_out: RealImages | None) -> None:
    """Refuse a metric that needs held-out images where there are none.

    Raises:
        UsageError: naming the metric and the ways out.
    """
    for name, metric in metrics.items():
        if metric.held_out and held_out is None:
            raise UsageError(
                f"--metrics {name}: no images are held out: name some with --held-out, or train with --holdout"
            )


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
            measure_of(name, metric, real)
        if metric.classes and not classes:
            raise UsageError(
                f"{'--per-class' if options.per_class else f'--metrics {name}'}: this model has no classes"
            )
    return metrics


def open_checked(
    options: Options, real: RealImages, metrics: Mapping[str, Metric], context: Context
) -> Extractor | None:
    """Open and check the extractor before any image is drawn; None if no metric needs one."""
    if not any(metric.layer for metric in metrics.values()) and options.nearest is None:
        return None
    extractor = open_extractor(
        options.protocol.extractor, options.weights, real.pack, context.runtime, context.progress, context.notify
    )
    for name, metric in metrics.items():
        if metric.layer:
            layer_of(name, metric, extractor)
    if extractor.published is False:
        context.warn(
            f"these are not the published weights of {extractor.name} (sha256 {extractor.digest[:16]}...): "
            "compare the score only with others of the same weights"
        )
    checked = check_extractor(extractor, real.images, context.runtime, context.notify)
    return replace(extractor, facts={**extractor.facts, "self_check": checked})


def _score(
    fake: ImageSet, real: RealImages, extractor: Extractor | None, metrics: Mapping[str, Metric], options: Options,
    context: Context, held_out: RealImages | None, training: RealImages | None = None,
) -> Scores | None:  # fmt: skip
    scores = compute_scores(
        fake, real, extractor, metrics, context,
        n_real=options.real_limit(), batch=options.batch, knobs=options.protocol.knobs, held_out=held_out,
        training=training, pairs=options.nearest is not None,
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
