"""The command `sagan train`."""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sagan_cli import console, runs
from sagan_cli.api import check_batch, initial_settings, preset_for, run_training, with_absolute_paths, with_recipe
from sagan_cli.commands.options import Json, Quiet
from sagan_cli.config.presets import PRESETS
from sagan_cli.config.resolve import flatten, resolve, to_toml
from sagan_cli.config.schedule import Schedule
from sagan_cli.config.schema import CHOSEN_KEYS, SETTINGS, Setting
from sagan_cli.config.systems import SYSTEMS
from sagan_cli.errors import UsageError
from sagan_cli.plugins import registry
from sagan_cli.runs import Run, trainable

if TYPE_CHECKING:
    from sagan_cli.config.resolve import Resolved
    from sagan_cli.contracts import Tick
    from sagan_cli.data.sources.opening import Opened
    from sagan_cli.engine.runtime import Runtime
    from sagan_cli.engine.train import Outcome


PRESET_HELP = "Recipe to start from: " + ", ".join(PRESETS) + "; auto is base on a GPU and laptop without."
SYSTEM_HELP = f"Published system to train, at the preset's scale: {', '.join(SYSTEMS)}; see 'sagan info --list'."


COMMON = "Common options"
COMMON_FLAGS = ("data", "size", "steps", "batch", "width", "attn-at", "d-lr", "g-lr", "seed", "device", "eval-every")
"""Settings that the help shows first."""
PANELS = {"data": "Data", "model": "Model", "train": "Training", "run": "Run directory"}


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the `**settings` parameter of a command by one option per setting; an option not given is None."""
    own = inspect.signature(command, eval_str=True).parameters
    extra = [_parameter(s) for s in SETTINGS.values()]
    kept = [p for p in own.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    first = [p for p, s in zip(extra, SETTINGS.values(), strict=True) if s.flag in COMMON_FLAGS]
    ordered = [*first, *kept, *(p for p in extra if p not in first)]
    command.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in ordered}
    return command


def given(settings: dict[str, Any]) -> dict[str, Any]:
    """Return key -> value of the options that were given."""
    return {key: settings[s.name] for key, s in SETTINGS.items() if settings[s.name] is not None}


def _parameter(s: Setting) -> inspect.Parameter:
    names = [f"--{s.flag}/--no-{s.flag}" if s.kind is bool and s.flag != "unconditional" else f"--{s.flag}"]
    choices = s.choices or (tuple(registry.names(s.registered)) if s.registered else ())
    text = f"{s.help} [{', '.join(choices)}]" if choices else s.help
    option = typer.Option(
        *names, metavar=s.metavar, help=f"{text} (default: {_default(s)})", show_default=False,
        rich_help_panel=COMMON if s.flag in COMMON_FLAGS else PANELS[s.key.split(".", 1)[0]],
    )  # fmt: skip
    return inspect.Parameter(
        s.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[(str if s.kind is Schedule else s.kind) | None, option],
    )


def _default(s: Setting) -> str:
    """The value that a run without flags has; for some settings it depends on the data or the automatic preset."""
    if s.key in CHOSEN_KEYS:
        return "chosen from the data"
    by_preset = {name: PRESETS[name][1].get(s.key, s.default) for name in ("laptop", "base")}
    if by_preset["laptop"] != by_preset["base"]:
        return f"{by_preset['laptop']} on a CPU, {by_preset['base']} on a GPU"
    value = by_preset["base"]
    return ("on" if value else "off") if s.kind is bool else str(value) or "none"


@with_settings
def train(
    *,
    system: Annotated[str | None, typer.Option(help=SYSTEM_HELP, metavar="NAME", rich_help_panel=COMMON)] = None,
    preset: Annotated[str, typer.Option(help=PRESET_HELP, metavar="NAME", rich_help_panel=COMMON)] = "auto",
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings.", metavar="FILE", rich_help_panel="Recipe")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="section.key=value; repeats.", metavar="KEY=VALUE", rich_help_panel="Recipe"),
    ] = None,
    kimg: Annotated[
        float | None,
        typer.Option(help="Total as thousands of images, instead of --steps.", min=0.001, rich_help_panel="Training"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run directory; default runs/NNN-<data>-<arch><size>.", metavar="DIR", rich_help_panel=COMMON
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Continue this run with its settings.", metavar="RUN", rich_help_panel=COMMON),
    ] = None,
    new: Annotated[
        bool,
        typer.Option(
            "--new",
            help="Begin a new run even if the same command would resume one.",
            rich_help_panel="Run directory",
        ),
    ] = False,
    download: Annotated[
        bool, typer.Option("--download", help="Download a named dataset if it is missing.", rich_help_panel="Data")
    ] = False,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the settings as TOML and stop.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print parameters, memory and plan; write nothing.")
    ] = False,
    json_: Json = False,
    quiet: Quiet = False,
    **settings: Any,
) -> None:
    """Train a self-attention GAN on a folder of images.

    The same command resumes the run. Values come from flags, then SAGAN_* variables, --config, --system, --preset.

    Examples:

      sagan train

      sagan train --data ./celeba --size 64 --steps 20000
    """
    console.set_quiet(quiet)
    if resume is not None and (out is not None or new or config is not None or preset != "auto" or system is not None):
        own = "--out, --new, --config, --system and --preset"
        raise UsageError(f"--resume uses the settings of the run: leave out {own}")
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

    # Errors are reported before PyTorch is imported, which takes seconds. The automatic preset does not affect them.
    resolved = resolve(**layers, preset=None if preset == "auto" else preset)
    from sagan_cli.data.sources.opening import open_data

    if resume is None and resolved.config.train.init_from:
        layers["initial"] = initial_settings(resolved)
        resolved = resolve(**layers, preset=None if preset == "auto" else preset)
    registry.find("architectures", resolved.config.model.arch)
    opened = open_data(resolved.config, download=download)
    if preset == "auto" and resume is None:
        resolved = resolve(**layers, preset=preset_for(resolved.config.train.device))
    for line in resolved.notes:
        console.note(line)
    _require_interval(resolved.config.run.eval_every)
    if print_config:
        resolved, reasons = with_recipe(resolved, opened, console.progress) if resume is None else (resolved, [])
        for line in reasons:
            console.note(line)
        console.result(to_toml(resolved).rstrip("\n"))
        return
    resolved = with_absolute_paths(resolved)
    from sagan_cli.engine.runtime import open_runtime

    cfg = resolved.config.train
    with stop_signals() as stopping, open_runtime(cfg.device, cfg.precision, distributed=True) as runtime:
        console.set_quiet(quiet or not runtime.leads)
        check_batch(resolved, runtime)
        if dry_run:
            show_plan(resolved, opened, runtime, json_)
            return
        outcome, run = run_training(
            resolved, opened, runtime, progress=interruptible(stopping), notify=console.note, warn=console.warn,
            should_stop=lambda: bool(stopping), out=out, resume=resume, new=new,
        )  # fmt: skip
        if runtime.leads:
            _finish(run, outcome, json_)
    if not outcome.finished:
        # The signal may have reached another process of this run.
        raise typer.Exit(128 + (stopping[0] if stopping else signal.SIGTERM))


def interruptible(stopping: list[int]) -> Callable[[str, int], AbstractContextManager[Tick]]:
    """Return a progress callback that ends the command on a signal, for work that has nothing to save."""

    @contextmanager
    def progress(label: str, total: int) -> Iterator[Tick]:
        with console.progress(label, total) as tick:

            def told(done: int, total: int | None = None) -> None:
                if stopping:
                    raise typer.Exit(128 + stopping[0])
                tick(done, total)

            yield told

    return progress


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
        console.note(f"saved at step {outcome.step}; the same command continues")


def _require_interval(text: str) -> None:
    """Refuse an invalid --eval-every."""
    if text not in ("off", "auto") and not (text.isdecimal() and int(text) > 0):
        raise UsageError(f"--eval-every {text}: a number of steps, auto or off")


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Yield a list that receives SIGINT and SIGTERM; a second signal ends the process."""
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)
        console.note("stopping: finishing this step and saving (again to stop at once)")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def show_plan(resolved: Resolved, opened: Opened, runtime: Runtime, json_: bool) -> None:
    """Print the plan as text or JSON."""
    from sagan_cli.engine.job import preview_spec
    from sagan_cli.engine.networks import describe_attention, estimate_cost

    resolved, reasons = with_recipe(resolved, opened, console.progress)
    for line in reasons:
        console.note(line)
    config = resolved.config
    spec = preview_spec(config, opened)
    at_once = config.train.batch // runtime.world // config.train.accumulate
    price = estimate_cost(config.model.arch, spec, at_once, runtime.precision)
    pictures = len(opened.dataset)
    facts = {
        "data": config.data.data,
        "pictures": pictures,
        "classes": list(opened.dataset.class_names),
        "arch": config.model.arch,
        "height": spec.height,
        "width": spec.width,
        "channels": spec.channels,
        "attn_at": list(spec.attn_at),
        "g_parameters": price.g_parameters,
        "d_parameters": price.d_parameters,
        "weights_mib": round(price.weights_mib, 1),
        "activations_mib": round(price.activations_mib, 1),
        "device": str(runtime.device),
        "precision": runtime.precision,
        "steps": config.train.steps,
        "batch": config.train.batch,
        "passes": round(config.train.steps * config.train.d_steps * config.train.batch / max(pictures, 1), 2),
    }
    if json_:
        console.emit_json(facts)
        return
    attention = describe_attention(config.model.arch, spec)
    classes = f"{len(opened.dataset.class_names)} classes" if opened.dataset.class_names else "no classes"
    console.result(
        f"data         {config.data.data}: {pictures} images, {classes}\n"
        f"images       {spec.height}x{spec.width}x{spec.channels}, attention at {attention}\n"
        f"parameters   G {price.g_parameters:,}  D {price.d_parameters:,}\n"
        f"memory       {price.weights_mib:,.0f} MiB weights and optimiser, "
        f"about {price.activations_mib:,.0f} MiB activations\n"
        f"training     {config.train.steps:,} steps of {config.train.batch} images on {runtime.device} in "
        f"{runtime.precision}: {facts['passes']} passes over the data\n"
    )
    console.result(to_toml(resolved).rstrip("\n"))
