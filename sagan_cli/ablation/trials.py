"""The runs of an ablation, one for each variant and seed: their settings, training and timing.

Images and latents are functions of (seed, step), so all variants of a seed are trained on the same ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sagan_cli.ablation.variants import Variant
from sagan_cli.config.resolve import Resolved
from sagan_cli.config.schema import AUTO, Config
from sagan_cli.contracts import ModelSpec
from sagan_cli.engine.iteration import iteration
from sagan_cli.engine.job import Job, machine_facts, settled
from sagan_cli.engine.networks import create as create_networks
from sagan_cli.engine.networks import summarize
from sagan_cli.engine.runtime import Runtime
from sagan_cli.engine.step_inputs import StepInputs
from sagan_cli.engine.train import Outcome, train
from sagan_cli.errors import SaganError, UsageError
from sagan_cli.geometry import default_attention
from sagan_cli.objectives.objective import Objective
from sagan_cli.ops.randomness import generator
from sagan_cli.runs import Run, find_run, new_run, record_start

WARMUP_STEPS, TIMED_STEPS = 2, 4


@dataclass(frozen=True)
class Trial:
    """A run of an ablation: one variant with one seed."""

    variant: Variant
    seed: int
    spec: ModelSpec
    """Networks of the variant; channels and classes are those of the settings, not yet of the dataset."""

    def folder(self, parent: Path) -> Path:
        """Return its run directory, as in `attn-16-seed0`."""
        return parent / f"attn-{self.variant.name}-seed{self.seed}"

    def resolved(self, base: Resolved) -> Resolved:
        """Return its settings: those of all trials with its own attention and seed."""
        arch, where = base.config.model.arch, ",".join(map(str, self.spec.attn_at)) or "none"
        if self.variant.sides is None:
            # Published stages may not be expressible as a list of sides; then only `auto` reproduces them.
            listed = replace(self.spec, options=_options(self.variant, base.config))
            where = where if settled(arch, listed, auto=False) == self.spec else AUTO
        model = replace(base.config.model, attn_at=where, attention=self.variant.attention)
        config = replace(base.config, model=model, train=replace(base.config.train, seed=self.seed))
        own = ("model.attn_at", "model.attention", "train.seed")
        return Resolved(config, base.sources | dict.fromkeys(own, "sagan ablate"))

    def job(self, base: Job, config: Config) -> Job:
        """Return the job with the networks of this variant."""
        return replace(
            base, config=config, spec=replace(base.spec, attn_at=self.spec.attn_at, options=self.spec.options)
        )


def spec_of(base: ModelSpec, variant: Variant, config: Config) -> ModelSpec:
    """Return the specification of a variant's networks; the architecture resolves the default maps.

    Raises:
        UsageError, PluginError: as `jobs.settled`.
    """
    sides = default_attention(base.height, base.width) if variant.sides is None else variant.sides
    spec = replace(base, attn_at=sides, options=_options(variant, config))
    return settled(config.model.arch, spec, auto=variant.sides is None)


def specs_of(variants: Sequence[Variant], base: ModelSpec, config: Config) -> dict[Variant, ModelSpec]:
    """Return the specifications of all variants, checked by building them on the meta device.

    Raises:
        UsageError: a variant that the architecture cannot build or has no default map for, or equal variants.
        PluginError: the plugin fails.
    """
    arch = config.model.arch
    found: dict[Variant, ModelSpec] = {}
    for variant in variants:
        try:
            spec = spec_of(base, variant, config)
            summarize(arch, spec)
        except UsageError as e:
            raise UsageError(f"--attn {variant.name}: {e}") from e
        if variant.sides is None and not spec.attn_at:
            size = str(base.height) if base.height == base.width else f"{base.height}x{base.width}"
            raise UsageError(
                f"--attn {variant.name}: architecture '{arch}' has no default map for images of {size}; "
                f"write {variant.name}@SIDE, or remove it"
            )
        for other, shape in found.items():
            if shape == spec:
                raise UsageError(f"--attn: {other.name} and {variant.name} are the same variant; remove one of them")
        found[variant] = spec
    return found


def _options(variant: Variant, config: Config) -> dict[str, Any]:
    """Return the options of a variant's networks before the architecture resolves them."""
    return replace(config.model, attention=variant.attention).spec_options()


