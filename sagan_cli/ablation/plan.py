"""`sagan ablate --plan`: the runs, their parameters and the estimated training time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sagan_cli import console
from sagan_cli.runs import Run

if TYPE_CHECKING:
    from sagan_cli.ablation.trials import Trial
    from sagan_cli.config.resolve import Resolved
    from sagan_cli.engine.runtime import Runtime


def print_plan(resolved: Resolved, trials: list[Trial], folder: Path, runtime: Runtime, json_: bool) -> None:
    """Print the plan to stdout as a table or JSON; write nothing."""
    from sagan_cli.ablation.trials import parameters, seconds_per_step, steps_done

    config = resolved.config
    rows: list[dict[str, Any]] = []
    for variant in dict.fromkeys(t.variant for t in trials):
        own = [t for t in trials if t.variant == variant]
        settings = own[0].resolved(resolved).config
        shape = own[0].spec
        g, d = parameters(config.model.arch, shape)
        left = sum(config.train.steps - steps_done(Run(t.folder(folder))) for t in own)
        each = seconds_per_step(settings, shape, runtime)
        rows.append({
            "variant": variant.name, "attention": variant.attention, "sides": list(shape.attn_at),
            "g_parameters": g, "d_parameters": d, "runs": len(own), "steps_left": left, "seconds_per_step": each,
            "seconds_left": left * each,
        })  # fmt: skip
    total = sum(float(row["seconds_left"]) for row in rows)
    if json_:
        console.emit_json({"out": str(folder), "steps": config.train.steps, "twins": rows, "seconds_left": total})
        return
    console.result(_table(rows))
    console.note(f"{len(trials)} runs under {folder}; about {console.clock(total)} of training on {runtime.device}")


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table with one row per variant."""
    lines = ["| attention | G | D | runs | steps left | ms/step | time |", "|---" * 7 + "|"]
    lines += [
        f"| {r['variant']} | {r['g_parameters']:,} | {r['d_parameters']:,} | {r['runs']} | {r['steps_left']:,} | "
        f"{r['seconds_per_step'] * 1000:.0f} | {console.clock(r['seconds_left'])} |"
        for r in rows
    ]
    return "\n".join(lines)
