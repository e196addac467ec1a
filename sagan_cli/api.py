"""The Python API behind `import sagan_cli`; the commands use the same functions. No torch at import."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sagan_cli import console, runs
from sagan_cli.config import recipe
from sagan_cli.config.resolve import Resolved, resolve
from sagan_cli.config.schema import SETTINGS
from sagan_cli.errors import SaganError, UsageError, closest
from sagan_cli.evaluation.evaluate import evaluate as evaluate_target
from sagan_cli.plugins import registry

if TYPE_CHECKING:
    from sagan_cli.contracts import Progress
    from sagan_cli.data.sources.opening import Opened
    from sagan_cli.engine.job import Job
    from sagan_cli.engine.runtime import Runtime
    from sagan_cli.engine.train import Outcome


def train(
    data: str | Path | None = None,
    *,
    out: str | Path | None = None,
    preset: str = "auto",
    system: str | None = None,
    config: str | Path | None = None,
    new: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> runs.Run:
    """Train a GAN as `sagan train` does, and return its run; the same call again resumes it.

    Args:
        data: a folder of images, an archive, or the name of a dataset; default the embedded `quadrupeds`.
        out: the run directory; default the next number under `runs/`.
        preset, system, config, new: as the flags of `sagan train`.
        quiet: no progress and no messages on stderr.
        settings: any setting of `sagan train --help` by the name of its flag, for example `steps=2000, attn_at="16"`.

    Raises:
        sagan_cli.errors.SaganError: in one line; `UsageError` for a wrong setting, `DataError` for unusable images.
    """
    flags = {"data.data": None if data is None else str(data)}
    keys = {setting.name: key for key, setting in SETTINGS.items()}
    for name, value in settings.items():
        if name not in keys:
            raise UsageError(f"{name}: no such setting{closest(name, keys)}; see sagan train --help")
        flags[keys[name]] = str(value) if isinstance(value, Path) else value
    layers: dict[str, Any] = {
        "flags": {key: value for key, value in flags.items() if value is not None}, "sets": [], "environ": os.environ,
        "file": None if config is None else Path(config), "system": system,
    }  # fmt: skip
    resolved = resolve(**layers, preset=None if preset == "auto" else preset)
    layers["initial"] = initial_settings(resolved)
    resolved = resolve(**layers, preset=preset_for(resolved.config.train.device) if preset == "auto" else preset)

    from sagan_cli.data.sources.opening import open_data
    from sagan_cli.engine.runtime import open_runtime

    registry.find("architectures", resolved.config.model.arch)
    for line in resolved.notes if not quiet else ():
        console.note(line)
    opened = open_data(resolved.config)
    resolved = with_absolute_paths(resolved)
    with (
        console.silenced(quiet),
        open_runtime(resolved.config.train.device, resolved.config.train.precision, distributed=True) as runtime,
    ):
        check_batch(resolved, runtime)
        _, run = run_training(
            resolved, opened, runtime, progress=console.progress, notify=console.note, warn=console.warn,
            out=None if out is None else Path(out), new=new,
        )  # fmt: skip
    return run


def evaluate(
    target: str | Path | None = None,
    *,
    data: str | Path | None = None,
    metrics: str | Sequence[str] | None = None,
    n: int | None = None,
    knobs: Mapping[str, int] | None = None,
    quiet: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Score a generator or images as `sagan eval-fid` does, and return the score record.

    Args:
        target: a run, a checkpoint, an exported file or images; default the newest run.
        data: the real images; default those that the run was trained on.
        metrics: names, as a list or separated by commas; default those of the protocol.
        n: number of images to generate.
        knobs: parameters of metrics, for example `{"prc_neighbours": 5}`.
        quiet: no progress and no messages on stderr.
        options: `n_real`, `protocol`, `extractor`, `weights`, `per_class`, `split`, `held_out`, `nearest`, `fit`,
            `seed`, `truncation`, `raw`, `batch`, `device`, `precision`, as the flags of `sagan eval-fid`.

    Returns:
        The record: `metric` and `value` of the first number, `values` and `intervals` of all, and what they depend on.

    Raises:
        sagan_cli.errors.SaganError: in one line.
    """
    known = set(inspect.signature(evaluate_target).parameters) - {"stdin", "progress", "notify", "warn"}
    for name in sorted(set(options) - known):
        raise UsageError(f"{name}: no such option{closest(name, known)}; see sagan eval-fid --help")
    with console.silenced(quiet):
        record = evaluate_target(
            target, data, metrics=metrics, n=n, knobs=knobs, **options, stdin=getattr(sys.stdin, "buffer", None),
            progress=console.progress, notify=console.note, warn=console.warn,
        )  # fmt: skip
    if record is None:
        raise SaganError("only the leading process has the score")
    return record


