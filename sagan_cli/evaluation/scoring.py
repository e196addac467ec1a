"""From a checkpoint or a folder of pictures to a finished score record."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from typing import IO, Any

import torch

from sagan_cli import __version__
from sagan_cli.config.schema import DataConfig
from sagan_cli.data.packing.pack import cache_dir
from sagan_cli.engine import sample
from sagan_cli.engine.jobs import Progress
from sagan_cli.engine.runtime import Runtime
from sagan_cli.errors import UsageError
from sagan_cli.evaluation.evaluate import evaluate
from sagan_cli.evaluation.extractors.extractor import Extractor
from sagan_cli.evaluation.extractors.opening import CLASSIFIER, check_extractor, open_extractor
from sagan_cli.evaluation.images.pictures import open_pictures
from sagan_cli.evaluation.measures import Scores, Want
from sagan_cli.evaluation.metrics.table import STRUCTURE, knobs_of, metric
from sagan_cli.evaluation.reference import Reference, as_they_are, fitted, needs_fitting, require_structure
from sagan_cli.evaluation.rules import Plan
from sagan_cli.evaluation.sides import Drawn, First, Side, requests_for
from sagan_cli.evaluation.store import Store
from sagan_cli.model.ema import standing_statistics
from sagan_cli.ops.randomness import generator, latents_and_labels

STANDING_BATCHES = 16


@dataclass(frozen=True)
class Room:
    """Where scoring happens and whom it tells."""

    runtime: Runtime
    progress: Progress
    notify: Callable[[str], None]
    warn: Callable[[str], None]

    @property
    def store(self) -> Store:
        """The user's cache of real statistics."""
        return Store(cache_dir() / "statistics", self.notify)

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """What one process makes and the others find made."""
        if not self.runtime.leads:
            self.runtime.barrier()
        yield
        if self.runtime.leads:
            self.runtime.barrier()


def score_model(sampler: sample.Sampler, data: DataConfig, plan: Plan, room: Room) -> dict[str, Any] | None:
    """The record of a generator against pictures fitted to its size; None on all processes but the leading one.

    Raises:
        UsageError, DataError, SaganError: with one line that names the flag or file.
    """
    spec, rules = sampler.spec, plan.protocol
    if rules.batch_norm == "batch" and room.runtime.world > 1:
        raise UsageError(f"--protocol {rules.name} normalises by the batch, which several processes cannot share")
    if plan.per_class and not spec.num_classes:
        raise UsageError("--per-class: this model has no classes")
    with room.leader_first():
        reference = fitted(data, spec.height, spec.width, spec.channels, room.progress, room.notify)
    metrics = _metrics(plan, reference, data.source)
    extractor = _extractor(plan, reference, metrics, room)
    labels = reference.pack.labels if rules.labels == "data" and reference.pack else None
    if labels is not None and spec.num_classes and len(reference.real.class_names) != spec.num_classes:
        raise UsageError(
            f"--protocol {rules.name} draws classes as the data has them, and {data.source} has other classes"
        )
    if rules.batch_norm == "standing":
        standing_statistics(sampler.generator, _noise(sampler, room.runtime, plan.batch))
    fake = Drawn(
        sampler.generator, spec, requests_for(plan.n or rules.n_fake, plan.seed, labels, spec.num_classes),
        room.runtime, rules.truncation, rules.batch_norm == "batch",
    )  # fmt: skip
    scores = _score(fake, reference, extractor, metrics, plan, room)
    if scores is None:
        return None
    path = sampler.facts.path
    facts = {
        "fake": str(path.parent.parent if path.parent.name == "checkpoints" else path), "fake_kind": "model",
        "checkpoint": str(path), "fake_size": f"{spec.height}x{spec.width}",
        "step": sampler.facts.step, "checkpoint_sha256": sampler.facts.digests, "seed": plan.seed,
        "truncation": rules.truncation, "ema": sampler.weights == "ema", "batch_norm": rules.batch_norm,
        "labels": rules.labels if spec.num_classes else None, "colour": _colour(spec.channels),
        "precision": room.runtime.precision,
    }  # fmt: skip
    return _record(scores, extractor, reference, plan, room.runtime, facts)


