"""Compare training recipes: recipe x dataset x seed at a fixed number of images shown, resumable.

    python benchmarks/recipes.py list                                   # recipes, datasets and sets
    python benchmarks/recipes.py run --set default32 --work recipes # two runs side by side, one thread each
    python benchmarks/recipes.py table                                  # the committed results as tables

Each experiment trains with the recipe's flags of `sagan train` (`recipe`), then draws 2,040 images of the
EMA and scores them with `sagan eval-fid --extractor classifier --metrics fid,prc,dc,structure`. A result is one JSON
file under `docs/results/recipes/`; an experiment whose file exists is skipped, an interrupted training run resumes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sagan_cli.config.resolve import flatten
from sagan_cli.config.schema import RECIPE_KEYS

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "recipes"
SAMPLES = 2040
CURVE = 4
"""Scores while training, evenly spaced."""
REACHED = {"fashion32": 6.0}
"""Dataset -> FID whose first time is reported; 2 for the others."""
FASHION = "/usr/share/datasets/fashion-mnist"

AUTO: dict[str, str] = {
    "auto": "",
    "auto-no-augmentation": "--set train.augment=",
    "auto-no-attention": "--attn-at none",
    "auto-no-qk-norm": "--qk-norm none",
    "auto-no-grad-clip": "--grad-clip 0",
    "auto-spectral-norm": "--spectral-norm both",
    "auto-g-norm-none": "--g-norm none",
    "auto-width48": "--width 48",
    "auto-attention8": "--attn-at 8",
    "auto-attention8,16": "--attn-at 8,16",
    "auto-d2": "--d-steps 2",
    "auto-batch8": "--batch 8",
    "auto-batch32": "--batch 32",
}
"""Name -> flags of `sagan train --preset laptop`: the default recipe, and single changes of it."""
NAMED: dict[str, str] = {
    "default-0.1": "--loss hinge",
    **{f"system-{name}": f"--system {name}" for name in ("port", "official", "sngan-d", "wgan-gp")},
}
"""Name -> flags of `sagan train --preset laptop-hinge`. Other recipes are composed of `LEVERS`."""


@dataclass
class Levers:
    """A recipe with relativistic pairing, R1 and R2: `trial`, and what the words of its name change."""

    loss: str = "relativistic"
    spectral_norm: str = "none"
    gamma: str = "0.1"
    r2: bool = True
    every: int = 4
    d_lr: float = 4e-4
    g_lr: float = 2e-4
    decay: str = ""
    more: list[str] = field(default_factory=list)

    def flags(self) -> str:
        """Return the flags of `sagan train --preset laptop-hinge`."""
        penalty = f"r1={self.gamma}/{self.every}" + (f",r2={self.gamma}/{self.every}" if self.r2 else "")
        parts = [f"--loss {self.loss} --penalty {penalty} --spectral-norm {self.spectral_norm}"]
        if self.decay:
            parts += [f"--{x}-lr {self.decay.format(f'{rate:g}')}" for x, rate in (("d", self.d_lr), ("g", self.g_lr))]
        return " ".join([*parts, *self.more])


def _set(**values: Any) -> Callable[[Levers, re.Match[str]], None]:
    def change(levers: Levers, found: re.Match[str]) -> None:
        for name, value in values.items():
            setattr(levers, name, value(found) if callable(value) else value)

    return change


def _add(flags: str) -> Callable[[Levers, re.Match[str]], None]:
    return lambda levers, found: levers.more.append(found.expand(flags))


LEVERS: tuple[tuple[str, Callable[[Levers, re.Match[str]], None]], ...] = (
    ("trial", _set()),
    ("half", _set(decay="linear:{}:0:50%-100%")),
    ("late", _set(decay="linear:{}:0:75%-100%")),
    ("cosine", _set(decay="cosine:{}:0:100%")),
    (r"lr([\d.]+)", _set(d_lr=lambda m: 4e-4 * float(m[1]), g_lr=lambda m: 2e-4 * float(m[1]))),
    (r"rates([\d.e-]+),([\d.e-]+)", _set(d_lr=lambda m: float(m[1]), g_lr=lambda m: float(m[2]))),
    (r"gamma([\d.]+)-falls-far", _set(gamma=lambda m: f"cosine:{m[1]}:{float(m[1]) / 40:g}:100%")),
    (r"gamma([\d.]+)-falls", _set(gamma=lambda m: f"cosine:{m[1]}:{float(m[1]) / 10:g}:100%")),
    (r"gamma([\d.]+)", _set(gamma=lambda m: m[1])),
    ("r1-only", _set(r2=False)),
    (r"every(\d+)", _set(every=lambda m: int(m[1]))),
    ("sn-(d|both)", _set(spectral_norm=lambda m: m[1])),
    ("hinge", _set(loss="hinge")),
    ("nonsat", _set(loss="non-saturating")),
    (r"batch(\d+)", _add(r"--batch \1")),
    (r"width(\d+)", _add(r"--width \1")),
    (r"d(\d+)", _add(r"--d-steps \1")),
    ("beta2-rises", _add("--beta2 cosine:0.9:0.99:100%")),
    (r"beta2-([\d.]+)", _add(r"--beta2 \1")),
    (r"ema(\d+)k", _add(r"--ema-halflife \g<1>000")),
    ("qk", _add("--qk-norm rms")),
    ("gnone", _add("--g-norm none")),
    (r"clip(\d+)", _add(r"--grad-clip \1")),
    (r"attn(none|\d+)", _add(r"--attn-at \1")),
    (r"augment([\d.]+)", _add(
        r"--flip --augment color=cosine:0:\1:100%,translation=cosine:0:\1:100%,cutout=cosine:0:\1:100%"
    )),
)  # fmt: skip
"""Pattern of a word in a recipe's name -> what it changes. To add a lever, add a row."""


