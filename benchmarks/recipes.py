"""Compare training recipes: recipe x dataset x seed at a fixed number of images shown, resumable.

    python benchmarks/recipes.py list                                   # recipes, datasets and sets
    python benchmarks/recipes.py run --set screen32 --work recipes # two runs side by side, one thread each
    python benchmarks/recipes.py table                                  # the committed results as tables

Each experiment trains with `sagan train --preset laptop-hinge` and the recipe's flags, then draws 2,040 images of the
EMA and scores them with `sagan eval-fid --extractor classifier --metrics fid,prc,dc,structure`. A result is one JSON
file under `docs/results/recipes/`; an experiment whose file exists is skipped, an interrupted training run resumes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "recipes"
SAMPLES = 2040
FASHION = "/usr/share/datasets/fashion-mnist"

PAIRED = "--loss relativistic --penalty r1=0.1/4,r2=0.1/4 --spectral-norm none"
COSINE = "--d-lr cosine:4e-4:0:100% --g-lr cosine:2e-4:0:100%"
HALF = "--d-lr linear:4e-4:0:50%-100% --g-lr linear:2e-4:0:50%-100%"
HALF2 = "--d-lr linear:8e-4:0:50%-100% --g-lr linear:4e-4:0:50%-100%"
HALF4 = "--d-lr linear:16e-4:0:50%-100% --g-lr linear:8e-4:0:50%-100%"
LATE2 = "--d-lr linear:8e-4:0:75%-100% --g-lr linear:4e-4:0:75%-100%"
LATE4 = "--d-lr linear:16e-4:0:75%-100% --g-lr linear:8e-4:0:75%-100%"
COSINE2 = "--d-lr cosine:8e-4:0:100% --g-lr cosine:4e-4:0:100%"
COSINE4 = "--d-lr cosine:16e-4:0:100% --g-lr cosine:8e-4:0:100%"
"""Learning rates that fall on a cosine over the whole run, or linearly over its second half or last quarter."""


def _penalties(r1: str, r2: str = "", every: int = 4) -> str:
    terms = [f"r1={r1}/{every}"] + ([f"r2={r2 or r1}/{every}"] if r2 != "0" else [])
    return f"--loss relativistic --spectral-norm none --penalty {','.join(terms)}"


RECIPES: dict[str, str] = {
    "auto": "",
    "auto-no-augmentation": "--set train.augment=",
    "auto-no-attention": "--attn-at none",
    "auto-no-qk-norm": "--qk-norm none",
    "auto-no-grad-clip": "--grad-clip 0",
    "auto-spectral-norm": "--spectral-norm both",
    "auto-width48": "--width 48",
    "auto-attention-8": "--attn-at 8",
    "auto-attention-8-16": "--attn-at 8,16",
    "auto-d2": "--d-steps 2",
    "auto-batch8": "--batch 8",
    "auto-batch32": "--batch 32",
    "default-0.1": "--loss hinge",
    "trial": PAIRED,
    "cosine": f"{PAIRED} {COSINE}",
    "cosine-lr2": f"{PAIRED} {COSINE2}",
    "cosine-lr4": f"{PAIRED} {COSINE4}",
    "half": f"{PAIRED} {HALF}",
    "half-lr2": f"{PAIRED} {HALF2}",
    "half-equal4": f"{PAIRED} --d-lr linear:4e-4:0:50%-100% --g-lr linear:4e-4:0:50%-100%",
    "half-gamma0.02": f"{_penalties('0.02')} {HALF}",
    "half-gamma0.5": f"{_penalties('0.5')} {HALF}",
    "half-gamma2": f"{_penalties('2')} {HALF}",
    "half-gamma0.5-lr2": f"{_penalties('0.5')} {HALF2}",
    "half-gamma0.5-lr4": f"{_penalties('0.5')} {HALF4}",
    "half-gamma0.5-lr2-batch16": f"{_penalties('0.5')} {HALF2} --batch 16",
    "half-gamma0.5-lr2-ema2k": f"{_penalties('0.5')} {HALF2} --ema-halflife 2000",
    "half-gamma0.5-lr2-beta2-0.9": f"{_penalties('0.5')} {HALF2} --beta2 0.9",
    "half-gamma0.5-lr2-equal": f"{_penalties('0.5')} --d-lr linear:6e-4:0:50%-100% --g-lr linear:6e-4:0:50%-100%",
    "half-gamma0.5-lr2-width48": f"{_penalties('0.5')} {HALF2} --width 48",
    "half-gamma2-falls-lr2-batch16": f"{_penalties('cosine:2:0.2:100%')} {HALF2} --batch 16",
    "half-gamma2-falls-lr2-batch8": f"{_penalties('cosine:2:0.2:100%')} {HALF2} --batch 8",
    "half-gamma8-falls-lr2-batch16": f"{_penalties('cosine:8:0.8:100%')} {HALF2} --batch 16",
    "half-gamma8-falls-lr1-batch16": f"{_penalties('cosine:8:0.8:100%')} {HALF} --batch 16",
    "half-gamma1-falls-lr4-batch16": f"{_penalties('cosine:1:0.1:100%')} {HALF4} --batch 16",
    "half-gamma2-falls-far-lr4-batch16": f"{_penalties('cosine:2:0.05:100%')} {HALF4} --batch 16",
    "late-gamma2-falls-lr4-batch16": f"{_penalties('cosine:2:0.2:100%')} {LATE4} --batch 16",
    "half-gamma2-falls-lr4-batch16-beta2-0.9": f"{_penalties('cosine:2:0.2:100%')} {HALF4} --batch 16 --beta2 0.9",
    "half-gamma2-falls-lr3-batch8": f"{_penalties('cosine:2:0.2:100%')} --batch 8 "
    "--d-lr linear:12e-4:0:50%-100% --g-lr linear:6e-4:0:50%-100%",
    "half-gamma2-falls-lr4-batch16-clip20": f"{_penalties('cosine:2:0.2:100%')} {HALF4} --batch 16 --grad-clip 20",
    "half-gamma2-falls-lr4-batch16-clip8": f"{_penalties('cosine:2:0.2:100%')} {HALF4} --batch 16 --grad-clip 8",
    "half-gamma8-falls-lr2-batch16-clip20": f"{_penalties('cosine:8:0.8:100%')} {HALF2} --batch 16 --grad-clip 20",
    "half-gamma2-falls-lr2-batch16-clip20": f"{_penalties('cosine:2:0.2:100%')} {HALF2} --batch 16 --grad-clip 20",
    "half-gamma1-falls-lr4-batch16-clip20": f"{_penalties('cosine:1:0.1:100%')} {HALF4} --batch 16 --grad-clip 20",
    "half-gamma2-falls-lr4-batch16-qk": f"{_penalties('cosine:2:0.2:100%')} {HALF4} --batch 16 --qk-norm rms",
    "half-gamma8-falls-lr2-batch16-qk": f"{_penalties('cosine:8:0.8:100%')} {HALF2} --batch 16 --qk-norm rms",
    "half-gamma2-falls-lr2-batch16-qk": f"{_penalties('cosine:2:0.2:100%')} {HALF2} --batch 16 --qk-norm rms",
    "half-gamma1-falls-lr4-batch16-qk": f"{_penalties('cosine:1:0.1:100%')} {HALF4} --batch 16 --qk-norm rms",
    **{
        f"half-gamma{g}-falls-lr4-batch16-qk-clip20": f"{_penalties(f'cosine:{g}:{g / 10:g}:100%')} {HALF4} --batch 16 "
        "--qk-norm rms --grad-clip 20"
        for g in (0.5, 1, 2, 4, 8)
    },
    **{
        f"half-gamma{g}-falls-lr2-batch16-qk-clip20": f"{_penalties(f'cosine:{g}:{g / 10:g}:100%')} {HALF2} --batch 16 "
        "--qk-norm rms --grad-clip 20"
        for g in (1, 2, 4, 8)
    },
    "half-gamma2-falls-lr4-batch16": f"{_penalties('cosine:2:0.2:100%')} {HALF4} --batch 16",
    "half-gamma2-falls-lr4": f"{_penalties('cosine:2:0.2:100%')} {HALF4}",
    "half-gamma5-falls-lr4": f"{_penalties('cosine:5:0.2:100%')} {HALF4}",
    "half-gamma2-falls-far-lr4": f"{_penalties('cosine:2:0.05:100%')} {HALF4}",
    "late-gamma2-falls-lr2": f"{_penalties('cosine:2:0.2:100%')} {LATE2}",
    "half-gamma2-falls-lr2-width48": f"{_penalties('cosine:2:0.2:100%')} {HALF2} --width 48",
    "late-gamma0.5-lr2": f"{_penalties('0.5')} {LATE2}",
    "late-gamma0.5-lr4": f"{_penalties('0.5')} {LATE4}",
    "half-gamma1-lr4": f"{_penalties('1')} {HALF4}",
    "half-gamma1-lr2": f"{_penalties('1')} {HALF2}",
    "half-gamma2-falls-lr2": f"{_penalties('cosine:2:0.2:100%')} {HALF2}",
    "cosine-gamma0.5-lr2": f"{_penalties('0.5')} {COSINE2}",
    "cosine-gamma0.5-lr4": f"{_penalties('0.5')} {COSINE4}",
    "half-gamma-falls": f"{_penalties('cosine:0.5:0.05:100%')} {HALF}",
    "half-r1-only": f"{_penalties('0.1', '0')} {HALF}",
    "half-every1": f"{_penalties('0.1', every=1)} {HALF}",
    "half-every8": f"{_penalties('0.1', every=8)} {HALF}",
    "half-every16": f"{_penalties('0.1', every=16)} {HALF}",
    "half-beta2-rises": f"{PAIRED} {HALF} --beta2 cosine:0.9:0.99:100%",
    "half-beta2-0.999": f"{PAIRED} {HALF} --beta2 0.999",
    "half-ema2k": f"{PAIRED} {HALF} --ema-halflife 2000",
    "half-ema10k": f"{PAIRED} {HALF} --ema-halflife 10000",
    "half-batch16": f"{PAIRED} {HALF} --batch 16",
    "half-batch64": f"{PAIRED} {HALF} --batch 64",
    "half-d2": f"{PAIRED} {HALF} --d-steps 2",
    "half-sn-d": f"--loss relativistic --penalty r1=0.1/4,r2=0.1/4 --spectral-norm d {HALF}",
    "half-sn-both": f"--loss relativistic --penalty r1=0.1/4,r2=0.1/4 --spectral-norm both {HALF}",
    "half-hinge": f"--loss hinge --penalty r1=0.1/4,r2=0.1/4 --spectral-norm none {HALF}",
    "half-nonsat": f"--loss non-saturating --penalty r1=0.1/4,r2=0.1/4 --spectral-norm none {HALF}",
    **{f"system-{name}": f"--system {name}" for name in ("port", "official", "sngan-d", "wgan-gp")},
    **{
        f"few-augment{p}": f"{_penalties('cosine:2:0.2:100%')} {HALF4} --batch 16 --flip --augment "
        + ",".join(f"{name}=cosine:0:{p}:100%" for name in ("color", "translation", "cutout"))
        for p in ("0", "0.1", "0.3", "0.6")
    },
    "half-attn8": f"{PAIRED} {HALF} --attn-at 8",
    "half-attn-none": f"{PAIRED} {HALF} --attn-at none",
    "half-augment0.3": f"{PAIRED} {HALF} --augment color=0.3,translation=0.3,cutout=0.3",
}
"""Name -> flags of `sagan train` beside `--preset laptop-hinge`; those of `auto` change the default recipe."""

DATASETS: dict[str, tuple[str, int]] = {
    "quadrupeds32": ("--data quadrupeds --size 32", 64_000),
    "quadrupeds32-long": ("--data quadrupeds --size 32", 192_000),
    "quadrupeds64": ("--data quadrupeds --size 64", 32_000),
    "quadrupeds64-long": ("--data quadrupeds --size 64", 128_000),
    "fashion32": (f"--data {FASHION} --size 32", 64_000),
    # The other images of the 20,000 are held out; scores are against those.
    **{f"quadrupeds32-{n}": (f"--data quadrupeds --size 32 --holdout {20_000 - n}", 64_000) for n in (500, 2000, 5000)},
}
"""Name -> flags of `sagan train`, images shown."""

SETS: dict[str, tuple[list[str], list[str], list[int]]] = {
    "screen32": (list(RECIPES), ["quadrupeds32"], [0, 1]),
}
"""Name -> recipes, datasets, seeds."""


@dataclass(frozen=True)
class Experiment:
    """One training run and its score."""

    recipe: str
    dataset: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.dataset}-{self.recipe}-{self.seed}"

    def flags(self) -> list[str]:
        """Flags of `sagan train`, apart from --out."""
        where, images = DATASETS[self.dataset]
        preset = "laptop" if self.recipe.startswith("auto") else "laptop-hinge"
        return f"--preset {preset} {where} {RECIPES[self.recipe]} --seed {self.seed} --kimg {images // 1000}".split()


def run(experiment: Experiment, work: Path) -> None:
    """Train, score and write the result; an existing result is left alone."""
    target = RESULTS / f"{experiment.name}.json"
    if target.exists():
        return
    folder = work / experiment.name
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SAGAN_CACHE": str(work / "cache")}
    sagan = [sys.executable, "-m", "sagan_cli"]
    begin = time.perf_counter()
    words = [*experiment.flags(), "--grid-every", "250", "--save-every", "500", "--keep", "1"]
    _call([*sagan, "train", "-q", "--json", *words, "--out", str(folder)], environment)
    trained = time.perf_counter()
    few = "--holdout" in words
    metrics = "fid,prc,dc" + (",structure" if "quadrupeds" in words else "") + (",memorization" if few else "")
    scoring = ["--extractor", "classifier", "-n", str(SAMPLES), "--metrics", metrics, "--json", "-q"]
    scoring += ["--split", "held-out"] if few else []
    score = json.loads(_call([*sagan, "eval-fid", str(folder), *scoring], environment))
    result = {
        "recipe": experiment.recipe,
        "dataset": experiment.dataset,
        "seed": experiment.seed,
        "flags": " ".join(experiment.flags()),
        "images_per_second": _speed(folder),
        "seconds": round(trained - begin),
        "score": score["values"],
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(experiment.name, json.dumps(result["score"]), file=sys.stderr, flush=True)


def _call(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def _speed(run_folder: Path) -> float:
    """Median images per second over the lines of metrics.jsonl."""
    lines = (run_folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    speeds = [row["images_per_second"] for row in map(json.loads, lines) if "images_per_second" in row]
    return round(float(np.median(speeds)), 1) if speeds else 0.0


def experiments(recipes: list[str], datasets: list[str], seeds: list[int]) -> Iterator[Experiment]:
    """Seed by seed, so that a first comparison of all recipes comes early."""
    for seed in seeds:
        for dataset in datasets:
            for recipe in recipes:
                yield Experiment(recipe, dataset, seed)


def table() -> str:
    """Return the results as Markdown: a table for each dataset, mean and all seeds of each figure."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        found[result["dataset"]][result["recipe"]].append(result)
    lines: list[str] = []
    for dataset, recipes in found.items():
        names = sorted({name for results in recipes.values() for r in results for name in r["score"]})
        lines += [f"### {dataset}, {DATASETS[dataset][1]:,} images shown", ""]
        lines += ["| recipe | seeds | " + " | ".join(names) + " | images/s |", "|---" * (len(names) + 3) + "|"]
        for recipe, results in recipes.items():
            cells = [_cell([r["score"][name] for r in results if name in r["score"]]) for name in names]
            speed = np.mean([r["images_per_second"] for r in results])
            lines.append(f"| `{recipe}` | {len(results)} | " + " | ".join(cells) + f" | {speed:.0f} |")
        lines.append("")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    """Return the mean, and the single values in brackets; "-" without values."""
    if not values:
        return "-"
    return f"{np.mean(values):.3g}" + (f" ({', '.join(f'{v:.3g}' for v in values)})" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["list", "run", "table"])
    parser.add_argument("--set", choices=list(SETS), help="a named set of experiments")
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=[])
    parser.add_argument("--datasets", nargs="+", choices=list(DATASETS), default=["quadrupeds32"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--work", type=Path, default=Path("recipes"), help="folder of runs and caches")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    arguments = parser.parse_args()
    if arguments.action == "table":
        print(table())
        return
    chosen = SETS[arguments.set] if arguments.set else (arguments.recipes, arguments.datasets, arguments.seeds)
    todo = list(experiments(*chosen))
    if arguments.action == "list":
        for name, flags in RECIPES.items():
            print(f"{name:16}", flags)
        for name, (flags, images) in DATASETS.items():
            print(f"{name:16}", flags, f"{images:,} images")
        return
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for _ in pool.map(lambda e: run(e, arguments.work), todo):
            pass


if __name__ == "__main__":
    main()
