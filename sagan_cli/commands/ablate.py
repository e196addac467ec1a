"""`sagan ablate`: train and measure runs that differ only in attention, and compare them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sagan_cli import console
from sagan_cli.ablation.plan import print_plan
from sagan_cli.ablation.report import NO_BASELINE, table, write_report
from sagan_cli.ablation.variants import parse_variants, require_maps
from sagan_cli.api import preset_for, with_absolute_paths, with_recipe
from sagan_cli.commands.options import Json, Quiet
from sagan_cli.commands.train import PRESET_HELP, SYSTEM_HELP, interruptible, stop_signals
from sagan_cli.config.resolve import Resolved, resolve
from sagan_cli.config.schema import SETTINGS, effective
from sagan_cli.config.systems import PREFIX
from sagan_cli.errors import UsageError
from sagan_cli.plugins import registry
from sagan_cli.runs import RUNS, Run

if TYPE_CHECKING:
    from sagan_cli.ablation.measures import MeasureOptions
    from sagan_cli.ablation.trials import Trial
    from sagan_cli.data.sources.opening import Opened
    from sagan_cli.engine.job import Job
    from sagan_cli.engine.runtime import Runtime

OWN = ("model.attn_at", "model.attention")
"""Settings that `--attn` determines."""
NO_EXTRACTOR = "none"


def _flag(key: str, text: str | None = None) -> Any:
    s = SETTINGS[key]
    return typer.Option(f"--{s.flag}", help=text or s.help, metavar=s.metavar, rich_help_panel="As for sagan train")


def ablate(
    attn: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Variants: none; a feature map, as in 16; several, as in 8+16; residual, a control with as many "
            "weights; KIND@SIDE, as in paper@16; KIND alone, at the default map; auto, the architecture's default.",
        ),
    ] = "none,residual,auto",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds per variant, from train.seed (0).")] = 3,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of each run; default: the preset's.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: runs/ablation-<data>-<arch><size>.")] = None,
    n: Annotated[int, typer.Option("-n", "--count", min=2, help="Generated images per run.")] = 510,
    extractor: Annotated[
        str, typer.Option(metavar="NAME", help="For FID, as in eval-fid; none omits FID.")
    ] = "classifier",
    system: Annotated[
        str | None, typer.Option(help=SYSTEM_HELP, metavar="NAME", rich_help_panel="As for sagan train")
    ] = None,
    arch: Annotated[str | None, _flag("model.arch")] = None,
    data: Annotated[str | None, _flag("data.data")] = None,
    size: Annotated[str | None, _flag("data.size")] = None,
    width: Annotated[int | None, _flag("model.width")] = None,
    batch: Annotated[int | None, _flag("train.batch")] = None,
    device: Annotated[str | None, _flag("train.device")] = None,
    preset: Annotated[
        str, typer.Option(help=PRESET_HELP, metavar="NAME", rich_help_panel="As for sagan train")
    ] = "auto",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="section.key=value; repeats.", metavar="KEY=VALUE", rich_help_panel="As for sagan train"
        ),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print runs, parameters and time; train nothing.")] = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find out whether attention improves a model.

    Trains and measures runs with and without it, and tests whether the difference is significant over the seeds.

    The same command resumes an interrupted ablation. Writes ablation.json, ablation.md and ablation.png.

    Examples:

      sagan ablate --attn none,residual,8,16 --seeds 3 --steps 2000

      sagan ablate --data ./animals --size 64 --attn none,32,paper@32 --plan

      sagan ablate --system port --size 64 --attn none,residual,auto
    """
    console.set_quiet(quiet)
    flags = {
        "train.steps": steps, "data.data": data, "data.size": size, "model.width": width, "train.batch": batch,
        "train.device": device, "model.arch": arch,
    }  # fmt: skip
    layers: dict[str, Any] = {
        "flags": {key: value for key, value in flags.items() if value is not None},
        "sets": set_ or [], "environ": os.environ, "file": None, "system": system,
    }  # fmt: skip
    resolved = _common(resolve(**layers, preset=None if preset == "auto" else preset))
    variants = parse_variants(attn, resolved.config.model.attention)
    from sagan_cli.data.sources.opening import open_data

    registry.find("architectures", resolved.config.model.arch)
    opened = open_data(resolved.config)
    require_maps(variants, opened.form.height, opened.form.width)
    if preset == "auto":
        resolved = _common(resolve(**layers, preset=preset_for(resolved.config.train.device)))
    resolved, reasons = with_recipe(with_absolute_paths(resolved), opened, console.progress)
    if out is not None and (out / "run.json").exists():
        raise UsageError(f"--out {out}: is a single run; name a directory for all runs")

    from sagan_cli.ablation.trials import Trial, check_resumable, specs_of
    from sagan_cli.engine.job import label, preview_spec
    from sagan_cli.engine.runtime import open_runtime
    from sagan_cli.evaluation.extractors.opening import NAMES

    if extractor not in (NO_EXTRACTOR, *NAMES):
        raise UsageError(f"--extractor {extractor}: choose {NO_EXTRACTOR}, {', '.join(NAMES)}")
    name = "-".join(filter(None, ("ablation", label(resolved.config, opened), system)))
    folder = out or RUNS / name
    specs = specs_of(variants, preview_spec(resolved.config, opened), resolved.config)
    # Seed by seed, so that an interrupted ablation has complete pairs.
    first = resolved.config.train.seed
    trials = [Trial(variant, seed, specs[variant]) for seed in range(first, first + seeds) for variant in variants]
    for trial in trials:
        check_resumable(trial.resolved(resolved), trial.folder(folder))
    for line in reasons:
        console.note(line)
    cfg = resolved.config.train
    with stop_signals() as stopping, open_runtime(cfg.device, cfg.precision) as runtime:
        if plan:
            print_plan(resolved, trials, folder, runtime, json_)
            return
        result = _run(resolved, opened, trials, folder, runtime, stopping, n, extractor)
    for verdict in result["verdicts"]:
        console.note(verdict["sentence"])
    if not result["verdicts"]:
        console.note(f"no verdict: {NO_BASELINE}")
    if json_:
        console.emit_json(result)
    else:
        console.result(table(result["variants"]))
    console.note(f"written: {folder}/ablation.md, ablation.json, ablation.png")


