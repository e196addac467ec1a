"""The generator to export, and its facts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from sagan_cli import __version__, runs
from sagan_cli.contracts import ModelSpec
from sagan_cli.engine import sample
from sagan_cli.engine.model_file import FORMAT
from sagan_cli.engine.runtime import Runtime
from sagan_cli.evaluation import records
from sagan_cli.plugins import registry


@dataclass(frozen=True)
class TrainedModel:
    """A generator to export, with everything known about it."""

    generator: nn.Module
    """(z (B, latent), y (B,) int64 or None) -> (B, C, H, W) in [-1, 1]; evaluation mode, folded, fp32."""
    spec: ModelSpec
    class_names: tuple[str, ...]
    arch: str
    arch_package: str
    """Distribution and version of the architecture, as in `sagan-cli 0.1.0`."""
    weights: str
    """`ema` or `raw`."""
    step: int
    data: dict[str, Any]
    """`source`, `digest` and `count` of the training images."""
    source: str
    """The path that it was read from."""
    run: dict[str, Any] | None = None
    """run.json of its run, or None."""
    scores: list[dict[str, Any]] = field(default_factory=list)
    """Score records of this very checkpoint, oldest first."""
    digests: dict[str, str] = field(default_factory=dict)
    """sha256 of the checkpoint's files, by name."""


@dataclass(frozen=True)
class Check:
    """Comparison of an exported model in its own runtime with PyTorch; keys are batch sizes."""

    runtime: str
    """Such as `onnxruntime 1.31.1, CPU`."""
    differences: dict[int, float]
    """Largest absolute difference of an output value; images are in [-1, 1]."""
    milliseconds: dict[int, float]
    torch_milliseconds: dict[int, float]


def open_trained_model(checkpoint: Path, runtime: Runtime, *, raw: bool = False) -> TrainedModel:
    """Open the generator of a checkpoint directory and collect the facts of its run.

    Raises:
        CheckpointError: damaged, of another format, or of an architecture that is not installed.
    """
    sampler = sample.load(checkpoint, runtime, raw=raw)
    folder = checkpoint.resolve().parent.parent
    run = runs.Run(folder).read() if (folder / "run.json").is_file() else None
    scores = [
        record
        for record in (runs.Run(folder).metrics() if run else [])
        if records.is_record(record) and record.get("step") == sampler.facts.step and record.get("ema") == (not raw)
    ]
    facts = sampler.facts
    return TrainedModel(
        sampler.generator, sampler.spec, sampler.class_names, facts.arch, facts.arch_package, sampler.weights,
        facts.step, facts.data, str(checkpoint), run, scores, facts.digests,
    )  # fmt: skip


def describe(model: TrainedModel) -> dict[str, Any]:
    """Return the facts of a generator as JSON values, without the digest."""
    return {
        "format": FORMAT,
        "sagan": __version__,
        "arch": model.arch,
        "arch_package": model.arch_package,
        "spec": {**asdict(model.spec), "options": dict(model.spec.options)},
        "class_names": list(model.class_names),
        "weights": model.weights,
        "step": model.step,
        "data": {key: model.data[key] for key in ("source", "digest", "count")},
        "checkpoint": dict(model.digests),
    }


def published(model: TrainedModel) -> TrainedModel:
    """Return the model without local paths, for files that are given to others."""
    return replace(model, data={**model.data, "source": label(model.data["source"])})


def label(source: str) -> str:
    """Return the public name of a dataset: a registered name, or the last part of a path (`celeba/`)."""
    path = Path(source)
    if source in registry.names("datasets") or not (path.name != source or path.exists()):
        return source
    name = path.name or path.resolve().name
    return name if path.suffix else f"{name}/"
