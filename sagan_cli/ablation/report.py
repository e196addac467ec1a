"""The report of an ablation: ablation.json, ablation.md with table and verdicts, and the panels of ablation.png."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from sagan_cli import __version__
from sagan_cli.ablation.statistics import Comparison, compare, t_interval, wilson
from sagan_cli.config.resolve import Resolved
from sagan_cli.config.systems import named_in
from sagan_cli.files import encoded, write_atomic

if TYPE_CHECKING:
    from sagan_cli.ablation.curves import Panel
    from sagan_cli.ablation.trials import Trial
    from sagan_cli.engine.job import Job

Json = Mapping[str, Any]

MEASURES: dict[str, tuple[str, int, bool]] = {
    # name: title; 1 if higher is better, -1 if lower is, 0 if neither; whether it is a share
    "structure": ("correct images", 1, True), "fid": ("FID", -1, False),
    "spread": ("spread", 0, True),
    "distinct": ("distinct images", 0, True), "images_per_second": ("images/s in training", 0, False),
}  # fmt: skip
NO_BASELINE = "add none to --attn, the baseline of all comparisons"
COMPARED = ("structure", "fid", "spread")
"""Measures with verdicts and panels."""


def write_report(
    resolved: Resolved, job: Job, trials: list[Trial], rows: list[dict[str, Any]], folder: Path, n: int, extractor: str
) -> dict[str, Any]:
    """Write ablation.json, ablation.md and ablation.png of the complete seeds; return the content of the first.

    Args:
        rows: one object per run, as ablation.json holds them under `runs`.
        n: generated images per run.
    """
    from sagan_cli.ablation.curves import curves
    from sagan_cli.attention.plotting import encode

    cfg = resolved.config.train
    names = list(dict.fromkeys(t.variant.name for t in trials))
    variants = summary(names, rows)
    result: dict[str, Any] = {
        "kind": "ablation", "format": 1, "sagan": __version__, "command": shlex.join(["sagan", *sys.argv[1:]]),
        "time": datetime.now(UTC).isoformat(timespec="seconds"), "arch": resolved.config.model.arch,
        "system": named_in(resolved.sources), "data": resolved.config.data.data, "data_digest": job.pack.digest,
        "size": f"{job.spec.height}x{job.spec.width}", "steps": cfg.steps,
        "batch": cfg.batch, "base_width": job.spec.base_width, "n": n, "extractor": extractor,
        "seeds": list(dict.fromkeys(r["seed"] for r in rows)), "seeds_wanted": len({t.seed for t in trials}),
        "variants": variants, "runs": rows, "verdicts": verdicts(variants, rows),
    }  # fmt: skip
    write_atomic(folder / "ablation.json", encoded(json.dumps(result, indent=1, ensure_ascii=False) + "\n"))
    write_atomic(folder / "ablation.md", document(result).encode())
    lines = [
        f"{result['data']} at {result['size']}, {cfg.steps} steps of {cfg.batch}, {n} images per run; "
        "dots: seeds, tick: mean"
    ]
    plot = curves(panels(variants, rows), title="Effect of attention", lines=lines)
    about = {k: result[k] for k in ("command", "data", "data_digest", "size", "steps", "seeds")}
    write_atomic(folder / "ablation.png", encode(plot, "png", about, scale=2))
    return result


def summary(names: Sequence[str], runs: Sequence[Json]) -> list[dict[str, Any]]:
    """Return one object per variant: mean, minimum and maximum of each measure over the seeds, and pooled shares."""
    found = []
    for name in names:
        own = [run for run in runs if run["variant"] == name]
        first = own[0]
        values: dict[str, dict[str, Any]] = {}
        for measure in MEASURES:
            numbers = _by_seed(own, measure)
            if numbers:
                every = list(numbers.values())
                interval = t_interval(every)
                values[measure] = {
                    "mean": fmean(every), "min": min(every), "max": max(every), "seeds": len(every),
                    "interval": list(interval) if interval else None,
                }  # fmt: skip
        if "structure" in values:
            hits, count = sum(r["structure_hits"] for r in own), sum(r["n"] for r in own)
            values["structure"]["pooled"] = {"hits": hits, "count": count, "interval": list(wilson(hits, count))}
        keys = ("variant", "attention", "sides", "options", "g_parameters", "d_parameters")
        layers = {k: _means([run[k] for run in own]) for k in ("gamma", "strength")}
        found.append({**{k: first[k] for k in keys}, "values": values, **layers})
    return found


def verdicts(variants: Sequence[Json], runs: Sequence[Json]) -> list[dict[str, Any]]:
    """Compare each variant with `none`, and attention with the residual control at the same maps, per measure."""
    found = []
    for variant in variants:
        for other in _opponents(variant, variants):
            for measure in COMPARED:
                mine, theirs = (
                    _by_seed([r for r in runs if r["variant"] == v["variant"]], measure) for v in (variant, other)
                )
                compared = compare(mine, theirs)
                if compared is not None:
                    found.append({
                        "variant": variant["variant"], "against": other["variant"], "measure": measure,
                        "difference": compared.difference,
                        "interval": list(compared.interval) if compared.interval else None,
                        "seeds": compared.seeds, "verdict": outcome(compared, measure),
                        "sentence": sentence(variant, other, measure, compared),
                    })  # fmt: skip
    return found


def outcome(compared: Comparison, measure: str) -> str:
    """Return `better`, `worse`, `more`, `less`, `noise` (not significant), or `unknown` for a single seed."""
    if compared.interval is None:
        return "unknown"
    if not compared.sign:
        return "noise"
    way = MEASURES[measure][1]
    words = ("more", "less") if not way else ("better", "worse")
    return words[0] if compared.sign * (way or 1) > 0 else words[1]


def sentence(variant: Json, other: Json, measure: str, compared: Comparison) -> str:
    """Return the verdict as a sentence."""
    title, way, share = MEASURES[measure]
    head = f"{variant['variant']} against {other['variant']}, {title}: "
    verdict, gain = outcome(compared, measure), compared.difference * (way or 1)
    tail = _pooled(variant, other) if measure == "structure" else ""
    if compared.interval is None:
        return f"{head}{_signed(compared.difference, share)} with one seed, so its noise is unknown{tail}"
    low, high = sorted(end * (way or 1) for end in compared.interval)
    if verdict == "noise":
        reach = f"interval {_bound(compared.interval[0], share)} to {_bound(compared.interval[1], share)}"
        mean = _signed(compared.difference, share)
        return f"{head}the difference is within the noise of {compared.seeds} seeds ({mean}, {reach}){tail}"
    if verdict in ("worse", "less"):
        gain, low, high = -gain, -high, -low
    unit = _amount(gain, share)
    return f"{head}{verdict} by {unit} (interval {_bound(low, share)} to {_bound(high, share)}){tail}"


def table(variants: Sequence[Json]) -> str:
    """Return a Markdown table with one row per variant."""
    measures = [m for m in MEASURES if any(m in v["values"] for v in variants)]
    head = ["attention", "G", "D", *(MEASURES[m][0] for m in measures), "gamma", "strength"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for v in variants:
        cells = [v["variant"], f"{v['g_parameters']:,}", f"{v['d_parameters']:,}"]
        cells += [_cell(v["values"].get(m), m) for m in measures]
        cells += [", ".join(f"{k} {_plain(x)}" for k, x in v[key].items()) or "-" for key in ("gamma", "strength")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def document(result: Json) -> str:
    """Return the text of `ablation.md`."""
    seeds = ", ".join(map(str, result["seeds"]))
    sentences = [f"- {v['sentence']}" for v in result["verdicts"]]
    lines = [
        "# Effect of attention", "", f"    {result['command']}", "",
        f"{result['data']} at {result['size']}, {result['steps']} steps of {result['batch']} images, seeds {seeds}; "
        f"{result['n']} images of each run's EMA, from the same seeds.", "",
        table(result["variants"]), "",
        "Mean over the seeds (minimum to maximum). For the share of correct images the brackets are the Wilson 95 % "
        "interval of the images of all seeds, which covers the noise of sampling, not of training. Spread is the mean "
        "standard deviation of a pixel within a class relative to the data's; low values mean mode collapse. Distinct "
        "images have no near duplicate in their class. Verdicts are 95 % t intervals of the differences paired by "
        "seed, without correction for multiple comparisons: of twenty, one is expected to be wrong.", "",
        "![The measures of the table](ablation.png)", "", "## Verdict", "",
        *(sentences or [f"No verdict: {NO_BASELINE}."]), "",
    ]  # fmt: skip
    return "\n".join(lines)


def panels(variants: Sequence[Json], runs: Sequence[Json]) -> list[Panel]:
    """Return the panels of the figure: the measures that exist, or the speed."""
    from sagan_cli.ablation.curves import Bar, Panel

    found = []
    present = [m for m in COMPARED if any(m in v["values"] for v in variants)] or ["images_per_second"]
    for measure in present:
        title, way, share = MEASURES[measure]
        pooled = measure == "structure"
        bars = []
        for v in variants:
            numbers = _by_seed([r for r in runs if r["variant"] == v["variant"]], measure)
            facts = v["values"].get(measure, {})
            interval = facts["pooled"]["interval"] if pooled and facts else facts.get("interval")
            bars.append(Bar(v["variant"], tuple(numbers.values()), (interval[0], interval[1]) if interval else None))
        up = {1: "higher is better; ", -1: "lower is better; ", 0: ""}[way]
        about = f"{up}bars: 95 %, " + ("Wilson, pooled" if pooled else "t over seeds")
        found.append(Panel(title, about, bars, share))
    return found


def _opponents(variant: Json, variants: Sequence[Json]) -> list[Json]:
    plain = [v for v in variants if not v["sides"] and v["variant"] != variant["variant"]]
    control = [v for v in variants if v["attention"] == "residual" and _place(v) == _place(variant)]
    return plain + (control if variant["attention"] != "residual" and variant["sides"] else [])


def _place(variant: Json) -> tuple[Any, ...]:
    """Return its sides and options, which identify the attention maps."""
    return variant["sides"], {k: v for k, v in variant["options"].items() if k != "attention"}


def _by_seed(runs: Sequence[Json], measure: str) -> dict[int, float]:
    return {r["seed"]: r["values"][measure] for r in runs if r["values"].get(measure) is not None}


def _means(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: fmean(own[key] for own in found) for key in (found[0] if found else {})}


def _pooled(variant: Json, other: Json) -> str:
    """Return the pooled shares of both variants as text; "" if one has none."""
    parts, intervals = [], []
    for row in (variant, other):
        facts = row.get("values", {}).get("structure", {}).get("pooled")
        if facts is None:
            return ""
        low, high = facts["interval"]
        intervals.append((low, high))
        parts.append(f"{facts['hits'] / facts['count']:.1%} ({low:.1%} to {high:.1%})")
    apart = intervals[0][0] > intervals[1][1] or intervals[1][0] > intervals[0][1]
    return f"; pooled over seeds {parts[0]} and {parts[1]}, which {'do not overlap' if apart else 'overlap'}"


def _cell(facts: Mapping[str, Any] | None, measure: str) -> str:
    if facts is None:
        return "-"
    share = MEASURES[measure][2]
    ends = facts["pooled"]["interval"] if "pooled" in facts else (facts["min"], facts["max"])
    low, mean, high = (f"{v:.1%}" if share else _plain(v) for v in (ends[0], facts["mean"], ends[1]))
    return f"{mean} ({low} to {high})"


def _amount(value: float, share: bool) -> str:
    return f"{value * 100:.1f} points" if share else _plain(value)


def _bound(value: float, share: bool) -> str:
    """Format without unit, after a number that has one."""
    return f"{value * 100:.1f}" if share else _plain(value)


def _signed(value: float, share: bool) -> str:
    return ("+" if value >= 0 else "") + _amount(value, share)


def _plain(value: float) -> str:
    text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return "0" if float(text) == 0 else text
