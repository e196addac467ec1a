"""The training loop, top to bottom, counted in generator updates; every number is a function of (seed, step)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from sagan_cli.contracts import ModelSpec
from sagan_cli.data.batches import Batches
from sagan_cli.engine import checkpoint, networks
from sagan_cli.engine.iteration import Inputs, check_slices, iteration
from sagan_cli.engine.jobs import Job
from sagan_cli.engine.pictures import encode, grid
from sagan_cli.engine.recompute import recompute_blocks
from sagan_cli.engine.runtime import Runtime, peak_memory_mib
from sagan_cli.engine.sample import Request, pictures
from sagan_cli.engine.step import set_rates
from sagan_cli.errors import SaganError
from sagan_cli.evaluation.tracking import Tracker, better
from sagan_cli.files import write_atomic
from sagan_cli.ops.randomness import generator, latents_and_labels
from sagan_cli.ops.transfer import sent
from sagan_cli.runs import Run

SETTLE_PICTURES = 1024
"""Pictures over which the moving average's batch statistics are measured before it is used."""


class Report(Protocol):
    """Where the loop's news goes; the engine itself never prints."""

    def update(
        self, step: int, total: int, images_per_second: float, eta_seconds: float, values: dict[str, float]
    ) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended."""

    step: int
    finished: bool
    checkpoint: Path
    grid: Path


def train(
    job: Job,
    run: Run,
    runtime: Runtime,
    report: Report,
    should_stop: Callable[[], bool],
    tracker: Tracker | None = None,
    warn: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Train from the run's newest checkpoint, or from the start, up to config.train.steps.

    Args:
        should_stop: asked once a step; a yes on any process ends all of them after that step, saved.
        tracker: scores the moving average now and then; run.json remembers the best step, whose checkpoint is kept.
        warn: told in one line that a CUDA graph was tried and given up.

    Raises:
        UsageError: slices that are not equal, or a way to compute that this machine or architecture does not have.
        SaganError: a loss that is no longer a number; the last good checkpoint stays.
        CheckpointError: a checkpoint that is damaged or does not fit.
    """
    cfg, spec = job.config.train, job.spec
    share = cfg.batch // runtime.world
    check_slices(cfg, runtime)

    # Networks, optimisers and moving average, from the seed.
    players, ema = networks.create(job.config.model.arch, spec, cfg, runtime.device)
    if cfg.checkpointing:
        for network in (players.generator, players.discriminator):
            recompute_blocks(network, job.config.model.arch)
    iterate = iteration(players, runtime, cfg, warn)

    # State: the newest checkpoint, or the start.
    step = 0
    kept = run.checkpoint_steps()
    if kept:
        step = checkpoint.restore(checkpoint.read_facts(kept[-1]), players, ema)
    if runtime.leads:
        run.rewind_metrics(step)

    # Data and latents: functions of the update's number.
    batches = Batches(
        job.pack, batch=cfg.batch, seed=cfg.seed, flip=job.config.data.flip, device=runtime.device,
        rank=runtime.rank, world=runtime.world,
    )  # fmt: skip

    mine = slice(runtime.rank * share, (runtime.rank + 1) * share)

    def noise(purpose: str, update: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        z, y = latents_and_labels(generator(cfg.seed, purpose, update), cfg.batch, spec.latent, spec.num_classes)
        return sent(z[mine], runtime.device), None if y is None else sent(y[mine], runtime.device)

    if tracker is not None:
        tracker.prepare(ema.module, spec)

    def mixture(update: int) -> torch.Tensor:
        shares = torch.rand(cfg.batch, generator=generator(cfg.seed, "mixture", update))
        return sent(shares[mine], runtime.device)

    # Loop. Upkeep stands before the step, so that periodic, interrupted and final saves take one path.
    start, begun, logged = step, time.monotonic(), (step, time.monotonic())
    latest: dict[str, float] = {}
    losses_now = torch.zeros(4)
    while True:
        stopping = runtime.any_of(should_stop())
        done = step >= cfg.steps or stopping
        due = done or (step > start and step % job.config.run.save_every == 0)
        scoring = tracker is not None and step > start and tracker.due(step, saving=due)
        due = due or scoring

        # Status.
        if step > start and (due or step % job.config.run.log_every == 0):
            numbers = runtime.mean(losses_now.clone()).tolist()
            losses = dict(zip(("d_loss", "g_loss", "d_real", "d_fake"), numbers, strict=True))
            if not all(math.isfinite(v) for v in losses.values()):
                raise SaganError(
                    f"{_diverged(losses, step)}; the last checkpoint is {_last(run)}: lower --d-lr and --g-lr"
                )
            kept_scores = {k: v for k, v in latest.items() if k == "fid"}
            latest = {**losses, **networks.attention_gammas(players), **kept_scores}
            if runtime.leads and (done or step % job.config.run.log_every == 0):
                now = time.monotonic()
                run.append_metrics({
                    "step": step, "kimg": step * cfg.batch / 1000, **latest,
                    "images_per_second": (step - logged[0]) * cfg.batch / (now - logged[1]),
                    "memory_mib": peak_memory_mib(runtime.device),
                    "time": datetime.now(UTC).isoformat(timespec="seconds"),
                })  # fmt: skip
                logged = (step, now)

        # Ready the moving average, on all processes, wherever it is about to be used.
        grid_due = done or step % job.config.run.grid_every == 0
        if due or grid_due:
            ema.settle(players.generator, (noise("settle", i) for i in range(-(-SETTLE_PICTURES // cfg.batch))))

        # Sample grid of the fixed latents.
        if runtime.leads and grid_due:
            write_atomic(_grid_path(run, step), draw_grid(ema.module, spec, runtime))

        # Checkpoint.
        if runtime.leads and due:
            checkpoint.save(run.checkpoints, step, players, ema, _about(job))

        # Score, of the moving average as it was just saved.
        if tracker is not None and scoring:
            found = tracker.score(ema.module, spec)
            if found is not None:
                run.append_metrics({"kind": "score", "step": step, **found})
                if better(found, _best(run) or None):
                    run.update(best={"step": step, **found})
                latest = {**latest, "fid": found["fid"]}
        if runtime.leads and due:
            checkpoint.prune(run.checkpoints, job.config.run.keep, spare=_best(run).get("step"))
        if done:
            break

        # The discriminator's updates, then the generator's.
        set_rates(players, cfg, step)
        updates = range(step * cfg.d_steps, (step + 1) * cfg.d_steps)
        rounds = tuple((batches.at(update), noise("d", update), mixture(update)) for update in updates)
        losses_now = iterate(Inputs(rounds, noise("g", step)))

        # Moving average and counters.
        ema.update(players.generator, step)
        step += 1
        rate = (step - start) * cfg.batch / (time.monotonic() - begun)
        report.update(step, cfg.steps, rate, (cfg.steps - step) * cfg.batch / rate, latest)

    runtime.barrier()
    return Outcome(step, step >= cfg.steps, run.checkpoints / f"{step:08d}", _grid_path(run, step))


def draw_grid(network: torch.nn.Module, spec: ModelSpec, runtime: Runtime) -> bytes:
    """A PNG of seeds 0, 1, ...: 8x8, or for a conditional model a row of 8 for each of its first 16 classes."""
    if spec.num_classes:
        requests = [Request(seed, label) for label in range(min(spec.num_classes, 16)) for seed in range(8)]
    else:
        requests = [Request(seed) for seed in range(64)]
    drawn = np.concatenate([p for p, _ in pictures(network, spec, requests, runtime)])
    return encode(grid(drawn, columns=8), "png")


def _about(job: Job) -> dict[str, Any]:
    pack = job.pack
    return {
        "arch": job.config.model.arch,
        "arch_package": job.arch_package,
        "spec": job.spec,
        "class_names": list(pack.class_names),
        "data": {"source": job.config.data.source, "digest": pack.digest, "count": len(pack.images)},
    }


def _grid_path(run: Run, step: int) -> Path:
    return run.samples / f"step-{step:08d}.png"


def _best(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = run.read().get("best") or {}
    return found


def _last(run: Run) -> Path | str:
    kept = run.checkpoint_steps()
    return kept[-1] if kept else "none"


def _diverged(losses: dict[str, float], step: int) -> str:
    bad = ", ".join(f"{k} is {v}" for k, v in losses.items() if not math.isfinite(v))
    return f"training diverged at step {step}: {bad}"
