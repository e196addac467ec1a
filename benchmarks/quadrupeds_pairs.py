"""Measures the checker of `quadrupeds-pairs`, and what of an ablation's score is more than chance.

    python benchmarks/quadrupeds_pairs.py                           # docs/results/quadrupeds_pairs.json
    python benchmarks/quadrupeds_pairs.py --twins runs/ablation-quadrupeds-pairs-sagan16x64

A generator that draws few kinds has two alike by chance. What chance gives is measured by exchanging the right ends of
its own samples among each other: the share alike before, less the share after, is what the two ends know of each other.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sagan_cli.data.quadrupeds.kinds import like, of_one_kind, traits
from sagan_cli.data.quadrupeds.pairs import draw_pair
from sagan_cli.metrics.paired import compare

SEED = 77_002
NOISE = 0.04
EXCHANGES = 50
"""Random exchanges of the right ends whose mean is chance's share."""
GOALS = {"alike_on_pairs": 0.95, "not_alike_on_two_species": 0.9}
SIZES = ((16, 64), (32, 128), (64, 256))
RESULTS = Path(__file__).parent.parent / "docs" / "results"
Pixels = NDArray[np.uint8]


def by_chance(pictures: Pixels) -> float:
    """The share of pictures (N, H, W, 3) that would be alike if their right ends were dealt out anew."""
    first, last = traits(pictures, last=False), traits(pictures, last=True)
    dice = np.random.default_rng(SEED)
    return float(np.mean([np.mean(like(first, last[dice.permutation(len(last))])) for _ in range(EXCHANGES)]))


def measure(height: int, width: int, count: int) -> dict[str, Any]:
    """The checker's shares at one size."""
    alike = np.stack([draw_pair(SEED, i, height, width) for i in range(count)])
    strangers = np.stack([draw_pair(SEED, i, height, width, alike=False) for i in range(count)])
    dice = np.random.default_rng(SEED)
    noisy = np.clip(alike / np.float32(255) + dice.normal(0, NOISE, alike.shape).astype(np.float32), 0, 1)
    shares = {
        "alike_on_pairs": float(np.mean(of_one_kind(alike))),
        "not_alike_on_two_species": float(np.mean(~of_one_kind(strangers))),
        f"alike_on_pairs_with_noise_{NOISE}": float(np.mean(of_one_kind(noisy))),
        "alike_by_chance": by_chance(alike),
        "alike_on_pure_noise": float(np.mean(of_one_kind(dice.random((200, height, width, 3))))),
    }
    return {"size": f"{height}x{width}", "pictures": count, **shares,
            "goals_reached": all(shares[name] >= goal for name, goal in GOALS.items())}  # fmt: skip


def drawn(run: Path, count: int) -> Pixels:
    """Samples of a run's newest moving average: uint8 (count, H, W, 3)."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "sagan_cli", "sample", str(run), "-n", str(count), "-q", "--out", f"{folder}/"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        files = sorted(Path(folder).glob("*.png"))
        return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])


def twins(parent: Path, count: int) -> dict[str, Any]:
    """For every run of an ablation: the share alike, chance's share, and each variant's difference to `none`."""
    rows, by = [], dict[str, dict[int, float]]()
    for run in sorted(parent.glob("attn-*-seed*")):
        named = re.fullmatch(r"attn-(.+)-seed(\d+)", run.name)
        if not named:
            continue
        pictures = drawn(run, count)
        alike, chance = float(np.mean(of_one_kind(pictures))), by_chance(pictures)
        by.setdefault(named[1], {})[int(named[2])] = alike - chance
        rows.append({"attention": named[1], "seed": int(named[2]), "alike": alike, "by_chance": chance})
        print(rows[-1], file=sys.stderr, flush=True)
    differences = []
    for name in by:
        found = compare(by[name], by["none"]) if name != "none" and "none" in by else None
        if found:
            differences.append({"attention": name, "more_than_chance_less_none": found.difference,
                                "interval": found.interval, "seeds": found.seeds})  # fmt: skip
    return {"pictures": count, "rows": rows, "differences": differences}


def main() -> int:
    """Writes the measurements as JSON and prints the file's path; exit code 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=3000, help="pictures of a size")
    parser.add_argument("--twins", type=Path, help="measure the runs of this ablation instead of the checker")
    parser.add_argument("-n", type=int, default=1000, help="samples of a run")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    command, passed = "python benchmarks/quadrupeds_pairs.py", True
    report: dict[str, Any]
    if options.twins:
        out = options.out or RESULTS / "ablation_pairs_chance.json"
        report = {"command": f"{command} --twins runs/{options.twins.name} -n {options.n}",
                  **twins(options.twins, options.n)}  # fmt: skip
    else:
        out = options.out or RESULTS / "quadrupeds_pairs.json"
        sizes = [measure(*size, options.count) for size in SIZES]
        passed = all(size["goals_reached"] for size in sizes)
        report = {"command": command, "seed": SEED, "numpy": np.__version__, "sizes": sizes}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(out)
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
