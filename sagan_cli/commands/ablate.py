"""`sagan ablate`: does attention pay? Twins trained alike, measured alike, and held against each other."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sagan_cli import console
from sagan_cli.ablation import output as ablate_output
from sagan_cli.ablation.plan import show_plan
from sagan_cli.ablation.variants import parse_variants, require_maps
from sagan_cli.ablation.write import write
from sagan_cli.api import preset_for, with_absolute_path
from sagan_cli.commands.train import PRESET_HELP, SYSTEM_HELP, interruptible, stop_signals
from sagan_cli.config.resolve import Resolved, resolve
from sagan_cli.config.schema import SETTINGS, effective
from sagan_cli.config.systems import PREFIX
from sagan_cli.errors import UsageError
from sagan_cli.plugins import registry
from sagan_cli.runs import RUNS, Run

if TYPE_CHECKING:
    from sagan_cli.ablation.twins import Twin
    from sagan_cli.data.sources.opening import Opened
    from sagan_cli.engine.job import Job
    from sagan_cli.engine.runtime import Runtime

OWN = ("model.attn_at", "model.attention")
"""Settings that are the variants' own."""
NO_EXTRACTOR = "none"


def _flag(key: str, text: str | None = None) -> Any:
    s = SETTINGS[key]
    return typer.Option(f"--{s.flag}", help=text or s.help, metavar=s.metavar, rich_help_panel="As for sagan train")


