"""How the `laptop` preset was chosen: `quadrupeds` at 32 pixels, several learning rates of G, several seeds.

    python benchmarks/laptop_preset.py                                          # about 9 minutes on two cores
    python benchmarks/laptop_preset.py --g-lr 2e-4 --seeds 1 2 --steps 2000     # about 11 more
    python benchmarks/laptop_preset.py --table                                  # the results so far, as Markdown

Each run is `sagan train` with the preset's width and batch. Every 250 steps the moving average draws 510 pictures (85
of each class), and the share with exactly four legs is counted by `sagan_cli.data.quadrupeds.count_legs`: a score that
needs no trained network. Beside it stands the spread of the pictures (mean standard deviation of a pixel over the
pictures of one class, as a share of the data's): a generator that has collapsed scores well on legs and low here.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from sagan_cli.data.quadrupeds import Quadrupeds, count_legs_batch
from sagan_cli.engine.runtime import Runtime, open_runtime
from sagan_cli.engine.sample import Request, load, pictures
from sagan_cli.runs import Run

OUT = Path(__file__).parent.parent / "docs" / "results" / "laptop_preset.json"
PER_CLASS = 85


def train(folder: Path, g_lr: float, seed: int, steps: int) -> float:
    """One run with checkpoints every 250 steps; returns its wall time in seconds."""
    begun = time.monotonic()
    flags = {
        "preset": "laptop", "g-lr": g_lr, "seed": seed, "steps": steps, "save-every": 250, "grid-every": 100_000,
        "keep": 999, "out": folder,
    }  # fmt: skip
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "sagan_cli", "train", "--quiet", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begun


def score(checkpoint: Path, runtime: Runtime, spread_of_data: np.ndarray) -> dict[str, object]:
    """Legs and spread of one checkpoint."""
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
    """Mean standard deviation of a pixel within each class of the data."""
    data = Quadrupeds(height=32, width=32)
    classes = len(data.class_names)
    drawn = np.stack([data.read(i)[0] for i in range(classes * PER_CLASS)]).astype(np.float32)
    spread: np.ndarray = drawn.reshape(PER_CLASS, classes, -1).std(axis=0).mean(axis=1)
    return spread


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a row a run, share with four legs (spread) every 250 steps."""
    steps = sorted({point["step"] for row in rows for point in row["curve"]})
    lines = ["| G's rate | seed | " + " | ".join(map(str, steps)) + " |", "|---" * (len(steps) + 2) + "|"]
    for row in sorted(rows, key=lambda r: (r["g_lr"], r["seed"])):
        points = {point["step"]: f"{point['four_legs']:.0%} ({point['spread']:.2f})" for point in row["curve"]}
        lines.append(f"| {row['g_lr']:g} | {row['seed']} | " + " | ".join(points.get(s, "") for s in steps) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--g-lr", type=float, nargs="+", default=[1e-4, 2e-4, 4e-4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--table", action="store_true", help="print the results as Markdown and stop")
    args = parser.parse_args()
    if args.table:
        print(table(json.loads(args.out.read_text())["rows"]))
        return
    rows = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    spread = data_spread()
    for seed in args.seeds:
        for g_lr in args.g_lr:
            with tempfile.TemporaryDirectory() as work, open_runtime("cpu", "fp32") as runtime:
                seconds = train(Path(work) / "run", g_lr, seed, args.steps)
                curve = [score(c, runtime, spread) for c in Run(Path(work) / "run").checkpoint_steps()]
            print(
                f"g_lr {g_lr:g} seed {seed}: {seconds:.0f} s",
                *(f"{c['step']}:{c['four_legs']}/{c['spread']}" for c in curve),
            )
            rows = [r for r in rows if (r["g_lr"], r["seed"], r["steps"]) != (g_lr, seed, args.steps)]
            rows.append(
                {
                    "g_lr": g_lr,
                    "d_lr": 4e-4,
                    "seed": seed,
                    "steps": args.steps,
                    "seconds": round(seconds, 1),
                    "curve": curve,
                }
            )
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(
                json.dumps({"command": "python benchmarks/laptop_preset.py", "rows": rows}, indent=1) + "\n"
            )


if __name__ == "__main__":
    main()
