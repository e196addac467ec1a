"""`sagan info`: describe a run or checkpoint, list the systems, compute the singular values of trained weights."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sagan_cli import console
from sagan_cli.commands.options import Json, Quiet
from sagan_cli.config.resolve import flatten
from sagan_cli.config.systems import SYSTEMS, departures, named_in
from sagan_cli.console import table
from sagan_cli.diagnosis import is_finding
from sagan_cli.errors import UsageError
from sagan_cli.evaluation import records
from sagan_cli.generators import find_checkpoint, run_of
from sagan_cli.plugins.registry import default_options
from sagan_cli.runs import UNKNOWN_DATA

if TYPE_CHECKING:
    from sagan_cli.contracts import Tick
    from sagan_cli.engine.checkpoint import Facts
    from sagan_cli.engine.spectra import Spectrum

SCHEMA_VERSION = 1
HEADINGS = ("NETWORK", "LAYER", "SHAPE", "NORM", "SIGMA", "ESTIMATE", "RATIO")
OBJECTIVE = (
    "loss", "penalty", "gp", "r1", "clip", "grad_clip", "constraint", "augment", "ada", "d_steps",
    "d_lr", "g_lr", "decay_from",
    "decay_steps", "beta1", "beta2", "ema", "ema_halflife", "batch", "steps", "seed",
)  # fmt: skip
"""Settings of `[train]` that are shown."""


def info(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN|CHECKPOINT",
            help="A run (its newest checkpoint), RUN/best or a checkpoint. Default: the newest run.",
        ),
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="List the published systems with description, source and command.")
    ] = False,
    spectra: Annotated[
        bool,
        typer.Option(
            "--spectra", help="Show the largest singular value of each weight and the estimate of spectral norm."
        ),
    ] = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Describe a run; list the published systems.

    Examples:

      sagan info

      sagan info --list

      sagan info --spectra runs/001-quadrupeds-sagan32
    """
    console.set_quiet(quiet)
    if list_:
        if target is not None or spectra:
            raise UsageError("--list takes no run: leave out the target and --spectra")
        _list(json_)
        return
    found = find_checkpoint(target)
    if spectra:
        _spectra(found, json_)
    else:
        _overview(found, json_)


def _list(json_: bool) -> None:
    """Print the systems: as JSON, as a table with tabs in a pipe, or as paragraphs on a terminal."""
    rows = list(SYSTEMS.values())
    if json_:
        facts = [{**asdict(row), "settings": dict(row.settings), "command": row.command} for row in rows]
        console.emit_json({"schema_version": SCHEMA_VERSION, "systems": facts})
    elif console.result_on_screen():
        width = max(map(len, SYSTEMS))
        blank = " " * width
        for row in rows:
            console.result(f"{row.name:<{width}}  {row.about}\n{blank}  {row.source}\n{blank}  {row.command}\n")
    else:
        heading = ("NAME", "DESCRIPTION", "SOURCE", "COMMAND")
        console.result(table([heading, *((row.name, row.about, row.source, row.command) for row in rows)]))


def _overview(found: Path, json_: bool) -> None:
    """Print the facts of a checkpoint and its run."""
    from sagan_cli.engine import checkpoint
    from sagan_cli.engine.networks import summarize

    stored = checkpoint.read_facts(found)
    facts = _model(stored)
    for letter, parts in zip("gd", summarize(stored.arch, stored.spec), strict=True):
        facts |= {f"{letter}_parameters": parts.parameters, f"{letter}_attention": list(parts.attention)}
    facts |= _run(found)
    if json_:
        console.emit_json({"schema_version": SCHEMA_VERSION, **facts})
    else:
        width = 2 + max(len(name) for name, _ in _lines(facts))
        console.result("\n".join(f"{name:<{width}}{text}" for name, text in _lines(facts)))