def open_run(path: str | Path | None = None) -> runs.Run:
    """Open a run directory; None is the newest run under `runs/`.

    Raises:
        sagan_cli.errors.SaganError: there is none, or it is damaged.
    """
    return runs.newest() if path is None else runs.open_run(Path(path))


def with_absolute_paths(resolved: Resolved) -> Resolved:
    """Make the paths of images and initial weights absolute, so that the run can be resumed from any directory."""
    data, train = resolved.config.data, resolved.config.train
    if data.data not in registry.names("datasets"):
        data = replace(data, data=_absolute(data.data))
    if train.init_from:
        train = replace(train, init_from=_absolute(train.init_from))
    return replace(resolved, config=replace(resolved.config, data=data, train=train))


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def initial_settings(resolved: Resolved) -> dict[str, Any] | None:
    """Return the settings of the networks whose weights `--init-from` takes; None without it.

    Raises:
        UsageError: nothing of that kind is there.
        CheckpointError: it is damaged, or of an architecture that is not installed.
    """
    from sagan_cli.config.initial import network_settings

    source = resolved.config.train.init_from
    if not source:
        return None
    from sagan_cli.engine.initial_weights import read_facts

    facts = read_facts(_found(source))
    return network_settings(facts.arch, facts.spec)


def _found(source: str) -> Path:
    """Return the checkpoint or file that `--init-from` names."""
    from sagan_cli.generators import STDIN, find_model

    if source == STDIN:
        text = "a run that cannot be started again would result, because a pipe is read once; name a file"
        raise UsageError(f"--init-from -: {text}")
    try:
        return find_model(source)
    except UsageError as e:
        raise UsageError(f"--init-from {e}") from e


def preset_for(device: str) -> str:
    """Return the automatic preset: `base` on an accelerator, `laptop` on a CPU."""
    from sagan_cli.engine.runtime import pick_device

    return "laptop" if pick_device(device).type == "cpu" else "base"


def with_recipe(resolved: Resolved, opened: Opened, progress: Progress) -> tuple[Resolved, list[str]]:
    """Choose the settings that the user left open from the data.

    Args:
        progress: (label, total) -> context manager of a tick, for the images that are read.

    Returns:
        The settings, and lines for the user: what was chosen and why.

    Raises:
        DataError, PluginError: images cannot be read.
    """
    from sagan_cli.data.holdout import held_out_count
    from sagan_cli.data.mirror import check_mirror

    def mirror() -> tuple[bool, str]:
        found = check_mirror(opened.dataset, progress)
        return found.allowed, str(found)

    form, total = opened.form, len(opened.dataset)
    images = total - held_out_count(resolved.config.data.holdout, total)
    parts = recipe.choose(resolved, recipe.DataFacts(images, form.height, form.width, mirror))
    if not parts:
        return resolved, []
    size = f"{form.height}x{form.width}" if form.height != form.width else f"{form.height}"
    return recipe.apply(resolved, parts), [
        f"recipe {images:,} images at {size} px, chosen from the data (--system paper: the paper's):",
        *(f"       {part.about}" for part in parts if part.about),
    ]