def ablate(
    attn: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Twins: none; a side, as 16; several, as 8+16; residual, the control of as many weights; "
            "KIND@SIDE, as paper@16 or nonlocal@16; KIND alone stands at the default place; auto is the networks' own.",
        ),
    ] = "none,residual,auto",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each, counted from train.seed (0).")] = 3,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of each run; default the preset's.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Default runs/ablation-<data>-<arch><size>.")] = None,
    n: Annotated[int, typer.Option("-n", "--count", min=2, help="Pictures that each run is measured on.")] = 510,
    extractor: Annotated[
        str, typer.Option(metavar="NAME", help="For FID, as in eval-fid; none leaves FID out.")
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
    plan: Annotated[bool, typer.Option("--plan", help="Print the twins, parameters and time; train nothing.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only on stderr.")] = False,
) -> None:
    """Find out whether attention improves a model.

    Trains twins with and without it, measures them alike, and says whether the difference leaves the noise.

    The same command again goes on where it stopped. Writes ablation.json, ablation.md and ablation.png.

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
    wanted = parse_variants(attn, resolved.config.model.attention)
    from sagan_cli.data.sources.opening import open_data

    registry.find("architectures", resolved.config.model.arch)
    opened = open_data(resolved.config)
    require_maps(wanted, opened.form.height, opened.form.width)
    if preset == "auto":
        resolved = _common(resolve(**layers, preset=preset_for(resolved.config.train.device)))
    resolved = with_absolute_path(resolved)
    if out is not None and (out / "run.json").exists():
        raise UsageError(f"--out {out}: is a single run; name a directory for all of them")

    from sagan_cli.ablation.twins import Twin, require_goes_on, specs_of
    from sagan_cli.engine.job import label, preview_spec
    from sagan_cli.engine.runtime import open_runtime
    from sagan_cli.evaluation.extractors.opening import NAMES

    if extractor not in (NO_EXTRACTOR, *NAMES):
        raise UsageError(f"--extractor {extractor}: choose {NO_EXTRACTOR}, {', '.join(NAMES)}")
    name = "-".join(filter(None, ("ablation", label(resolved.config, opened), system)))
    folder = out or RUNS / name
    shapes = specs_of(wanted, preview_spec(resolved.config, opened), resolved.config)
    # Seed by seed, so that what is there after an interruption is paired.
    first = resolved.config.train.seed
    twins = [Twin(variant, seed, shapes[variant]) for seed in range(first, first + seeds) for variant in wanted]
    for twin in twins:
        require_goes_on(twin.resolved(resolved), twin.folder(folder))
    cfg = resolved.config.train
    with stop_signals() as stopping, open_runtime(cfg.device, cfg.precision) as runtime:
        if plan:
            show_plan(resolved, twins, folder, runtime, json_)
            return
        result = _run(resolved, opened, twins, folder, runtime, stopping, n, extractor)
    for verdict in result["verdicts"]:
        console.note(verdict["sentence"])
    if not result["verdicts"]:
        console.note("no verdict: add none to --attn, which the others are held against")
    if json_:
        console.emit_json(result)
    else:
        console.result(ablate_output.table(result["variants"]))
    console.note(f"written: {folder}/ablation.md, ablation.json, ablation.png")


def _common(resolved: Resolved) -> Resolved:
    """The settings of all twins: no attention, by the block that the preset, the system or the architecture has.

    Raises:
        UsageError: the user set what is a twin's own.
    """
    for key in OWN:
        source = resolved.sources[key]
        if source != "default" and not source.startswith(("preset", PREFIX)):
            raise UsageError(f"{source} {key}: here --attn says it; write KIND@SIDE, as in paper@16")
    own = effective({key: resolved.config.get(key) for key in ("model.arch", "model.attention")})["model.attention"]
    model = replace(resolved.config.model, attn_at="none", attention=own)
    return replace(resolved, config=replace(resolved.config, model=model))


def _run(
    resolved: Resolved,
    opened: Opened,
    twins: list[Twin],
    folder: Path,
    runtime: Runtime,
    stopping: list[int],
    n: int,
    extractor: str,
) -> dict[str, Any]:
    """Train and measure what is missing; the result is written whenever a seed is complete."""
    from sagan_cli.ablation.measures import Yardstick
    from sagan_cli.ablation.twins import train_twin
    from sagan_cli.engine.job import open_job
    from sagan_cli.evaluation.scoring import Context

    progress = interruptible(stopping)
    shared = open_job(resolved.config, opened, progress, console.note)
    # Measured as `sagan eval-fid` measures, whatever the precision of training.
    context = Context(replace(runtime, precision="fp32"), progress, console.note, _once(console.warn))
    yardstick = Yardstick(shared, n, None if extractor == NO_EXTRACTOR else extractor, context)
    rows: list[dict[str, Any]] = []
    result: dict[str, Any] = {}
    for place, twin in enumerate(twins, start=1):
        own, path = twin.resolved(resolved), twin.folder(folder)
        job = twin.job(shared, own.config)
        console.note(f"twin {place}/{len(twins)}: {path}")
        outcome = train_twin(own, job, path, runtime, lambda: bool(stopping), console.warn)
        if stopping or (outcome and not outcome.finished):
            console.note("stopped; the same command goes on")
            raise typer.Exit(128 + stopping[0])
        rows.append(_measured(twin, job, Run(path), yardstick))
        if place == len(twins) or twins[place].seed != twin.seed:
            result = write(resolved, job, twins, rows, folder, yardstick.n, extractor)
    return result


def _measured(twin: Twin, job: Job, run: Run, yardstick: Any) -> dict[str, Any]:
    """The row of one run."""
    from sagan_cli.ablation.measures import measure, speed
    from sagan_cli.ablation.twins import parameters

    found = measure(run, yardstick)
    g, d = parameters(job.config.model.arch, job.spec)
    values = {**found["values"], "images_per_second": speed(run)}
    structure = values.get("structure")
    return {
        "variant": twin.variant.name, "attention": twin.variant.attention, "sides": list(job.spec.attn_at),
        "options": dict(job.spec.options), "seed": twin.seed, "run": str(run.path), "step": found["step"],
        "checkpoint_sha256": found["checkpoint_sha256"],
        "n": found["n"], "g_parameters": g, "d_parameters": d, "values": values, "intervals": found["intervals"],
        **({} if structure is None else {"structure_hits": round(structure * found["n"])}),
        "gamma": found["gamma"], "strength": found["strength"],
    }  # fmt: skip


def _once(say: Callable[[str], None]) -> Callable[[str], None]:
    """The same sentence only the first time: every run is measured alike."""
    said: set[str] = set()

    def first(message: str) -> None:
        if message not in said:
            said.add(message)
            say(message)

    return first
