"""`sagan compare`: rank scores, or report why they cannot be compared."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import typer

from sagan_cli import console
from sagan_cli.commands.options import Json, Quiet
from sagan_cli.errors import SaganError, UsageError, closest
from sagan_cli.evaluation import records
from sagan_cli.evaluation.options import metric_of, value_names
from sagan_cli.evaluation.records import Record

WAY_OUT = {
    "extractor": "the same --extractor",
    "weights_sha256": "the same --weights",
    "data_digest": "the same --data",
    "split": "the same --split",
    "held_out_digest": "the same --held-out images",
    "n_fake": "the same -n",
    "n_real": "the same --n-real",
    "real_size": "real images of the same size (--fit resizes them)",
    "fit": "the same --fit",
    "precision": "the same --precision",
}
"""Field -> the flag of `sagan eval-fid` that sets it; --protocol for all others."""
SHORT = 12
"""Digits of a digest in messages."""


@dataclass(frozen=True)
class Ranked:
    """One line of the ranking."""

    name: str
    """What was scored, as the user named it."""
    record: Record
    value: float
    interval: tuple[float, float] | None
    rank: int = 0
    overlaps: bool = False
    """Whether its interval overlaps that of the line above."""


def compare(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|CHECKPOINT|FILE",
            help="Runs, checkpoints, files of 'sagan eval-fid --json', or - for stdin. The newest score of each is "
            "ranked; with a single target, all its scores.",
        ),
    ],
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"{', '.join(value_names())}, or a value of a plugin's metric. Default: the score's first metric.",
        ),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Rank all scores that are comparable with the first target's newest one.")
    ] = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Rank scores; stop if they were measured differently.

    Two scores are comparable if extractor, weights, number of images, real images and sampling settings are equal.
    Otherwise the exit code is 1, and the message names the difference.

    Examples:

      sagan compare runs/001-a runs/002-b

      sagan compare runs/001-a --metric kid

      sagan eval-fid images/ --data real/ --json | sagan compare runs/001-a -
    """  # fmt: skip
    console.set_quiet(quiet)
    if metric is not None and metric_of(metric) is None:
        known = value_names()
        raise UsageError(f"--metric {metric}: no such metric{closest(metric, known)}; there are {', '.join(known)}")
    if len(set(targets)) < len(targets):
        twice = next(t for t in targets if targets.count(t) > 1)
        raise UsageError(f"{twice}: is given twice; name each target once")
    found = {target: _read(target) for target in targets}
    metric = metric or str(found[targets[0]][-1]["metric"])
    having = {target: _having(target, its, metric) for target, its in found.items()}
    entries = _all(having, metric) if all_ or len(targets) == 1 else _newest(having, metric)
    _refuse_differences(entries, metric)
    if len(entries) < 2:
        raise SaganError(
            f"{targets[0]}: only one score with {metric} to rank: score another checkpoint, or name another run"
        )
    entries = ranked(entries, metric)
    _note_unknowns(entries)
    if json_:
        console.emit_json(_report(entries, metric))
    else:
        console.result(_table(entries, metric))
    if any(e.overlaps for e in entries):
        console.note("~ the 95 % interval overlaps that of the line above: the difference may be due to chance")


def ranked(entries: Sequence[Ranked], metric: str) -> list[Ranked]:
    """Sort by value, best first; equal values share a rank, and overlapping neighbours are marked."""
    sign = 1 if records.better(metric) == "lower" else -1
    ordered = sorted(entries, key=lambda e: sign * e.value)
    values = [e.value for e in ordered]
    return [
        Ranked(e.name, e.record, e.value, e.interval, 1 + values.index(e.value), i > 0 and _meet(ordered[i - 1], e))
        for i, e in enumerate(ordered)
    ]


def _read(target: str) -> list[Record]:
    if target == "-":
        return records.parse(sys.stdin.read(), "stdin")
    return records.read_records(Path(target))


def _having(target: str, found: list[Record], metric: str) -> list[Record]:
    """Return the records that have a value of the metric."""
    having = [r for r in found if metric in r["values"]]
    if having and metric_of(metric) is None:
        raise SaganError(f"{target}: no installed metric computes '{metric}'; install its plugin, or use --metric")
    if not having:
        there = ", ".join(dict.fromkeys(m for r in reversed(found) for m in r["values"]))
        raise SaganError(f"{target}: has no score with {metric}, only {there}; add it with 'sagan eval-fid --metrics'")
    return having


