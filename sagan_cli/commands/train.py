"""`sagan train`: from flags to a finished run directory."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sagan_cli import console, runs
from sagan_cli.api import preset_for, with_absolute_path
from sagan_cli.commands.plan import show_plan
from sagan_cli.commands.settings import given, with_settings
from sagan_cli.commands.signals import stop_signals
from sagan_cli.config.presets import PRESETS
from sagan_cli.config.resolve import flatten, resolve
from sagan_cli.config.systems import SYSTEMS
from sagan_cli.config.toml import to_toml
from sagan_cli.errors import UsageError
from sagan_cli.plugins import registry
from sagan_cli.resume import trainable
from sagan_cli.runs import Run

if TYPE_CHECKING:
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
    resolved = with_absolute_path(resolved)
    from sagan_cli.engine.runtime import open_runtime
    from sagan_cli.engine.session import check_batch, run_training

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
        # The signal may have reached another process of this run only.
        raise typer.Exit(128 + (stopping[0] if stopping else signal.SIGTERM))


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


def _require_interval(text: str) -> None:
    """Refuse an --eval-every that says nothing."""
    if text not in ("off", "auto") and not (text.isdigit() and int(text) > 0):
        raise UsageError(f"--eval-every {text}: a number of steps, auto or off")
