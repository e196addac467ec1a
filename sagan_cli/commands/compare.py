"""`sagan compare`: scores side by side, best first, or the reason why they cannot stand there."""

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
from sagan_cli.errors import SaganError, UsageError, closest
from sagan_cli.evaluation import records
from sagan_cli.evaluation.metrics.table import direction, of_values
from sagan_cli.evaluation.records import Record

WAY_OUT = {
    "extractor": "the same --extractor",
    "weights_sha256": "the same --weights",
    "data_digest": "the same --data",
    "split": "the same --split",
    "n_fake": "the same -n",
    "n_real": "the same --n-real",
    "real_size": "real pictures of the same size (--fit brings them to it)",
    "fit": "the same --fit",
    "precision": "the same --precision",
}
"""Field -> what of `sagan eval-fid` makes it agree; a --protocol for all others."""
SHORT = 12
"""Digits that are shown of a digest."""


@dataclass(frozen=True)
class Entry:
    """One line of the ranking."""

    name: str
    """What was scored, as the user called it."""
    record: Record
    value: float
    interval: tuple[float, float] | None
    rank: int = 0
    overlaps: bool = False
    """Whether its interval meets that of the entry above."""


def compare(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|CHECKPOINT|FILE",
            help="What has a score: a run, a checkpoint, a file of 'sagan eval-fid --json', or - for stdin. The newest "
            "score of each is taken; one alone has all its scores ranked.",
        ),
    ],
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Number to rank by, as in fid or recall; default the first one that was asked of eval-fid.",
        ),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Every score of each, as far as it compares with the first one's newest.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only on stderr.")] = False,
) -> None:
    """Rank scores; stop if they were measured differently.

    Two scores compare when the same extractor and weights looked at as many pictures of the same data, drawn in the
    same manner; the exit code is 1 where they do not, and the message names what differs.

    Examples:

      sagan compare runs/001-a runs/002-b

      sagan compare runs/001-a --metric kid

      sagan eval-fid pictures/ --data real/ --json | sagan compare runs/001-a -
    """  # fmt: skip
    console.set_quiet(quiet)
    known = of_values()
    if metric is not None and metric not in known:
        raise UsageError(f"--metric {metric}: no such metric{closest(metric, known)}; there are {', '.join(known)}")
    if len(set(targets)) < len(targets):
        twice = next(t for t in targets if targets.count(t) > 1)
        raise UsageError(f"{twice}: stands there twice, and would be compared with itself")
    found = {target: _read(target) for target in targets}
    metric = metric or str(found[targets[0]][-1]["metric"])
    having = {target: _having(target, its, metric) for target, its in found.items()}
    entries = _every(having, metric) if all_ or len(targets) == 1 else _newest(having, metric)
    _refuse_differences(entries, metric)
    if len(entries) < 2:
        raise SaganError(
            f"{targets[0]}: only one score with {metric} to rank: score another checkpoint, or name a rival"
        )
    entries = ranked(entries, metric)
    _say_what_is_unknown(entries)
    if json_:
        console.emit_json(_report(entries, metric))
    else:
        console.result(_table(entries, metric))
    if any(e.overlaps for e in entries):
        console.note("~ the 95 % interval overlaps that of the line above: the difference is no evidence")


def ranked(entries: Sequence[Entry], metric: str) -> list[Entry]:
    """Best first, equal values on one rank, and marked where neighbours' intervals overlap."""
    sign = 1 if direction(metric) == "lower" else -1
    ordered = sorted(entries, key=lambda e: sign * e.value)
    values = [e.value for e in ordered]
    return [
        Entry(e.name, e.record, e.value, e.interval, 1 + values.index(e.value), i > 0 and _meet(ordered[i - 1], e))
        for i, e in enumerate(ordered)
    ]


def _read(target: str) -> list[Record]:
    if target == "-":
        return records.parse(sys.stdin.read(), "stdin")
    return records.read_records(Path(target))


