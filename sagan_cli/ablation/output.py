"""What an ablation came to: the object, the table, the figure's panels, and the verdict in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sagan_cli.ablation.curves import Panel
    from sagan_cli.ablation.paired import Comparison

Row = Mapping[str, Any]

MEASURES: dict[str, tuple[str, int, bool]] = {
    # name: title, which way is better (0: neither), whether it is a share
    "structure": ("built right", 1, True), "fid": ("FID", -1, False),
    "spread": ("spread", 0, True),
    "distinct": ("distinct samples", 0, True), "images_per_second": ("images/s in training", 0, False),
}  # fmt: skip
JUDGED = ("structure", "fid", "spread")
DRAWN = ("structure", "fid", "spread")


def summary(names: Sequence[str], runs: Sequence[Row]) -> list[dict[str, Any]]:
    """One object per variant, in order: mean, least and largest of each measure over the seeds, and pooled shares."""
    from sagan_cli.ablation.paired import t_interval, wilson

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


def verdicts(variants: Sequence[Row], runs: Sequence[Row]) -> list[dict[str, Any]]:
    """Each variant against `none`, and attention against the residual control at the same sides, by measure."""
    from sagan_cli.ablation.paired import compare

    found = []
    for variant in variants:
        for other in _opponents(variant, variants):
            for measure in JUDGED:
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
    """`better`, `worse`, `more`, `less`, `noise`, or `unknown` for a single seed."""
    if compared.interval is None:
        return "unknown"
    if not compared.sign:
        return "noise"
    way = MEASURES[measure][1]
    words = ("more", "less") if not way else ("better", "worse")
    return words[0] if compared.sign * (way or 1) > 0 else words[1]


def sentence(variant: Row, other: Row, measure: str, compared: Comparison) -> str:
    """The verdict in words: by how much, or that nobody can tell."""
    title, way, share = MEASURES[measure]
    head = f"{variant['variant']} against {other['variant']}, {title}: "
    verdict, gain = outcome(compared, measure), compared.difference * (way or 1)
    tail = _pooled(variant, other) if measure == "structure" else ""
    if compared.interval is None:
        return f"{head}{_signed(compared.difference, share)} in one seed, whose noise is not known{tail}"
    low, high = sorted(end * (way or 1) for end in compared.interval)
    if verdict == "noise":
        reach = f"interval {_bound(compared.interval[0], share)} to {_bound(compared.interval[1], share)}"
        mean = _signed(compared.difference, share)
        return f"{head}the difference lies inside the noise of {compared.seeds} seeds ({mean}, {reach}){tail}"
    if verdict in ("worse", "less"):
        gain, low, high = -gain, -high, -low
    unit = _amount(gain, share)
    return f"{head}{verdict} by {unit} (interval {_bound(low, share)} to {_bound(high, share)}){tail}"


def table(variants: Sequence[Row]) -> str:
    """Markdown: a row per variant."""
    measures = [m for m in MEASURES if any(m in v["values"] for v in variants)]
    head = ["attention", "G", "D", *(MEASURES[m][0] for m in measures), "gamma", "strength"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for v in variants:
        cells = [v["variant"], f"{v['g_parameters']:,}", f"{v['d_parameters']:,}"]
        cells += [_cell(v["values"].get(m), m) for m in measures]
        cells += [", ".join(f"{k} {_plain(x)}" for k, x in v[key].items()) or "-" for key in ("gamma", "strength")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def document(result: Row) -> str:
    """The whole of `ablation.md`."""
    seeds = ", ".join(map(str, result["seeds"]))
    said = [f"- {v['sentence']}" for v in result["verdicts"]]
    lines = [
        "# Does attention pay?", "", f"    {result['command']}", "",
        f"{result['data']} at {result['size']}, {result['steps']} steps of {result['batch']} pictures, seeds {seeds}; "
        f"{result['n']} pictures of each run's moving average, the same seeds for all.", "",
        table(result["variants"]), "",
        "Mean over the seeds, and in brackets the least and the largest. For the share built right the brackets hold "
        "the Wilson 95 % interval of all seeds' pictures together, which knows the noise of drawing and not that of "
        "training. Spread is the mean deviation of a pixel within a class, over the data's own: little of it is a "
        "collapse. Distinct samples have no near twin in their class. Verdicts are paired by seed: a 95 % t interval "
        "of the differences. Each holds for itself: of twenty, one is expected to err.", "",
        "![the same as a figure](ablation.png)", "", "## Verdict", "",
        *(said or ["No verdict: add none to --attn, which the others are held against."]), "",
    ]  # fmt: skip
    return "\n".join(lines)


def panels(variants: Sequence[Row], runs: Sequence[Row]) -> list[Panel]:
    """What the figure draws: the measures that are there, and speed where there is nothing else."""
    from sagan_cli.ablation.curves import Bar, Panel

    found = []
    present = [m for m in DRAWN if any(m in v["values"] for v in variants)] or ["images_per_second"]
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


def _opponents(variant: Row, variants: Sequence[Row]) -> list[Row]:
    plain = [v for v in variants if not v["sides"] and v["variant"] != variant["variant"]]
    control = [v for v in variants if v["attention"] == "residual" and _place(v) == _place(variant)]
    return plain + (control if variant["attention"] != "residual" and variant["sides"] else [])


def _place(variant: Row) -> tuple[Any, ...]:
    """Where its blocks stand: the sides, and what the architecture noted besides."""
    return variant["sides"], {k: v for k, v in variant["options"].items() if k != "attention"}


def _by_seed(runs: Sequence[Row], measure: str) -> dict[int, float]:
    return {r["seed"]: r["values"][measure] for r in runs if r["values"].get(measure) is not None}


def _means(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: fmean(own[key] for own in found) for key in (found[0] if found else {})}


def _pooled(variant: Row, other: Row) -> str:
    """The pooled shares beside each other; nothing where a variant has none."""
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
    """In the unit of the number before it."""
    return f"{value * 100:.1f}" if share else _plain(value)


def _signed(value: float, share: bool) -> str:
    return ("+" if value >= 0 else "") + _amount(value, share)


def _plain(value: float) -> str:
    text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return "0" if float(text) == 0 else text