def _model(stored: Facts) -> dict[str, Any]:
    spec = stored.spec
    return {
        "checkpoint": str(stored.path), "step": stored.step, "arch": stored.arch, "package": stored.arch_package,
        "height": spec.height, "width": spec.width, "channels": spec.channels, "base_width": spec.base_width,
        "latent": spec.latent, "classes": list(stored.class_names), "num_classes": spec.num_classes,
        "attn_at": list(spec.attn_at), "options": dict(spec.options),
        "data": stored.data.get("source"), "pictures": stored.data.get("count"),
        "data_digest": stored.data.get("digest"),
    }  # fmt: skip


def _run(found: Path) -> dict[str, Any]:
    """Return the facts from the run's files; all None or empty for a checkpoint outside a run directory."""
    run = run_of(found)
    empty: dict[str, Any] = {
        "run": None, "status": None, "imported": None, "initial": None, "system": None, "departures": [],
        "objective": {}, "gammas": {},
        "best": None, "scores": [], "findings": [],
    }  # fmt: skip
    if run is None:
        return empty
    record, metrics = run.read(), run.metrics()
    imported = record.get("imported")
    # The settings of an imported run were never used: it was not trained here.
    config = {} if imported else flatten(record["config"])
    system = named_in(record.get("sources", {}))
    step = int(found.resolve().name)
    last: dict[str, Any] = next((m for m in reversed(metrics) if "d_loss" in m and m["step"] <= step), {})
    scores = [m for m in metrics if records.is_record(m) and m.get("step") == step]
    return empty | {
        "run": str(run.path), "status": record.get("status"), "imported": imported, "initial": record.get("initial"),
        "system": system,
        "departures": departures(system, config) if system else [],
        "objective": {name: config[f"train.{name}"] for name in OBJECTIVE if f"train.{name}" in config},
        "gammas": {name: value for name, value in last.items() if name.startswith("gamma_")},
        "best": record.get("best"),
        "findings": [{k: m.get(k) for k in ("step", "name", "text", "remedy")} for m in metrics if is_finding(m)],
        "scores": [{k: m.get(k) for k in ("values", "protocol", "n_fake", "extractor", "time")} for m in scores],
    }  # fmt: skip


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (heading, text) pairs for a terminal."""
    goal = facts["objective"]
    of = f" of {goal['steps']:,}" if goal else ""
    lines = [("checkpoint", f"{facts['checkpoint']}: step {facts['step']:,}{of}")]
    if facts["run"]:
        lines.append(("run", f"{facts['run']}: {facts['status']}"))
    if origin := facts["imported"]:
        lines.append(("from", f"{origin['file']} of {origin['project']} ({origin['format']}), "
                      f"sha256 {origin['sha256'][:12]}"))  # fmt: skip
    if initial := facts["initial"]:
        lines.append(("began with", initial["about"]))
    if facts["system"]:
        changed = f", except for {', '.join(facts['departures'])}" if facts["departures"] else ""
        lines.append(("system", facts["system"] + changed))
    # The attention block has its own line.
    options = "".join(f", {name} {value}" for name, value in facts["options"].items() if name != "attention")
    lines += [
        ("model", f"{facts['arch']} of {facts['package']}{options}"),
        ("images", f"{facts['height']}x{facts['width']}x{facts['channels']}, {_classes(facts)}"),
        ("width", f"{facts['base_width']}, latent {facts['latent']}"),
        ("attention", _attention(facts)),
        ("parameters", f"G {facts['g_parameters']:,}  D {facts['d_parameters']:,}"),
    ]
    if goal:
        terms = ("penalty", "gp", "r1", "clip", "grad_clip", "constraint", "augment", "ada")
        extras = "".join(f", {name} {_text(goal[name])}" for name in terms if goal.get(name))
        ema = f"half-life {_text(goal['ema_halflife'])} images" if goal.get("ema_halflife") else _text(goal["ema"])
        lines += [
            ("loss", goal["loss"] + extras),
            ("training", f"D {_text(goal['d_lr'])} x {goal['d_steps']}, G {_text(goal['g_lr'])}, "
             f"Adam {goal['beta1']:g} {_text(goal['beta2'])}, batch {goal['batch']}, EMA {ema}" + _decay(goal)),
        ]  # fmt: skip
    unknown = facts["data"] == UNKNOWN_DATA
    lines.append(("data", "unknown" if unknown else f"{facts['data']}: {facts['pictures']} images"))
    if best := facts["best"]:
        decides = best.get("decides", "fid")
        lines.append(("best score", f"{decides} {records.shown(decides, best[decides])} at step {best['step']:,}, "
                      f"during training, {best['n_fake']} images, {best['extractor']}"))  # fmt: skip
    for score in facts["scores"]:
        values = ", ".join(f"{name} {records.shown(name, value)}" for name, value in score["values"].items())
        on = f", {score['extractor']}" if score["extractor"] else ""
        lines.append(("score", f"{values} of {score['n_fake']} images{on}, {score['protocol'] or 'no protocol'}"))
    for found in facts["findings"]:
        lines.append(("finding", f"step {found['step']:,}: {found['text']}; {found['remedy']}"))
    if not facts["best"] and not facts["scores"]:
        lines.append(("best score", "none yet; run sagan eval-fid" + (" with --data" if unknown else "")))
    return lines


def _text(value: float | str) -> str:
    """Return a number or a schedule as the user writes it."""
    return value if isinstance(value, str) else f"{value:g}"


def _decay(goal: dict[str, Any]) -> str:
    if not goal.get("decay_steps"):
        return ""
    return f", rates to 0 from step {goal.get('decay_from', 0):,} to {goal['decay_steps']:,}"


def _classes(facts: dict[str, Any]) -> str:
    names = facts["classes"]
    if not facts["num_classes"]:
        return "no classes"
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{facts['num_classes']} classes" + (f": {shown}" if names else "")


def _attention(facts: dict[str, Any]) -> str:
    """Return `official, G at 32, D at 32; gamma G32 0.1, D32 -0.2`; the residual control has no maps to name."""
    if not facts["attn_at"]:
        return "none"
    usual = default_options(facts["arch"]).get("attention", "the architecture's own")
    kind = facts["options"].get("attention", usual)
    layers = {letter: ", ".join(facts[f"{letter.lower()}_attention"]) for letter in "GD"}
    places = "".join(f", {letter} at {sides}" for letter, sides in layers.items() if sides)
    if not places:
        places = f", at {', '.join(map(str, facts['attn_at']))}"
    gammas = (f"{name.removeprefix('gamma_').upper()} {value:.4g}" for name, value in facts["gammas"].items())
    return f"{kind}{places}" + (f"; gamma {', '.join(gammas)}" if facts["gammas"] else "")


def _spectra(found: Path, json_: bool) -> None:
    """Print the largest singular value of each weight of both networks."""
    from sagan_cli.engine import spectra

    networks = dict(zip("GD", spectra.open_networks(found), strict=True))
    rows: list[Spectrum] = []
    with console.progress("singular values", sum(map(spectra.count, networks.values()))) as tick:
        for letter, network in networks.items():
            rows += spectra.spectra(network, letter, partial(_further, tick, len(rows)))
    if json_:
        layers = [{**asdict(row), "ratio": row.ratio} for row in rows]
        console.emit_json({"schema_version": SCHEMA_VERSION, "checkpoint": str(found), "layers": layers})
    else:
        console.result(table([HEADINGS, *map(_row, rows)]))
    for letter in networks:
        if not any(row.network == letter and row.estimate is not None for row in rows):
            console.note(f"{letter}: no known spectral norm")


def _further(tick: Tick, before: int, done: int) -> None:
    tick(before + done)


def _row(row: Spectrum) -> tuple[str, ...]:
    shape = "x".join(map(str, row.shape))
    estimate, ratio = (("-" if value is None else f"{value:.6g}") for value in (row.estimate, row.ratio))
    return row.network, row.layer or ".", shape, row.norm, f"{row.sigma:.6g}", estimate, ratio