def steps_done(run: Run) -> int:
    """Return the step of a run's newest checkpoint; 0 without a checkpoint or run."""
    kept = run.checkpoint_steps()
    return int(kept[-1].name) if kept else 0


def check_resumable(resolved: Resolved, path: Path) -> None:
    """Check, before any training, that a run directory is absent or can be resumed with these settings.

    Raises:
        UsageError: it holds something else, a run with other settings, or one with more steps.
        SaganError: its run.json is damaged.
    """
    find_run(resolved, out=path, resume=None, new=False)


def train_trial(
    resolved: Resolved,
    job: Job,
    path: Path,
    runtime: Runtime,
    should_stop: Callable[[], bool],
    warn: Callable[[str], None],
) -> Outcome | None:
    """Train or resume a run; return None and change nothing if it is finished.

    Raises:
        UsageError: as for `check_resumable`.
        SaganError: the dataset has changed since the run began, or training diverged.
    """
    check_resumable(resolved, path)
    chosen = find_run(resolved, out=path, resume=None, new=False)
    before = (chosen.record if chosen else None) or {}
    if before and before.get("data", {}).get("digest") != job.pack.digest:
        raise SaganError(f"{path}: the dataset has changed since this run began; choose another --out")
    steps = resolved.config.train.steps
    if chosen and before.get("status") == "finished" and before.get("step") == steps == steps_done(chosen.run):
        return None
    chosen = chosen or new_run("", path)
    run = chosen.run
    with run.lock():
        record_start(chosen, resolved, machine_facts(job, runtime))
        try:
            outcome = train(job, run, runtime, should_stop, warn=warn)
        except BaseException:
            run.update(status="failed")
            raise
        run.update(status="finished" if outcome.finished else "interrupted", step=outcome.step)
    return outcome


def parameters(arch: str, spec: ModelSpec) -> tuple[int, int]:
    """Return the parameter counts of G and D, from networks on the meta device."""
    g, d = summarize(arch, spec)
    return g.parameters, d.parameters


def seconds_per_step(config: Config, spec: ModelSpec, runtime: Runtime) -> float:
    """Measure the wall time of a training step in seconds, over a few steps on random images."""
    cfg = config.train
    networks, ema = create_networks(config.model.arch, spec, cfg, runtime.device)
    objective = Objective.of(cfg)
    iterate = iteration(networks, objective, runtime, replace(cfg, graph="off"), lambda text: None)
    inputs = StepInputs(objective, cfg, spec, NoiseImages(spec, cfg.batch, runtime), runtime)
    begun = time.perf_counter()
    for step in range(WARMUP_STEPS + TIMED_STEPS):
        statistics = iterate(inputs.at(step))
        ema.update(networks.generator, step)
        statistics["g_loss"].item()  # synchronises with the device
        if step + 1 == WARMUP_STEPS:
            begun = time.perf_counter()
    return (time.perf_counter() - begun) / TIMED_STEPS


class NoiseImages:
    """Uniform noise instead of a dataset, the same at every update."""

    def __init__(self, spec: ModelSpec, batch: int, runtime: Runtime) -> None:
        rng = generator(0, "timing")
        images = torch.rand(batch, spec.channels, spec.height, spec.width, generator=rng).mul(2).sub(1)
        self.images = images.contiguous(memory_format=torch.channels_last).to(runtime.device)
        labels = torch.randint(spec.num_classes, (batch,), generator=rng) if spec.num_classes else None
        self.labels = None if labels is None else labels.to(runtime.device)

    def at(self, update: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return images (N, C, H, W) and labels (N,) or None."""
        return self.images, self.labels
