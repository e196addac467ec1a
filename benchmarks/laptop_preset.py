"""The measurement behind the preset `laptop-hinge`: `quadrupeds` at 32 pixels with several rates of G and seeds.

    python benchmarks/laptop_preset.py                                                 # about 9 minutes on two cores
    python benchmarks/laptop_preset.py --g-lr 2e-4 --beta2 0.99 --seeds 0 1 --steps 2000   # about 10 more
    python benchmarks/laptop_preset.py --table                                         # the results so far

Each run is `sagan train` with the preset's width and batch. Every 250 steps the moving average draws 510 images (85 of
each class). `sagan_cli.quadrupeds.count_legs` gives the share with exactly four legs, without a trained network. The
second value is the spread: the mean standard deviation of a pixel over the images of one class, relative to that of the
dataset. A collapsed generator can have a high share of four legs, but has a low spread.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sagan_cli.engine.runtime import Runtime, open_runtime
from sagan_cli.engine.sample import Request, load, pictures
from sagan_cli.quadrupeds import Quadrupeds, count_legs_batch
from sagan_cli.runs import Run

OUT = Path(__file__).parent.parent / "docs" / "results" / "laptop_preset.json"
PER_CLASS = 85
Row = dict[str, Any]


def train(folder: Path, g_lr: float, beta2: float, seed: int, steps: int) -> None:
    """Train a run with checkpoints every 250 steps; an existing run is resumed if it is not finished."""
    flags = {
        "preset": "laptop-hinge", "g-lr": g_lr, "beta2": beta2, "seed": seed, "steps": steps, "save-every": 250,
        "grid-every": 100_000, "keep": 999, "out": folder,
    }  # fmt: skip
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "sagan_cli", "train", "--quiet", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def score(checkpoint: Path, runtime: Runtime, spread_of_data: np.ndarray) -> dict[str, object]:
    """Return the share of four legs and the spread of one checkpoint."""
    sampler = load(checkpoint, runtime)
    classes = range(len(sampler.class_names))
    requests = [Request(seed, label) for label in classes for seed in range(PER_CLASS)]
    drawn = np.concatenate([p for p, _ in pictures(sampler.generator, sampler.spec, requests, runtime)])
    legs = count_legs_batch(drawn)
    by_class = drawn.reshape(len(classes), PER_CLASS, -1).astype(np.float32)
    return {
        "step": sampler.facts.step,
        "four_legs": round(float((legs == 4).mean()), 4),
        "four_legs_by_class": {
            name: round(float(share), 4)
            for name, share in zip(sampler.class_names, (legs.reshape(len(classes), -1) == 4).mean(1), strict=True)
        },
        "spread": round(float((by_class.std(axis=1).mean(axis=1) / spread_of_data).mean()), 4),
    }


def data_spread() -> np.ndarray:
    """Return the mean standard deviation of a pixel within each class of the dataset."""
    data = Quadrupeds(height=32, width=32)
    classes = len(data.class_names)
    drawn = np.stack([data.read(i)[0] for i in range(classes * PER_CLASS)]).astype(np.float32)
    spread: np.ndarray = drawn.reshape(PER_CLASS, classes, -1).std(axis=0).mean(axis=1)
    return spread


def table(rows: list[Row]) -> str:
    """Return a Markdown table: one row per run, share of four legs (spread) every 250 steps."""
    steps = sorted({point["step"] for row in rows for point in row["curve"]})
    head = ["G's rate", "beta 2", "seed", *map(str, steps)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in sorted(rows, key=lambda r: (r["beta2"], r["g_lr"], r["seed"])):
        points = {point["step"]: f"{point['four_legs']:.0%} ({point['spread']:.2f})" for point in row["curve"]}
        cells = [f"{row['g_lr']:g}", f"{row['beta2']:g}", str(row["seed"]), *(points.get(s, "") for s in steps)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--g-lr", type=float, nargs="+", default=[1e-4, 2e-4, 4e-4])
    parser.add_argument("--beta2", type=float, nargs="+", default=[0.9])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--work", type=Path, default=Path("runs") / "laptop-preset", help="folder of the runs")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--table", action="store_true", help="print the results as Markdown and stop")
    args = parser.parse_args()
    rows: list[Row] = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    if args.table:
        print(table(rows))
        return
    spread = data_spread()
    for seed, g_lr, beta2 in itertools.product(args.seeds, args.g_lr, args.beta2):
        run = Run(args.work / f"g{g_lr:g}-b{beta2:g}-s{seed}")
        train(run.path, g_lr, beta2, seed, args.steps)
        with open_runtime("cpu", "fp32") as runtime:
            curve = [score(c, runtime, spread) for c in run.checkpoint_steps()]
        rows = [r for r in rows if (r["g_lr"], r["beta2"], r["seed"]) != (g_lr, beta2, seed)]
        rows.append({"g_lr": g_lr, "d_lr": 4e-4, "beta2": beta2, "seed": seed, "curve": curve})
        print(table(rows[-1:]), flush=True)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(
            json.dumps({"command": "python benchmarks/laptop_preset.py", "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
