"""Twins: runs that differ in what stands where attention could, and in nothing else; trained, timed, counted.

Order of the pictures and latents are functions of (seed, step), so twins of one seed see the same of both.
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

WARM, MEASURED = 2, 4
"""Steps that are taken before the clock starts, and steps that it times."""


@dataclass(frozen=True)
class Twin:
    """One variant with one seed."""

    variant: Variant
    seed: int
    spec: ModelSpec
    """The shape of its networks, as far as the settings tell; classes and channels are the pictures'."""

    def folder(self, parent: Path) -> Path:
        """Its run directory: `attn-16-seed0`."""
        return parent / f"attn-{self.variant.name}-seed{self.seed}"

    def resolved(self, base: Resolved) -> Resolved:
        """The settings of its run: those of all twins, and its own three."""
        arch, where = base.config.model.arch, ",".join(map(str, self.spec.attn_at)) or "none"
        if self.variant.sides is None:
            # Where the architecture's own place is more than a list of sides, only `auto` says it.
            said = replace(self.spec, options=_asked(self.variant, base.config))
            where = where if settled(arch, said, auto=False) == self.spec else AUTO
        model = replace(base.config.model, attn_at=where, attention=self.variant.attention)
        config = replace(base.config, model=model, train=replace(base.config.train, seed=self.seed))
        own = ("model.attn_at", "model.attention", "train.seed")
        return Resolved(config, base.sources | dict.fromkeys(own, "sagan ablate"))

    def job(self, base: Job, config: Config) -> Job:
        """The same pictures for its own networks."""
        return replace(
            base, config=config, spec=replace(base.spec, attn_at=self.spec.attn_at, options=self.spec.options)
        )


def spec_of(base: ModelSpec, variant: Variant, config: Config) -> ModelSpec:
    """The shape of a variant's networks, its place settled by the architecture.

    Raises:
        UsageError, PluginError: as `jobs.settled`.
    """
    sides = default_attention(base.height, base.width) if variant.sides is None else variant.sides
    spec = replace(base, attn_at=sides, options=_asked(variant, config))
    return settled(config.model.arch, spec, auto=variant.sides is None)


def specs_of(variants: Sequence[Variant], base: ModelSpec, config: Config) -> dict[Variant, ModelSpec]:
    """The shape of each, which the architecture has agreed to build.

    Raises:
        UsageError: in one line, the first variant that it refuses or has no place for, or two names for one twin.
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
                f"--attn {variant.name}: architecture '{arch}' has no default place in pictures of {size}; "
                f"write {variant.name}@SIDE, or leave it out"
            )
        for other, shape in found.items():
            if shape == spec:
                raise UsageError(f"--attn: {other.name} and {variant.name} are the same twin; leave one of them out")
        found[variant] = spec
    return found


def _asked(variant: Variant, config: Config) -> dict[str, Any]:
    """The options of a variant's networks, as they are said."""
    return replace(config.model, attention=variant.attention).spec_options()


def steps_done(run: Run) -> int:
    """The step of a run's newest checkpoint; 0 where there is none, or no run."""
    kept = run.checkpoint_steps()
    return int(kept[-1].name) if kept else 0


def require_goes_on(resolved: Resolved, path: Path) -> None:
    """Refuse a directory in which this twin cannot begin or go on, before anything is trained.

    Raises:
        UsageError: it holds something else, a run with other settings, or one that has gone further.
        SaganError: its run.json is damaged.
    """
    if find_run(resolved, out=path, resume=None, new=False) is None:
        return
    done, steps = steps_done(Run(path)), resolved.config.train.steps
    if done > steps:
        raise UsageError(f"{path} has {done} steps already: give --steps {done} or more, or another --out")


def train_twin(
    resolved: Resolved,
    job: Job,
    path: Path,
    runtime: Runtime,
    should_stop: Callable[[], bool],
    warn: Callable[[str], None],
) -> Outcome | None:
    """Begin or go on with a twin's run; None, and nothing touched, where it is finished.

    Raises:
        UsageError: as for `require_goes_on`.
        SaganError: the pictures are no longer those that it began with, or training diverged.
    """
    require_goes_on(resolved, path)
    chosen = find_run(resolved, out=path, resume=None, new=False)
    before = (chosen.record if chosen else None) or {}
    if before and before.get("data", {}).get("digest") != job.pack.digest:
        raise SaganError(f"{path}: the pictures have changed since this run began; choose another --out")
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
    """Trained numbers of G and D, counted on networks that take no memory."""
    g, d = summarize(arch, spec)
    return g.parameters, d.parameters


def seconds_per_step(config: Config, spec: ModelSpec, runtime: Runtime) -> float:
    """Measure the wall time of a training step on random images: a few steps, nothing written."""
    cfg = config.train
    networks, ema = create_networks(config.model.arch, spec, cfg, runtime.device)
    objective = Objective.of(cfg)
    iterate = iteration(networks, objective, runtime, replace(cfg, graph="off"), lambda text: None)
    inputs = StepInputs(objective, cfg, spec, RandomImages(spec, cfg.batch, runtime), runtime)
    begun = time.perf_counter()
    for step in range(WARM + MEASURED):
        statistics = iterate(inputs.at(step))
        ema.update(networks.generator, step)
        statistics["g_loss"].item()  # waits for the device
        if step + 1 == WARM:
            begun = time.perf_counter()
    return (time.perf_counter() - begun) / MEASURED


class RandomImages:
    """Uniform noise in place of a dataset, the same at every update."""

    def __init__(self, spec: ModelSpec, batch: int, runtime: Runtime) -> None:
        rng = generator(0, "timing")
        images = torch.rand(batch, spec.channels, spec.height, spec.width, generator=rng).mul(2).sub(1)
        self.images = images.contiguous(memory_format=torch.channels_last).to(runtime.device)
        labels = torch.randint(spec.num_classes, (batch,), generator=rng) if spec.num_classes else None
        self.labels = None if labels is None else labels.to(runtime.device)

    def at(self, update: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return images (N, C, H, W) and labels (N,) or None."""
        return self.images, self.labels
