"""`sagan train`: from flags to a finished run directory."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sagan_cli import console, runs
from sagan_cli.commands.plan import show_plan
from sagan_cli.commands.settings import given, with_settings
from sagan_cli.commands.signals import stop_signals
from sagan_cli.config.presets import PRESETS
from sagan_cli.config.resolve import Resolved, flatten, resolve
from sagan_cli.config.systems import SYSTEMS
from sagan_cli.config.toml import to_toml
from sagan_cli.errors import UsageError
from sagan_cli.plugins import registry
from sagan_cli.resume import create, find, record_start, trainable
from sagan_cli.runs import Run

if TYPE_CHECKING:
    from sagan_cli.data.sources.opening import Opened
    from sagan_cli.engine.jobs import Job
    from sagan_cli.engine.runtime import Runtime
    from sagan_cli.engine.train import Outcome

PRESET_HELP = "Recipe to start from: " + ", ".join(PRESETS) + "; auto is base on a GPU and laptop without."
SYSTEM_HELP = f"Published system to train, at the preset's scale: {', '.join(SYSTEMS)}; 'sagan info --list' tells more."


@with_settings
def train(
    *,
    system: Annotated[str | None, typer.Option(help=SYSTEM_HELP, metavar="NAME", rich_help_panel="Recipe")] = None,
    preset: Annotated[str, typer.Option(help=PRESET_HELP, metavar="NAME", rich_help_panel="Recipe")] = "auto",
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings.", metavar="FILE", rich_help_panel="Recipe")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="section.key=value; repeats.", metavar="KEY=VALUE", rich_help_panel="Recipe"),
    ] = None,
    kimg: Annotated[
        float | None,
        typer.Option(help="Total as thousands of pictures, instead of --steps.", min=0.001, rich_help_panel="Training"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run directory; default runs/NNN-<data>-<arch><size>.", metavar="DIR", rich_help_panel="Run directory"
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with this run, as it was configured.", metavar="RUN", rich_help_panel="Run directory"),
    ] = None,
    new: Annotated[
        bool,
        typer.Option(
            "--new",
            help="Begin a new run even where the same command would resume one.",
            rich_help_panel="Run directory",
        ),
    ] = False,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch a named data set that is not there yet.", rich_help_panel="Data")
    ] = False,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the settings as TOML and stop.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print parameters, memory and plan; write nothing.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only on stderr.")] = False,
    **settings: Any,
) -> None:
    """Train a self-attention GAN on a folder of pictures.

    The same command resumes the run. Values come from flags, then SAGAN_* variables, --config, --system, --preset.

    Examples:

      sagan train

      sagan train --data ./celeba --size 64 --steps 20000
    """
    console.set_quiet(quiet)
    if resume is not None and (out is not None or new or config is not None or preset != "auto" or system is not None):
        own = "--out, --new, --config, --system and --preset"
        raise UsageError(f"--resume names the run and its settings: leave out {own}")
    base = flatten(trainable(runs.open_run(resume))["config"]) if resume is not None else None
    layers: dict[str, Any] = {
        "flags": given(settings),
        "sets": set_ or [],
        "environ": os.environ,
        "file": config,
        "system": system,
        "kimg": kimg,
        "base": base,
    }

    # What can be wrong is said before PyTorch loads, which takes seconds. The automatic presets touch none of it.
    resolved = resolve(**layers, preset=None if preset == "auto" else preset)
    if not print_config:
        from sagan_cli.data.sources.opening import open_data

        registry.find("architectures", resolved.config.model.arch)
        opened = open_data(resolved.config, download=download)
    if preset == "auto" and resume is None:
        resolved = resolve(**layers, preset=preset_for(resolved.config.train.device))
    _require_interval(resolved.config.run.eval_every)
    if print_config:
        console.result(to_toml(resolved).rstrip("\n"))
        return
    resolved = anchored(resolved)
    from sagan_cli.engine.iteration import check_slices
    from sagan_cli.engine.runtime import open_runtime

    cfg = resolved.config.train
    with stop_signals() as stopping, open_runtime(cfg.device, cfg.precision, distributed=True) as runtime:
        console.set_quiet(quiet or not runtime.leads)
        if cfg.batch % runtime.world:
            raise UsageError(f"--batch {cfg.batch}: not a multiple of the {runtime.world} processes")
        check_slices(cfg, runtime)
        if dry_run:
            show_plan(resolved, opened, runtime, json_)
            return
        outcome, run = _run(resolved, opened, runtime, stopping, out=out, resume=resume, new=new)
        if runtime.leads:
            _finish(run, outcome, json_)
    if not outcome.finished:
        # The signal may have reached another process of this run only.
        raise typer.Exit(128 + (stopping[0] if stopping else signal.SIGTERM))


def _run(
    resolved: Resolved,
    opened: Opened,
    runtime: Runtime,
    stopping: list[int],
    *,
    out: Path | None,
    resume: Path | None,
    new: bool,
) -> tuple[Outcome, Run]:
    """Choose the directory, pack the pictures, train; the leading process writes, the others follow."""
    from sagan_cli.engine.jobs import label, machine_facts, open_job
    from sagan_cli.engine.train import train
    from sagan_cli.evaluation.scoring import Room
    from sagan_cli.evaluation.tracking import open_tracker

    chosen = find(resolved, out=out, resume=resume, new=new) if runtime.leads else None
    if not runtime.leads:
        runtime.barrier()  # the first process packs; the others find the pack
    job = open_job(resolved.config, opened, interruptible(stopping), console.note)
    if runtime.leads:
        runtime.barrier()
        # Only now, with pictures that can be trained on, is anything created.
        chosen = chosen or create(label(resolved.config, opened), out)
    run = Run(Path(runtime.tell(str(chosen.run.path) if chosen else None)))
    with run.lock() if runtime.leads else nullcontext():
        if chosen:
            record_start(chosen, resolved, machine_facts(job, runtime))
            _introduce(job, run, chosen.record, runtime)
        tracker = open_tracker(job, Room(runtime, interruptible(stopping), console.note, console.warn))
        try:
            outcome = train(job, run, runtime, lambda: bool(stopping), tracker, console.warn)
        except BaseException:
            if runtime.leads:
                run.update(status="failed")
            raise
        if runtime.leads:
            run.update(status="finished" if outcome.finished else "interrupted", step=outcome.step)
    return outcome, run


def interruptible(stopping: list[int]) -> Callable[[str, int], AbstractContextManager[console.Tick]]:
    """Progress that leaves off when a signal has come: packing has nothing to save."""

    @contextmanager
    def progress(label: str, total: int) -> Iterator[console.Tick]:
        with console.progress(label, total) as tick:

            def told(done: int, total: int | None = None) -> None:
                if stopping:
                    raise typer.Exit(128 + stopping[0])
                tick(done, total)

            yield told

    return progress


def _introduce(job: Job, run: Run, before: dict[str, Any] | None, runtime: Runtime) -> None:
    """What is about to happen, in three lines."""
    from sagan_cli.engine.anatomy import whereabouts

    spec, pack, steps = job.spec, job.pack, job.config.train.steps
    classes = f"{len(pack.class_names)} classes" if pack.class_names else "no classes"
    console.note(f"data   {job.config.data.source}: {len(pack.images)} pictures, {classes}")
    attention = whereabouts(job.config.model.arch, spec)
    console.note(
        f"model  {job.config.model.arch} {spec.height}x{spec.width}x{spec.channels}, width {spec.base_width}, "
        f"attention at {attention}; {runtime.device}, {runtime.precision}"
    )
    done = before.get("step", 0) if before else 0
    console.note(f"run    {run.path}: " + (f"resumed, {steps} steps in all" if before else f"new, {steps} steps"))
    if before and before.get("data", {}).get("digest") != pack.digest:
        console.warn("the pictures have changed since this run began; --new begins another run")
    if before and done >= steps:
        console.note(f"this run has its {steps} steps; --steps N goes on, --new begins another run")


def _finish(run: Run, outcome: Outcome, json_: bool) -> None:
    if json_:
        console.emit_json({
            "run": str(run.path), "step": outcome.step, "finished": outcome.finished,
            "checkpoint": str(outcome.checkpoint), "grid": str(outcome.grid),
        })  # fmt: skip
    else:
        console.result(str(run.path))
    if outcome.finished:
        console.note(f"next: sagan sample {run.path} -n 64 --out grid.png")
    else:
        console.note(f"saved at step {outcome.step}; the same command goes on")


def anchored(resolved: Resolved) -> Resolved:
    """A path to pictures made absolute, so that the run can go on from any directory; names stay names."""
    data = resolved.config.data
    if data.source in registry.names("datasets"):
        return resolved
    anchored = replace(data, source=str(Path(data.source).expanduser().absolute()))
    return replace(resolved, config=replace(resolved.config, data=anchored))


def _require_interval(text: str) -> None:
    """Refuse an --eval-every that says nothing."""
    if text not in ("off", "auto") and not (text.isdigit() and int(text) > 0):
        raise UsageError(f"--eval-every {text}: a number of steps, auto or off")


def preset_for(device: str) -> str:
    """base on an accelerator, laptop on a CPU."""
    from sagan_cli.engine.runtime import pick_device

    return "laptop" if pick_device(device).type == "cpu" else "base"