def _common(resolved: Resolved) -> Resolved:
    """Return the settings of all runs: no attention, and the block of the preset, system or architecture.

    Raises:
        UsageError: the user set a setting that `--attn` determines.
    """
    for key in OWN:
        source = resolved.sources[key]
        if source != "default" and not source.startswith(("preset", PREFIX)):
            raise UsageError(f"{source} {key}: is set by --attn here; write KIND@SIDE, as in paper@16")
    own = effective({key: resolved.config.get(key) for key in ("model.arch", "model.attention")})["model.attention"]
    model = replace(resolved.config.model, attn_at="none", attention=own)
    return replace(resolved, config=replace(resolved.config, model=model))


def _run(
    resolved: Resolved,
    opened: Opened,
    trials: list[Trial],
    folder: Path,
    runtime: Runtime,
    stopping: list[int],
    n: int,
    extractor: str,
) -> dict[str, Any]:
    """Train and measure all runs that are not finished; write the report after each seed."""
    from sagan_cli.ablation.measures import MeasureOptions
    from sagan_cli.ablation.trials import train_trial
    from sagan_cli.engine.job import open_job
    from sagan_cli.evaluation.computation import Context

    progress = interruptible(stopping)
    shared = open_job(resolved.config, opened, progress, console.note)
    # As `sagan eval-fid` does, independent of the precision of training.
    context = Context(replace(runtime, precision="fp32"), progress, console.note, _once(console.warn))
    options = MeasureOptions(shared, n, None if extractor == NO_EXTRACTOR else extractor, context)
    rows: list[dict[str, Any]] = []
    result: dict[str, Any] = {}
    for number, trial in enumerate(trials, start=1):
        own, path = trial.resolved(resolved), trial.folder(folder)
        job = trial.job(shared, own.config)
        console.note(f"run {number}/{len(trials)}: {path}")
        outcome = train_trial(own, job, path, runtime, lambda: bool(stopping), console.warn)
        if stopping or (outcome and not outcome.finished):
            console.note("stopped; the same command resumes")
            raise typer.Exit(128 + stopping[0])
        rows.append(_measured(trial, job, Run(path), options))
        if number == len(trials) or trials[number].seed != trial.seed:
            result = write_report(resolved, job, trials, rows, folder, n, extractor)
    return result


def _measured(trial: Trial, job: Job, run: Run, options: MeasureOptions) -> dict[str, Any]:
    """Return the object of a run in ablation.json."""
    from sagan_cli.ablation.measures import measure, speed
    from sagan_cli.ablation.trials import parameters

    found = measure(run, options)
    g, d = parameters(job.config.model.arch, job.spec)
    values = {**found["values"], "images_per_second": speed(run)}
    structure = values.get("structure")
    return {
        "variant": trial.variant.name, "attention": trial.variant.attention, "sides": list(job.spec.attn_at),
        "options": dict(job.spec.options), "seed": trial.seed, "run": str(run.path), "step": found["step"],
        "checkpoint_sha256": found["checkpoint_sha256"],
        "n": found["n"], "g_parameters": g, "d_parameters": d, "values": values, "intervals": found["intervals"],
        **({} if structure is None else {"structure_hits": round(structure * found["n"])}),
        "gamma": found["gamma"], "strength": found["strength"],
    }  # fmt: skip


def _once(warn: Callable[[str], None]) -> Callable[[str], None]:
    """Return a function that emits each message only once: all runs cause the same warnings."""
    return functools.cache(warn)
