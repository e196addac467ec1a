"""Run a training session: choose the run directory, pack the images, train, and record how it went.

`sagan train` and `sagan_cli.train` both call `run_training`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from sagan_cli.config.resolve import Resolved
from sagan_cli.data.sources.opening import Opened
from sagan_cli.engine.anatomy import whereabouts
from sagan_cli.engine.iteration import check_slices
from sagan_cli.engine.jobs import Job, Progress, label, machine_facts, open_job
from sagan_cli.engine.runtime import Runtime
from sagan_cli.engine.train import Outcome, train
from sagan_cli.errors import UsageError
from sagan_cli.evaluation.scoring import Context
from sagan_cli.evaluation.tracking import open_tracker
from sagan_cli.runs import Chosen, Run, find_run, new_run, record_start


def check_batch(resolved: Resolved, runtime: Runtime) -> None:
    """Refuse a batch that cannot be divided.

    Raises:
        UsageError: naming `--batch` or `--accumulate`.
    """
    cfg = resolved.config.train
    if cfg.batch % runtime.world:
        raise UsageError(f"--batch {cfg.batch}: not a multiple of the {runtime.world} processes")
    check_slices(cfg, runtime)


def run_training(
    resolved: Resolved,
    opened: Opened,
    runtime: Runtime,
    *,
    progress: Progress,
    notify: Callable[[str], None],
    warn: Callable[[str], None],
    should_stop: Callable[[], bool] = lambda: False,
    out: Path | None = None,
    resume: Path | None = None,
    new: bool = False,
) -> tuple[Outcome, Run]:
    """Train in a new run directory or the one to resume; the leading process writes, the others follow.

    Args:
        progress: (label, total) -> context manager of a tick, for packing and scoring.
        notify: receives lines about what happens; `warn` likewise.
        should_stop: called once a step; True saves and ends training after it.
        out: the run directory; otherwise the next number under `runs/`.
        resume: a run to continue; `new` begins another one even if the same settings would resume one.

    Raises:
        UsageError, DataError, SaganError: with one line that names the flag or file.
    """
    chosen = find_run(resolved, out=out, resume=resume, new=new) if runtime.leads else None
    if not runtime.leads:
        runtime.barrier()  # the first process packs; the others find the pack
    job = open_job(resolved.config, opened, progress, notify)
    if runtime.leads:
        runtime.barrier()
        # Only now, with images that can be trained on, is anything created.
        chosen = chosen or new_run(label(resolved.config, opened), out)
    run = Run(Path(runtime.tell(str(chosen.run.path) if chosen else None)))
    with run.lock() if runtime.leads else nullcontext():
        if chosen:
            record_start(chosen, resolved, machine_facts(job, runtime))
            _introduce(job, chosen, runtime, notify, warn)
        tracker = open_tracker(job, Context(runtime, progress, notify, warn))
        try:
            outcome = train(job, run, runtime, should_stop, tracker, warn)
        except BaseException:
            if runtime.leads:
                run.update(status="failed")
            raise
        if runtime.leads:
            run.update(status="finished" if outcome.finished else "interrupted", step=outcome.step)
    return outcome, run


def _introduce(
    job: Job, chosen: Chosen, runtime: Runtime, notify: Callable[[str], None], warn: Callable[[str], None]
) -> None:
    """Three lines about what is trained."""
    spec, pack, steps, before = job.spec, job.pack, job.config.train.steps, chosen.record
    classes = f"{len(pack.class_names)} classes" if pack.class_names else "no classes"
    notify(f"data   {job.config.data.source}: {len(pack.images)} pictures, {classes}")
    notify(
        f"model  {job.config.model.arch} {spec.height}x{spec.width}x{spec.channels}, width {spec.base_width}, "
        f"attention at {whereabouts(job.config.model.arch, spec)}; {runtime.device}, {runtime.precision}"
    )
    path = chosen.run.path
    notify(f"run    {path}: " + (f"resumed, {steps} steps in all" if before else f"new, {steps} steps"))
    if before and before.get("data", {}).get("digest") != pack.digest:
        warn("the pictures have changed since this run began; --new begins another run")
    if before and before.get("step", 0) >= steps:
        notify(f"this run has its {steps} steps; --steps N goes on, --new begins another run")
