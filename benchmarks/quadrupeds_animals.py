"""The accuracy of the animal counter of `quadrupeds-alone`, and the animals that the runs of an ablation draw.

    python benchmarks/quadrupeds_animals.py              # docs/results/quadrupeds_animals.json
    python benchmarks/quadrupeds_animals.py --twins runs/ablation-quadrupeds-alone-sagan16x64

With `--twins`, it measures for every run of an ablation how many animals an image has, and whether their places vary as
in the dataset. A discriminator that sums over all positions accepts images with the animal always at the same place.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sagan_cli.quadrupeds.animal_counter import count_animals, horizontal_positions
from sagan_cli.quadrupeds.single_animal import SPLITS, draw_alone

SEED = 77_002
NOISE = 0.04
GOAL = 0.99
"""Smallest share of images on which the count must be right."""
SIZES = ((16, 64), (32, 128), (64, 256))
OUT = Path(__file__).parent.parent / "docs" / "results" / "quadrupeds_animals.json"
Pixels = NDArray[np.uint8]


def drawn(count: int, height: int, width: int, animals: Literal[0, 1, 2], seed: int = SEED) -> Pixels:
    """Return images with the given number of animals: uint8 (count, height, width, 3)."""
    return np.stack([draw_alone(seed, i, height, width, animals) for i in range(count)])


def counted(height: int, width: int, count: int) -> dict[str, Any]:
    """Return the accuracy of the counter at one size."""
    one, dice = drawn(count, height, width, 1), np.random.default_rng(SEED)
    noisy = np.clip(one / np.float32(255) + dice.normal(0, NOISE, one.shape).astype(np.float32), 0, 1)
    shares = {
        "none_on_scenes": float(np.mean(count_animals(drawn(count, height, width, 0)) == 0)),
        "one_on_one": float(np.mean(count_animals(one) == 1)),
        "two_on_two": float(np.mean(count_animals(drawn(count, height, width, 2)) == 2)),
        f"one_on_one_with_noise_{NOISE}": float(np.mean(count_animals(noisy) == 1)),
        "one_on_pure_noise": float(np.mean(count_animals(dice.random((200, height, width, 3))) == 1)),
    }
    reached = min(shares["none_on_scenes"], shares["one_on_one"], shares["two_on_two"]) >= GOAL
    return {"size": f"{height}x{width}", "pictures": count, **shares, "goals_reached": reached}


def drawn_by(run: Path, count: int) -> Pixels:
    """Return samples of a run's newest moving average, equally many of each class: uint8 (count, H, W, 3)."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "sagan_cli", "sample", str(run), "--class", "all", "-n", str(count), "-q",
             "--out", f"{folder}/"], check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in sorted(Path(folder).rglob("*.png"))])


def told(pictures: Pixels) -> dict[str, Any]:
    """Return the shares of images with no, one and more animals, and the deviation of the places, in image heights."""
    counts = count_animals(pictures)
    lone = horizontal_positions(pictures[counts == 1])
    shares = {"none": counts == 0, "one": counts == 1, "more": counts > 1}
    return {name: float(np.mean(which)) for name, which in shares.items()} | {
        "place_deviation": float(lone.std()) if len(lone) else None
    }


def main() -> int:
    """Write the measurements as JSON and print the path of the file; return 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=3000, help="images per size and number of animals")
    parser.add_argument("--twins", type=Path, help="folder of an ablation whose runs are measured as well")
    parser.add_argument("-n", type=int, default=510, help="samples of a run")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    before = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    sizes = [counted(*size, options.count) for size in SIZES]
    report: dict[str, Any] = {**before, "command": "python benchmarks/quadrupeds_animals.py", "seed": SEED,
                              "numpy": np.__version__, "sizes": sizes}  # fmt: skip
    if options.twins:
        data = drawn(options.n, *SIZES[0], 1, SPLITS["test"][0])
        report["runs"] = {"of": f"--twins runs/{options.twins.name} -n {options.n}", "data": told(data)}
        for run in sorted(options.twins.glob("attn-*-seed*")):
            report["runs"][run.name] = told(drawn_by(run, options.n))
            print(run.name, report["runs"][run.name], file=sys.stderr, flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(options.out)
    return 0 if all(size["goals_reached"] for size in sizes) else 1


if __name__ == "__main__":
    raise SystemExit(main())