def score_pictures(target: str, stdin: IO[bytes], data: DataConfig, plan: Plan, room: Room) -> dict[str, Any] | None:
    """The record of pictures that lie there against others; None on all processes but the leading one.

    Raises:
        UsageError, DataError, SaganError: with one line that names the flag or file.
    """
    if target == "-" and room.runtime.world > 1:
        raise UsageError("-: several processes cannot share standard input; save the pictures to a file")
    with ExitStack() as open_files:
        fake = open_files.enter_context(open_pictures(target, flag="", stdin=stdin))
        for line in fake.notes:
            room.notify(line)
        height, width = fake.first_size()
        with room.leader_first():
            if plan.protocol.extractor == CLASSIFIER or needs_fitting(data, plan.fit):
                reference = fitted(data, height, width, None, room.progress, room.notify)
            else:
                reference = as_they_are(data, open_files)
        metrics = _metrics(plan, reference, data.source)
        extractor = _extractor(plan, reference, metrics, room)
        limited: Side = fake if plan.n is None else First(fake, plan.n)
        scores = _score(limited, reference, extractor, metrics, plan, room)
        if scores is None:
            return None
        size = "various" if fake.sizes_vary else f"{height}x{width}"
        facts = {
            "fake": target, "fake_kind": fake.kind, "fake_digest": fake.digest(), "fake_size": size,
            "checkpoint": None, "checkpoint_sha256": None, "step": None, "seed": None, "truncation": None,
            "ema": None, "batch_norm": None, "labels": None, "colour": _colour(fake.channels), "precision": None,
        }  # fmt: skip
        return _record(scores, extractor, reference, plan, room.runtime, facts)


def _metrics(plan: Plan, reference: Reference, source: str) -> tuple[str, ...]:
    metrics = plan.metrics
    if metrics is None:
        metrics = (*plan.protocol.metrics, *((STRUCTURE,) if reference.structure else ()))
    require_structure(reference.structure, metrics, source)
    return metrics


def _extractor(plan: Plan, reference: Reference, metrics: tuple[str, ...], room: Room) -> Extractor | None:
    """Opened and checked before a single picture is drawn; None where no metric looks through one."""
    if all(metric(name).layer is None for name in metrics) and not plan.per_class:
        return None
    extractor = open_extractor(
        plan.protocol.extractor, plan.weights, reference.pack, room.runtime, room.progress, room.notify
    )
    if extractor.published is False:
        room.warn(
            f"these are not the published weights of {extractor.name} (sha256 {extractor.digest[:16]}...): "
            "compare the score only with others of the same weights"
        )
    checked = check_extractor(extractor, reference.real.side, room.runtime, room.notify)
    return replace(extractor, facts={**extractor.facts, "self_check": checked})


def _score(
    fake: Side, reference: Reference, extractor: Extractor | None, metrics: tuple[str, ...], plan: Plan, room: Room
) -> Scores | None:
    for name in metrics:
        layer = metric(name).layer
        if extractor and layer is not None and layer not in extractor.layers:
            raise UsageError(f"--metrics {name}: the extractor {extractor.name} has no layer for it")
    want = Want(metrics, plan.reals(), plan.per_class, plan.batch, knobs_of(metrics, plan.knobs()), reference.structure)
    scores = evaluate(fake, reference.real, extractor, want, room.runtime, room.store, room.progress)
    for sentence in scores.notes if scores else ():
        room.warn(sentence)
    return scores


def _record(
    scores: Scores,
    extractor: Extractor | None,
    reference: Reference,
    plan: Plan,
    runtime: Runtime,
    facts: dict[str, Any],
) -> dict[str, Any]:
    first = next(iter(scores.values))
    return {
        "kind": "evaluation", "format": 1,
        "metric": first, "value": scores.values[first], "interval": scores.intervals[first],
        "values": scores.values, "intervals": scores.intervals,
        **({"per_class": scores.per_class} if scores.per_class else {}),
        **_identity(extractor),
        "protocol": plan.protocol.name, "departures": plan.departures,
        "n_real": scores.n_real, "n_fake": scores.n_fake,
        **plan.knobs(),
        **reference.facts, **facts, **scores.details,
        "device": str(runtime.device), "processes": runtime.world, "versions": _versions(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"), "warnings": scores.notes,
    }  # fmt: skip


def _identity(extractor: Extractor | None) -> dict[str, Any]:
    """The unit of measurement."""
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


def _noise(sampler: sample.Sampler, runtime: Runtime, batch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """Latents of their own for standing statistics, the same on every process."""
    spec = sampler.spec
    for i in range(STANDING_BATCHES):
        z, y = latents_and_labels(generator(0, "standing", i), batch, spec.latent, spec.num_classes)
        yield z.to(runtime.device), None if y is None else y.to(runtime.device)
