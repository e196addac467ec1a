"""What is exported: a folded generator and everything that is known about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from sagan_cli import runs
from sagan_cli.contracts import ModelSpec
from sagan_cli.engine import sample
from sagan_cli.engine.runtime import Runtime
from sagan_cli.evaluation import records


@dataclass(frozen=True)
class Subject:
    """A generator ready to be written somewhere."""

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
    """`source`, `digest` and `count` of the pictures that it learnt from."""
    source: str
    """Where it was read from."""
    run: dict[str, Any] | None = None
    """run.json of its run, where there is one."""
    scores: list[dict[str, Any]] = field(default_factory=list)
    """Score records of this very checkpoint, oldest first."""
    digests: dict[str, str] = field(default_factory=dict)
    """sha256 of the checkpoint's files, by name: which weights these are, wherever they go."""


@dataclass(frozen=True)
class Check:
    """How an exported model did in its own runtime, beside PyTorch; keys are batch sizes."""

    runtime: str
    """As in `onnxruntime 1.31.1, CPU`."""
    differences: dict[int, float]
    """Largest absolute difference of an output value; pictures are in [-1, 1]."""
    milliseconds: dict[int, float]
    torch_milliseconds: dict[int, float]


def open_subject(checkpoint: Path, runtime: Runtime, *, raw: bool = False) -> Subject:
    """The generator of a checkpoint directory, and the facts of its run.

    Raises:
        CheckpointError: damaged, of another format, or of an architecture that is not there.
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
    return Subject(
        sampler.generator, sampler.spec, sampler.class_names, facts.arch, facts.arch_package, sampler.weights,
        facts.step, facts.data, str(checkpoint), run, scores, facts.digests,
    )  # fmt: skip
