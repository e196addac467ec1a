"""The training loop. Steps are generator updates; every number is a function of (seed, step)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from sagan_cli.contracts import ModelSpec, RunInfo
from sagan_cli.data.batches import Batches
from sagan_cli.engine import checkpoint
from sagan_cli.engine.activation_checkpointing import recompute_blocks
from sagan_cli.engine.initial_weights import InitialWeights
from sagan_cli.engine.iteration import check_slices, iteration
from sagan_cli.engine.job import Job
from sagan_cli.engine.networks import Schedules, attention_gammas, create, diverged, gradient_norms
from sagan_cli.engine.runtime import Runtime, peak_memory_mib
from sagan_cli.engine.sample import Request, encode, grid, pictures
from sagan_cli.engine.sample_checks import SampleChecks
from sagan_cli.engine.step_inputs import Statistics, StepInputs
from sagan_cli.errors import DataError, SaganError
from sagan_cli.files import write_atomic
from sagan_cli.loggers import Events, open_events
from sagan_cli.objectives.objective import Objective
from sagan_cli.runs import Run

SETTLE_IMAGES = 1024
"""Images over which the EMA's batch statistics are measured before it is used."""


@dataclass(frozen=True)
class Outcome:
    """The end of a call of `train`."""

    step: int
    finished: bool
    checkpoint: Path
    grid: Path


class Scorer(Protocol):
    """What the loop needs of the scores while training; `evaluation.tracking` has the implementation."""

    def prepare(self, network: torch.nn.Module, spec: ModelSpec) -> None:
        """Do what is needed once, before the first step."""

    def due(self, step: int, saving: bool) -> bool:
        """Return whether this step is scored; the same on all processes."""

    def score(self, network: torch.nn.Module, spec: ModelSpec) -> dict[str, Any] | None:
        """Return the scores; `decides` names the one that chooses the best checkpoint. None unless leading."""

    def improves(self, found: dict[str, Any], best: dict[str, Any] | None) -> bool:
        """Return whether these scores are the best so far."""


def train(
    job: Job,
    run: Run,
    runtime: Runtime,
    should_stop: Callable[[], bool],
    scorer: Scorer | None = None,
    warn: Callable[[str], None] = lambda text: None,
    initial: InitialWeights | None = None,
) -> Outcome:
    """Train from the run's newest checkpoint, or from the start, up to `train.steps`.

    Args:
        should_stop: called once a step; if it returns True on any process, all save and end after that step.
        scorer: scores the EMA generator now and then; run.json records the best step, whose checkpoint is kept.
        initial: trained weights to start from; not used if the run has a checkpoint.
        warn: called with one line if a CUDA graph or a plugin's logger is given up.

    Raises:
        UsageError: unequal slices, or an unknown name in the objective.
        SaganError: a loss is not a finite number; the last checkpoint remains.
        CheckpointError: a damaged checkpoint, or one that does not fit.
    """
    info = RunInfo(run.path, asdict(job.config), job.config.train.steps)
    events = open_events(job.config.run.logger, info, warn, leads=runtime.leads)
    outcome = None
    try:
        outcome = _train(job, run, runtime, events, should_stop, scorer, warn, initial)
    finally:
        events.send("end", outcome.step if outcome else -1, bool(outcome and outcome.finished))
    return outcome


