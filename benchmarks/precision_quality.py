"""The effect of the default precision on quality: runs in the default settings and in exact fp32, seed by seed.

    python benchmarks/precision_quality.py --threads 1                    # docs/results/precision_quality.json
    python benchmarks/precision_quality.py --data quadrupeds --steps 300 --seeds 0 1
    python benchmarks/precision_quality.py --table

Each run is `sagan train --preset laptop-hinge`, scored by `sagan eval-fid --extractor classifier`; images are drawn in
fp32 for both settings. Existing runs and scores are reused, so that the benchmark can be interrupted; results of other
datasets, lengths and seeds are kept. *Default* and *exact* of one seed use the same images and latents.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from sagan_cli.ablation.statistics import compare

OUT = Path(__file__).parent.parent / "docs" / "results" / "precision_quality.json"
FASHION = "/usr/share/datasets/fashion-mnist"
SETTINGS = {"exact": ["--precision", "fp32"], "default": []}
Row = dict[str, Any]


def sagan(*words: str) -> str:
    """Run a command and return its stdout."""
    command = [sys.executable, "-m", "sagan_cli", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def measure(data: str, setting: str, seed: int, steps: int, n: int, work: Path) -> Row:
    """Train a run, or finish it, and return its score."""
    run = work / f"{Path(data).name}-{steps}-{setting}-seed{seed}"
    sagan(
        "train", "--quiet", "--preset", "laptop-hinge", "--data", data, "--seed", str(seed), "--steps", str(steps),
        "--grid-every", "100000", "--save-every", "100000", "--out", str(run), *SETTINGS[setting],
    )  # fmt: skip
    kept = run / "precision_quality.json"
    if not kept.exists():
        told = sagan("eval-fid", str(run), "--extractor", "classifier", "-n", str(n), "--quiet", "--json")
        kept.write_text(told, encoding="utf-8")
    values = json.loads(kept.read_text(encoding="utf-8"))["values"]
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    machine = record["machine"]["precision"]
    return {"data": Path(data).name, "steps": steps, "setting": setting, "precision": machine, "seed": seed, **values}


def key(row: Row) -> tuple[str, int, str, int]:
    """Return the key of a run; results of several calls are kept in one file."""
    return row["data"], row["steps"], row["setting"], row["seed"]


def verdicts(rows: list[Row]) -> list[Row]:
    """Return the mean difference of default and exact and the seeds' deviation, by dataset, length and measure."""
    found = []
    for data, steps in dict.fromkeys((row["data"], row["steps"]) for row in rows):
        for measure_name in ("fid", "structure"):
            by: dict[str, dict[int, float]] = {
                setting: {
                    r["seed"]: r[measure_name]
                    for r in rows
                    if (r["data"], r["steps"], r["setting"]) == (data, steps, setting)
                    and r.get(measure_name) is not None
                }
                for setting in SETTINGS
            }
            difference = compare(by["default"], by["exact"])
            if difference is None:
                continue
            apart = max((stdev(v.values()) for v in by.values() if len(v) > 1), default=float("nan"))
            found.append({
                "data": data, "steps": steps, "measure": measure_name, "seeds": difference.seeds,
                **{setting: fmean(values.values()) for setting, values in by.items()},
                "difference": difference.difference, "interval": difference.interval,
                "deviation_of_seeds": apart, "inside": abs(difference.difference) <= apart,
            })  # fmt: skip
    return found


def table(found: dict[str, Any]) -> str:
    """Return a Markdown table: one row per dataset, length and measure."""
    head = ["data", "steps", "measure", "exact", "default", "difference (95 % interval)", "seeds differ by", ""]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for v in found["verdicts"]:
        low, high = v["interval"] or (float("nan"), float("nan"))
        names = {"fid": "FID", "structure": "four legs"}
        lines.append(
            f"| {v['data']} | {v['steps']:,} | {names[v['measure']]} | {v['exact']:.3g} | {v['default']:.3g} | "
            f"{v['difference']:+.3g} ({low:.3g} to {high:.3g}) | {v['deviation_of_seeds']:.3g} | "
            f"{'inside' if v['inside'] else 'outside'} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["quadrupeds", FASHION])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, nargs="+", default=[500, 1000], help="lengths of the runs")
    parser.add_argument("-n", type=int, default=1020, help="images per score; a multiple of the classes")
    parser.add_argument("--threads", type=int, default=0, help="threads of each command; 0 for PyTorch's default")
    parser.add_argument("--work", type=Path, default=Path("runs") / "precision-quality", help="folder of the runs")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--table", action="store_true", help="print the results as Markdown and stop")
    args = parser.parse_args()
    if args.table:
        print(table(json.loads(args.out.read_text(encoding="utf-8"))))
        return
    if args.threads:
        os.environ["OMP_NUM_THREADS"] = str(args.threads)
    before = json.loads(args.out.read_text(encoding="utf-8"))["rows"] if args.out.exists() else []
    rows = {key(row): row for row in before}
    for seed, data, steps, setting in itertools.product(args.seeds, args.data, args.steps, SETTINGS):
        row = measure(data, setting, seed, steps, args.n, args.work)
        print(row, file=sys.stderr, flush=True)
        rows[key(row)] = row
        # Written after each run, so that results can be read while the rest runs.
        found = {
            "command": "python benchmarks/precision_quality.py --threads 1", "n": args.n,
            "rows": list(rows.values()), "verdicts": verdicts(list(rows.values())),
        }  # fmt: skip
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