def _newest(having: dict[str, list[Record]], metric: str) -> list[Ranked]:
    """Return the newest record of each target."""
    for target, its in having.items():
        if len(its) > 1:
            console.note(f"{target}: the newest of {len(its)} scores with {metric}{_step(its[-1], ', of step ')}")
    return [_entry(target, its[-1], metric) for target, its in having.items()]


def _all(having: dict[str, list[Record]], metric: str) -> list[Ranked]:
    """Return all records comparable with the newest of the first target, one for each checkpoint and seed."""
    reference = next(iter(having.values()))[-1]
    entries: list[Ranked] = []
    for target, its in having.items():
        kept: dict[str, Record] = {}
        left_out: Counter[str] = Counter()
        for record in its:
            differs = records.difference(record, reference, metric)
            if differs is None:
                # A model is identified by its weights, because its path may have changed.
                who = ("step", "checkpoint_sha256", "seed") if records.is_model(record) else ("fake",)
                kept[str([record.get(key) for key in who])] = record
            else:
                left_out[f"{differs[0]} {_brief(differs[1])}, not {_brief(differs[2])}"] += 1
        for why, count in left_out.items():
            console.note(f"{target}: {count} of {len(its)} scores left out: {why}")
        # The scores of a file have their own names; a run has the name that the user gave.
        own_name = not Path(target).is_dir() and len({r["fake"] for r in its}) > 1
        entries += [_entry(r["fake"] if own_name else target, r, metric) for r in kept.values()]
    return entries


def _entry(name: str, record: Record, metric: str) -> Ranked:
    return Ranked(name, record, record["values"][metric], records.interval(record, metric))


def _refuse_differences(entries: list[Ranked], metric: str) -> None:
    # Every pair: a field may be unknown for images in a folder, but differ between two models.
    for a, b in combinations(entries, 2):
        differs = records.difference(a.record, b.record, metric)
        if differs is not None:
            field, one, two = differs
            way_out = WAY_OUT.get(field, "the same --protocol")
            raise SaganError(
                f"{a.name} and {b.name} cannot be ranked by {metric}: {field} is {_brief(one)} for the first and "
                f"{_brief(two)} for the second; score one again with {way_out}"
            )


def _note_unknowns(entries: list[Ranked]) -> None:
    images = [e.name for e in entries if not records.is_model(e.record)]
    if images and len(images) < len(entries):
        console.note(f"{', '.join(images)}: sampling settings are unknown ({', '.join(records.DRAWN)})")
    if any(e.record.get("weights_published") is False for e in entries):
        console.note(
            "the extractor's weights are not the published ones: these scores cannot be compared with published ones"
        )


def _meet(a: Ranked, b: Ranked) -> bool:
    if a.interval is None or b.interval is None:
        return False
    return a.interval[0] <= b.interval[1] and b.interval[0] <= a.interval[1]


def _report(entries: list[Ranked], metric: str) -> dict[str, Any]:
    """Return the ranking as JSON; `shared` has the fields that are equal."""
    # Only a model's record has all fields.
    fullest = next((e.record for e in entries if records.is_model(e.record)), entries[0].record)
    return {
        "metric": metric,
        "better": records.better(metric),
        "ranking": [
            {
                "rank": e.rank, "name": e.name, "value": e.value, "interval": e.interval,
                "overlaps_previous": e.overlaps, "extractor": e.record["extractor"],
                **{key: e.record.get(key) for key in ("fake", "checkpoint", "step", "seed", "protocol", "time")},
            }
            for e in entries
        ],
        "shared": {field: fullest.get(field) for field in records.comparable(metric)},
    }  # fmt: skip


def _table(entries: list[Ranked], metric: str) -> str:
    rows = [("RANK", "", metric.upper(), "95 % INTERVAL", "STEP", "EXTRACTOR", "NAME")]
    for e in entries:
        span = "-" if e.interval is None else " .. ".join(records.shown(metric, bound) for bound in e.interval)
        rows.append((
            str(e.rank), "~" if e.overlaps else "", records.shown(metric, e.value), span,
            _step(e.record) or "-", e.record["extractor"] or "-", e.name,
        ))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def _step(record: Record, before: str = "") -> str:
    step = record.get("step")
    return "" if step is None else f"{before}{step}"


def _brief(value: Any) -> str:
    """Return a value for a message; digests are shortened."""
    if value is None:
        return "not given"
    text = str(value)
    return text[:SHORT] if len(text) >= 40 and text.isalnum() else text