def _train(
    job: Job,
    run: Run,
    runtime: Runtime,
    events: Events,
    should_stop: Callable[[], bool],
    scorer: Scorer | None,
    warn: Callable[[str], None],
    initial: InitialWeights | None,
) -> Outcome:
    cfg, spec, every = job.config.train, job.spec, job.config.run
    check_slices(cfg, runtime)

    # Networks, optimisers and EMA, from the seed.
    networks, ema = create(job.config.model.arch, spec, cfg, runtime.device)
    if cfg.checkpointing:
        for network in (networks.generator, networks.discriminator):
            recompute_blocks(network, job.config.model.arch)
    objective, schedules = Objective.of(cfg), Schedules(cfg)
    iterate = iteration(networks, objective, runtime, cfg, warn)

    # State: the newest checkpoint, or the start: trained weights, or those of the seed.
    step = 0
    kept = run.checkpoint_steps()
    if kept:
        facts = checkpoint.read_facts(kept[-1])
        checkpoint.require_own(facts, run.read().get("id"), cfg.seed)
        if facts.class_names != job.pack.class_names:
            had, have = (", ".join(names) or "none" for names in (facts.class_names, job.pack.class_names))
            raise DataError(f"{run.path}: was begun with the classes {had}, and the images now have {have}: use --new")
        step = checkpoint.restore(facts, networks, ema)
    elif initial is not None:
        initial.load(networks, ema)
    events.send("start", step)

    # Inputs: functions of the step.
    batches = Batches(
        job.pack, batch=cfg.batch, seed=cfg.seed, flip=job.config.data.flip, device=runtime.device,
        rank=runtime.rank, world=runtime.world, chosen=job.training,
    )  # fmt: skip
    inputs = StepInputs(objective, cfg, spec, batches, runtime)
    if scorer is not None:
        scorer.prepare(ema.module, spec)

    # Loop. Logging, grids, checkpoints and scores come before the step, so that periodic, interrupted and final ones
    # take one path.
    start, begun, logged = step, time.monotonic(), (step, time.monotonic())
    latest: dict[str, float] = {}
    scored = ""
    statistics: Statistics = {}
    checks: SampleChecks | None = None
    checked: dict[str, float] = {}
    while True:
        done = step >= cfg.steps or runtime.any_of(should_stop())
        saving = done or (step > start and step % every.save_every == 0)
        scoring = scorer is not None and step > start and scorer.due(step, saving=saving)
        saving = saving or scoring
        logging = step > start and (done or step % every.log_every == 0)

        # Statistics of the last step.
        if logging or (saving and step > start):
            names = list(statistics)
            values = dict(zip(names, runtime.mean(torch.stack([statistics[n] for n in names])).tolist(), strict=True))
            if not all(math.isfinite(v) for v in values.values()):
                raise SaganError(
                    f"{_diverged(values, step)}; the last checkpoint is {_last(run)}: lower --d-lr and --g-lr"
                )
            if saving and (bad := diverged(networks, ema)):
                raise SaganError(
                    f"training diverged at step {step}: weights of the {bad} are not finite; the last checkpoint "
                    f"is {_last(run)}: lower --d-lr and --g-lr"
                )
            latest = {
                **values, **gradient_norms(networks), **attention_gammas(networks),
                **{k: v for k, v in latest.items() if k == scored},
            }  # fmt: skip

        # The EMA's norms and batch statistics, on all processes, before it is used.
        grid_due = done or step % every.grid_every == 0
        if saving or grid_due:
            ema.settle(networks.generator, (inputs.latents("settle", i) for i in range(-(-SETTLE_IMAGES // cfg.batch))))

        # Sample grid of the fixed latents.
        if runtime.leads and grid_due:
            samples, labels = fixed_samples(ema.module, spec, runtime)
            write_atomic(_grid_path(run, step), encode(grid(samples, columns=8), "png"))
            events.send("grid", step, _grid_path(run, step))
            checks = checks or SampleChecks(job.pack, job.training)
            checked = checks.measure(samples, labels)

        if logging:
            now = time.monotonic()
            events.send("statistics", step, {
                "kimg": step * cfg.batch / 1000, **latest, **checked,
                "images_per_second": (step - logged[0]) * cfg.batch / (now - logged[1]),
                "memory_mib": peak_memory_mib(runtime.device),
            })  # fmt: skip
            logged, checked = (step, now), {}

        # Checkpoint.
        if runtime.leads and saving:
            path = checkpoint.save(run.checkpoints, step, networks, ema, _about(job, run))
            events.send("checkpoint", step, path)

        # Score of the EMA as it was just saved.
        if scorer is not None and scoring:
            found = scorer.score(ema.module, spec)
            if found is not None:
                events.send("score", step, found)
                if scorer.improves(found, _best(run) or None):
                    run.update(best={"step": step, **found})
                latest = {**latest, found["decides"]: found[found["decides"]]}
                scored = found["decides"]
        if runtime.leads and saving:
            checkpoint.prune(run.checkpoints, every.keep, spare=_spared(run))
        if done:
            break

        # The discriminator's updates, then the generator's; then the EMA.
        schedules.apply(networks, ema, step)
        statistics = iterate(inputs.at(step))
        ema.update(networks.generator, step)
        step += 1
        rate = (step - start) * cfg.batch / (time.monotonic() - begun)
        events.send("step", step, rate, (cfg.steps - step) * cfg.batch / rate, latest)

    runtime.barrier()
    return Outcome(step, step >= cfg.steps, run.checkpoints / f"{step:08d}", _grid_path(run, step))


def fixed_samples(
    network: torch.nn.Module, spec: ModelSpec, runtime: Runtime
) -> tuple[NDArray[np.uint8], list[int] | None]:
    """Return images of seeds 0, 1, ...: 64, or 8 of each of the first 16 classes; and their classes, if any."""
    labels = None
    requests = [Request(seed) for seed in range(64)]
    if spec.num_classes:
        labels = [label for label in range(min(spec.num_classes, 16)) for _ in range(8)]
        requests = [Request(i % 8, label) for i, label in enumerate(labels)]
    return np.concatenate([drawn for drawn, _ in pictures(network, spec, requests, runtime)]), labels


def _about(job: Job, run: Run) -> dict[str, Any]:
    pack = job.pack
    return {
        "run": {"id": run.read().get("id"), "seed": job.config.train.seed},
        "arch": job.config.model.arch,
        "arch_package": job.arch_package,
        "spec": job.spec,
        "class_names": list(pack.class_names),
        "data": {
            "source": job.config.data.data,
            "digest": pack.digest,
            "count": len(pack.images),
            "held_out": len(job.held_out),
        },
    }


def _grid_path(run: Run, step: int) -> Path:
    return run.samples / f"step-{step:08d}.png"


def _best(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = run.read().get("best") or {}
    return found


def _spared(run: Run) -> set[int]:
    """Return the steps of the best checkpoint, and of the one that the diagnosis keeps."""
    record = run.read()
    return {int(record[name]["step"]) for name in ("best", "kept") if record.get(name)}


def _last(run: Run) -> Path | str:
    kept = run.checkpoint_steps()
    return kept[-1] if kept else "none"


def _diverged(losses: dict[str, float], step: int) -> str:
    bad = ", ".join(f"{k} is {v}" for k, v in losses.items() if not math.isfinite(v))
    return f"training diverged at step {step}: {bad}"
