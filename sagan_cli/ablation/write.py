"""The files that `sagan ablate` writes: the object, the document and the figure of the seeds that are complete."""

from __future__ import annotations

import json
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sagan_cli import __version__
from sagan_cli.ablation import output as ablate_output
from sagan_cli.config.resolve import Resolved
from sagan_cli.config.systems import named_in
from sagan_cli.files import write_atomic

if TYPE_CHECKING:
    from sagan_cli.ablation.twins import Twin
    from sagan_cli.engine.job import Job


def write(
    resolved: Resolved, job: Job, twins: list[Twin], rows: list[dict[str, Any]], folder: Path, n: int, extractor: str
) -> dict[str, Any]:
    """ablation.json, ablation.md and ablation.png of the seeds that are complete."""
    from sagan_cli.ablation.curves import curves
    from sagan_cli.attention.raster import png

    cfg = resolved.config.train
    names = list(dict.fromkeys(t.variant.name for t in twins))
    variants = ablate_output.summary(names, rows)
    result: dict[str, Any] = {
        "kind": "ablation", "format": 1, "sagan": __version__, "command": shlex.join(["sagan", *sys.argv[1:]]),
        "time": datetime.now(UTC).isoformat(timespec="seconds"), "arch": resolved.config.model.arch,
        "system": named_in(resolved.sources), "data": resolved.config.data.data, "data_digest": job.pack.digest,
        "size": f"{job.spec.height}x{job.spec.width}", "steps": cfg.steps,
        "batch": cfg.batch, "base_width": job.spec.base_width, "n": n, "extractor": extractor,
        "seeds": list(dict.fromkeys(r["seed"] for r in rows)), "seeds_wanted": len({t.seed for t in twins}),
        "variants": variants, "runs": rows, "verdicts": ablate_output.verdicts(variants, rows),
    }  # fmt: skip
    write_atomic(folder / "ablation.json", (json.dumps(result, indent=1, ensure_ascii=False) + "\n").encode())
    write_atomic(folder / "ablation.md", ablate_output.document(result).encode())
    lines = [
        f"{result['data']} at {result['size']}, {cfg.steps} steps of {cfg.batch}, {n} pictures of each run; "
        "a dot is a seed, the tick their mean"
    ]
    drawing = curves(ablate_output.panels(variants, rows), title="Does attention pay?", lines=lines)
    about = {k: result[k] for k in ("command", "data", "data_digest", "size", "steps", "seeds")}
    write_atomic(folder / "ablation.png", png(drawing, about, scale=2))
    return result