def check_batch(resolved: Resolved, runtime: Runtime) -> None:
    """Refuse a batch that cannot be divided, and a CUDA graph that is not possible.

    Raises:
        UsageError: naming `--batch`, `--accumulate` or `--graph`.
    """
    from sagan_cli.engine.iteration import check_slices, use_graph

    cfg = resolved.config.train
    if cfg.batch % runtime.world:
        raise UsageError(f"--batch {cfg.batch}: not a multiple of the {runtime.world} processes")
    check_slices(cfg, runtime)
    use_graph(cfg, runtime)


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
) -> tuple[Outcome, runs.Run]:
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
    from sagan_cli.engine.initial_weights import fitted, read
    from sagan_cli.engine.job import label, machine_facts, open_job
    from sagan_cli.engine.networks import check_frozen, require_memory
    from sagan_cli.engine.train import train as train_job

    chosen = runs.find_run(resolved, out=out, resume=resume, new=new) if runtime.leads else None
    before = chosen.record if chosen else None
    threads = runtime.tell(json.dumps((before or {}).get("machine", {}).get("threads")) if runtime.leads else None)
    runtime.keep_threads(json.loads(threads), warn)
    reasons: list[str] = []
    if resolved.left_open:
        if chosen and chosen.record:
            resolved = recipe.recorded(resolved, chosen.record)
        elif runtime.leads:
            resolved, reasons = with_recipe(resolved, opened, progress)
        told = runtime.tell(json.dumps(recipe.values_of(resolved)) if runtime.leads else None)
        resolved = recipe.with_values(resolved, json.loads(told))
    source = resolved.config.train.init_from
    if chosen and chosen.run.checkpoint_steps():
        source = ""  # the checkpoint replaces them
    source = runtime.tell(source if runtime.leads else None)
    if not runtime.leads:
        runtime.barrier()  # the first process packs; the others find the pack
    if resolved.config.run.eval_extractor != "auto":
        from sagan_cli.evaluation.extractors.opening import require_extractor

        require_extractor(resolved.config.run.eval_extractor, "--eval-extractor")
    job = open_job(resolved.config, opened, progress, notify)
    require_memory(job.config.model.arch, job.spec, runtime.device)
    initial = None
    if source:
        initial = fitted(read(_found(source)), job.config.model.arch, job.spec, job.pack.class_names)
        check_frozen(job.config.model.arch, job.spec, job.config.train.freeze_d)
    if runtime.leads:
        runtime.barrier()
        # Only now, with images that can be trained on, is anything created.
        chosen = chosen or runs.new_run(label(resolved.config, opened), out)
    run = runs.Run(Path(runtime.tell(str(chosen.run.path) if chosen else None)))
    with run.lock() if runtime.leads else nullcontext():
        if chosen:
            facts = machine_facts(job, runtime) | ({"initial": initial.record()} if initial else {})
            runs.record_start(chosen, resolved, facts)
            reasons += [f"init   {initial.about}"] if initial else []
            _introduce(job, chosen, runtime, reasons, notify, warn)
        scorer = None
        if job.config.run.eval_every != "off":
            from sagan_cli.evaluation.computation import Context
            from sagan_cli.evaluation.tracking import open_tracker

            scorer = open_tracker(job, Context(runtime, progress, notify, warn))
        try:
            outcome = train_job(job, run, runtime, should_stop, scorer, warn, initial)
        except BaseException:
            if runtime.leads:
                run.update(status="failed")
            raise
        if runtime.leads:
            run.update(status="finished" if outcome.finished else "interrupted", step=outcome.step)
    return outcome, run


def _introduce(
    job: Job,
    chosen: runs.Chosen,
    runtime: Runtime,
    reasons: list[str],
    notify: Callable[[str], None],
    warn: Callable[[str], None],
) -> None:
    """Report data, recipe, model and run, a line or more each."""
    from sagan_cli.engine.networks import describe_attention

    spec, pack, steps, before = job.spec, job.pack, job.config.train.steps, chosen.record
    classes = f"{len(pack.class_names)} classes" if pack.class_names else "no classes"
    held = f", {len(job.held_out):,} of them held out" if len(job.held_out) else ""
    notify(f"data   {job.config.data.data}: {len(pack.images)} images, {classes}{held}")
    for line in reasons:
        notify(line)
    notify(
        f"model  {job.config.model.arch} {spec.height}x{spec.width}x{spec.channels}, width {spec.base_width}, "
        f"attention at {describe_attention(job.config.model.arch, spec)}; {runtime.device}, {runtime.precision}"
    )
    path = chosen.run.path
    notify(f"run    {path}: " + (f"resumed, {steps} steps in all" if before else f"new, {steps} steps"))
    if before and before.get("data", {}).get("digest") != pack.digest:
        warn("the images have changed since this run began; --new begins another run")
    if before and before.get("step", 0) >= steps:
        notify(f"this run has its {steps} steps; --steps N continues it, --new begins another run")
