"""The accuracy of the leg counter of `quadrupeds` on drawn images with four, three and five legs.

    python benchmarks/quadrupeds_legs.py            # docs/results/quadrupeds_legs.json, about 4 minutes of one core
    python benchmarks/quadrupeds_legs.py --count 1000 --sizes 32 --out /tmp/legs.json

The seed of the images is neither that of a split nor one that the counter was developed with.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from sagan_cli.quadrupeds import count_legs_batch, draw

SEED = 77_001
BATCH = 500
GOALS = {32: 0.995, 64: 0.999, 128: 0.999}
"""Smallest share of images with four legs, by size, on which the count must be 4."""
CHANGED_GOAL = 0.98
"""Smallest share of images with three or five legs on which the count must not be 4."""
NOISE = 0.04
"""Standard deviation (of values in [0, 1]) of added noise, which imitates a generator's texture."""


def answers(size: int, legs: int, count: int, noise: float = 0.0) -> tuple[np.ndarray, float]:
    """Return the counts of the first `count` images, int64 (count,), and the seconds for drawing them."""
    found, drawing, source = [], 0.0, np.random.default_rng(SEED)
    for first in range(0, count, BATCH):
        started = time.perf_counter()
        pictures = np.stack([draw(SEED, i, size, size, legs) for i in range(first, min(first + BATCH, count))])
        drawing += time.perf_counter() - started
        if noise:
            noisy = pictures.astype(np.float32) / 255 + source.normal(0, noise, pictures.shape).astype(np.float32)
            pictures = np.clip(noisy, 0, 1)
        found.append(count_legs_batch(pictures))
    return np.concatenate(found), drawing


def measure(size: int, count: int) -> dict[str, object]:
    """Return all shares at one size, and whether they reach their goals."""
    whole, seconds = answers(size, 4, count)
    erased, _ = answers(size, 3, count)
    added, _ = answers(size, 5, count)
    noisy, _ = answers(size, 4, count, NOISE)
    random = np.random.default_rng(SEED).random((1000, size, size, 3))
    shares = {
        "four_on_whole": float(np.mean(whole == 4)),
        "not_four_on_erased": float(np.mean(erased != 4)),
        "not_four_on_added": float(np.mean(added != 4)),
        f"four_on_whole_with_noise_{NOISE}": float(np.mean(noisy == 4)),
        "four_on_pure_noise": float(np.mean(count_legs_batch(random) == 4)),
    }
    noticed = min(shares["not_four_on_erased"], shares["not_four_on_added"])
    passed = shares["four_on_whole"] >= GOALS.get(size, min(GOALS.values())) and noticed >= CHANGED_GOAL
    return {"size": size, "pictures": count, **shares, "goals_reached": passed,
            "drawn_per_second": round(count / seconds)}  # fmt: skip


def main() -> int:
    """Write the measurements as JSON and print the path of the file; return 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--out", type=Path, default=Path("docs/results/quadrupeds_legs.json"))
    options = parser.parse_args()
    results = [measure(size, options.count) for size in options.sizes]
    command = "python benchmarks/quadrupeds_legs.py"
    report = {"command": command, "seed": SEED, "numpy": np.__version__, "sizes": results}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(options.out)
    return 0 if all(r["goals_reached"] for r in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