def recipe(name: str) -> tuple[str, str]:
    """Return the preset and the flags of a recipe by its name, as in `half-gamma2-falls-lr4-batch16`.

    Raises:
        SystemExit: a name that is not composed of `LEVERS`, from the first lever that fits to the last.
    """
    if name in AUTO:
        return "laptop", AUTO[name]
    if name in NAMED:
        return "laptop-hinge", NAMED[name]
    levers, rest = Levers(), name
    while rest:
        for pattern, change in LEVERS:
            if found := re.match(f"{pattern}(?:-|$)", rest):
                change(levers, found)
                rest = rest[found.end() :]
                break
        else:
            raise SystemExit(f"--recipes {name}: unknown from '{rest}' on; see 'list'")
    return "laptop-hinge", levers.flags()


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
    "default32": (["auto"], ["quadrupeds32", "fashion32"], [0, 1, 2, 3, 4]),
    "default64": (["auto"], ["quadrupeds64"], [0, 1, 2]),
    "levers32": (list(AUTO), ["quadrupeds32"], [0, 1]),
    "published32": (list(NAMED), ["quadrupeds32"], [0]),
    "few32": (["auto", "auto-no-augmentation"], ["quadrupeds32-500", "quadrupeds32-2000", "quadrupeds32-5000"], [0, 1]),
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
        preset, flags = recipe(self.recipe)
        return f"--preset {preset} {where} {flags} --seed {self.seed} --kimg {images // 1000}".split()


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
    plan = json.loads(_call([*sagan, "train", "-q", "--json", "--dry-run", *words], environment))
    words += ["--eval-every", str(plan["steps"] // CURVE), "--eval-n", str(SAMPLES // 2)]
    _call([*sagan, "train", "-q", "--json", *words, "--out", str(folder)], environment)
    trained = time.perf_counter()
    few = "--holdout" in words
    metrics = "fid,prc,dc" + (",structure" if "quadrupeds" in words else "") + (",memorization" if few else "")
    scoring = ["--extractor", "classifier", "-n", str(SAMPLES), "--metrics", metrics, "--json", "-q"]
    scoring += ["--split", "held-out"] if few else []
    config = flatten(json.loads((folder / "run.json").read_text(encoding="utf-8"))["config"])
    score = json.loads(_call([*sagan, "eval-fid", str(folder), *scoring], environment))
    result = {
        "recipe": experiment.recipe,
        "dataset": experiment.dataset,
        "seed": experiment.seed,
        "flags": " ".join(experiment.flags()),
        "chosen": {key: config[key] for key in RECIPE_KEYS},
        "images_per_second": _speed(folder),
        "seconds": round(trained - begin),
        "score": score["values"],
        "curve": _curve(folder, plan["batch"]),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(experiment.name, json.dumps(result["score"]), file=sys.stderr, flush=True)


def _call(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def _curve(run_folder: Path, batch: int) -> list[dict[str, float]]:
    """Scores while training: the number of images shown, and the metrics of 1,020 samples."""
    rows = map(json.loads, (run_folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    names = ("fid", "precision", "recall")
    return [{"images": row["step"] * batch, **{n: row[n] for n in names}} for row in rows if row.get("kind") == "score"]


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
        lines += ["| recipe | seeds | " + " | ".join(names) + f" | to FID {REACHED.get(dataset, 2):g} | images/s |"]
        lines += ["|---" * (len(names) + 4) + "|"]
        for recipe, results in recipes.items():
            cells = [_cell([r["score"][name] for r in results if name in r["score"]]) for name in names]
            speed = np.mean([r["images_per_second"] for r in results])
            cells.append(_cell([n for r in results if (n := _reached(r.get("curve", []), REACHED.get(dataset, 2)))]))
            lines.append(f"| `{recipe}` | {len(results)} | " + " | ".join(cells) + f" | {speed:.0f} |")
        lines.append("")
    return "\n".join(lines)


def _reached(curve: list[dict[str, float]], fid: float) -> float | None:
    """Thousands of images shown when FID was first at most `fid`; None if it never was."""
    return next((point["images"] / 1000 for point in curve if point["fid"] <= fid), None)


def _cell(values: list[float]) -> str:
    """Return the mean, and the single values in brackets; "-" without values."""
    if not values:
        return "-"
    return f"{np.mean(values):.3g}" + (f" ({', '.join(f'{v:.3g}' for v in values)})" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["list", "run", "table"])
    parser.add_argument("--set", choices=list(SETS), help="a named set of experiments")
    parser.add_argument("--recipes", nargs="+", default=[], help="names; see list")
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
        for name, flags in {**AUTO, **NAMED}.items():
            print(f"{name:20}", flags)
        print("or words joined by hyphens, as in half-gamma2-falls-lr4-batch16-qk:", *(p for p, _ in LEVERS))
        for name, (flags, images) in DATASETS.items():
            print(f"{name:20}", flags, f"{images:,} images")
        return
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for _ in pool.map(lambda e: run(e, arguments.work), todo):
            pass


if __name__ == "__main__":
    main()