def _having(target: str, found: list[Record], metric: str) -> list[Record]:
    """Those records that have a value of the metric."""
    having = [r for r in found if metric in r["values"]]
    if having and direction(metric) is None:
        raise SaganError(f"{target}: '{metric}' is not a metric that this version of sagan can rank; use --metric")
    if not having:
        there = ", ".join(dict.fromkeys(m for r in reversed(found) for m in r["values"]))
        raise SaganError(f"{target}: has no score with {metric}, only {there}; add it with 'sagan eval-fid --metrics'")
    return having


def _newest(having: dict[str, list[Record]], metric: str) -> list[Entry]:
    """The newest record of each."""
    for target, its in having.items():
        if len(its) > 1:
            console.note(f"{target}: the newest of {len(its)} scores with {metric}{_step(its[-1], ', of step ')}")
    return [_entry(target, its[-1], metric) for target, its in having.items()]


def _every(having: dict[str, list[Record]], metric: str) -> list[Entry]:
    """All records that compare with the first target's newest, once for each checkpoint and seed."""
    reference = next(iter(having.values()))[-1]
    entries: list[Entry] = []
    for target, its in having.items():
        kept: dict[str, Record] = {}
        left_out: Counter[str] = Counter()
        for record in its:
            differs = records.difference(record, reference, metric)
            if differs is None:
                # A model is known by its weights, under whatever path it was scored.
                who = ("step", "checkpoint_sha256", "seed") if records.is_model(record) else ("fake",)
                kept[str([record.get(key) for key in who])] = record
            else:
                left_out[f"{differs[0]} {_brief(differs[1])}, not {_brief(differs[2])}"] += 1
        for why, count in left_out.items():
            console.note(f"{target}: {count} of {len(its)} scores left out: {why}")
        # In a file of scores each has its own name; a run is called what the user called it.
        own_name = not Path(target).is_dir() and len({r["fake"] for r in its}) > 1
        entries += [_entry(r["fake"] if own_name else target, r, metric) for r in kept.values()]
    return entries


def _entry(name: str, record: Record, metric: str) -> Entry:
    return Entry(name, record, record["values"][metric], records.interval(record, metric))


def _refuse_differences(entries: list[Entry], metric: str) -> None:
    # Every pair: what holds between a model and pictures, and the pictures and another model, need not between models.
    for a, b in combinations(entries, 2):
        differs = records.difference(a.record, b.record, metric)
        if differs is not None:
            field, one, two = differs
            way_out = WAY_OUT.get(field, "the same --protocol")
            raise SaganError(
                f"{a.name} and {b.name} cannot be ranked by {metric}: {field} is {_brief(one)} for the first and "
                f"{_brief(two)} for the second; score one again with {way_out}"
            )


def _say_what_is_unknown(entries: list[Entry]) -> None:
    pictures = [e.name for e in entries if not records.is_model(e.record)]
    if pictures and len(pictures) < len(entries):
        console.note(f"{', '.join(pictures)}: how they were drawn is not known ({', '.join(records.DRAWN)})")
    if any(e.record.get("weights_published") is False for e in entries):
        console.note("the extractor's weights are not the published ones: these scores compare with no paper's")


def _meet(a: Entry, b: Entry) -> bool:
    if a.interval is None or b.interval is None:
        return False
    return a.interval[0] <= b.interval[1] and b.interval[0] <= a.interval[1]


def _report(entries: list[Entry], metric: str) -> dict[str, Any]:
    """The ranking as JSON; `shared` is what all were measured by."""
    # A model's record knows how it was drawn, a folder's does not.
    fullest = next((e.record for e in entries if records.is_model(e.record)), entries[0].record)
    return {
        "metric": metric,
        "better": direction(metric),
        "ranking": [
            {
                "rank": e.rank, "name": e.name, "value": e.value, "interval": e.interval,
                "overlaps_previous": e.overlaps, "extractor": e.record["extractor"],
                **{key: e.record.get(key) for key in ("fake", "checkpoint", "step", "seed", "protocol", "time")},
            }
            for e in entries
        ],
        "shared": {field: fullest[field] for field in records.comparable(metric)},
    }  # fmt: skip


def _table(entries: list[Entry], metric: str) -> str:
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
    """A value in a message: digests shortened, what is not given called so."""
    if value is None:
        return "not given"
    text = str(value)
    return text[:SHORT] if len(text) >= 40 and text.isalnum() else text
