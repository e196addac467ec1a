"""Measures `quadrupeds-alone`: how often its counter is right, and what a discriminator can learn to count.

    python benchmarks/quadrupeds_animals.py              # docs/results/quadrupeds_animals.json
    python benchmarks/quadrupeds_animals.py --twins runs/ablation-quadrupeds-alone-sagan16x64
    python benchmarks/quadrupeds_animals.py --learn      # adds what discriminators learn: 15 minutes of a core

The second asks of every run of an ablation how many animals it draws and whether they move about as in the data: a
discriminator that adds up what it sees, wherever it sees it, has nothing against one place for all.

The third trains discriminators alone, as classifiers: pictures with one animal against as many with none or with two,
one to three heights apart. No generator takes part: what comes out is what a generator could be told at all.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sagan_cli.data.quadrupeds.alone import SPLITS, draw_alone
from sagan_cli.data.quadrupeds.animals import count_animals, places

SEED = 77_002
NOISE = 0.04
GOAL = 0.99
"""Least share of pictures on which the count must be right."""
SIZES = ((16, 64), (32, 128), (64, 256))
KNOWN, UNSEEN, BATCH = 6000, 1000, 32
"""Pictures of a side to learn from, of a kind to be asked about, and of a side in a batch."""
RATE, WIDTH = 1e-3, 32
APART = (1.0, 1.5, 2.0, 2.5, 3.0)
"""Distances of two animals, in heights. A unit of the discriminator sees a width of two, an animal is 0.7 wide."""
OUT = Path(__file__).parent.parent / "docs" / "results" / "quadrupeds_animals.json"
Pixels = NDArray[np.uint8]


def drawn(count: int, height: int, width: int, animals: Literal[0, 1, 2], seed: int = SEED) -> Pixels:
    """Pictures with so many animals: uint8 (count, height, width, 3)."""
    return np.stack([draw_alone(seed, i, height, width, animals) for i in range(count)])


def counted(height: int, width: int, count: int) -> dict[str, Any]:
    """The counter's shares at one size."""
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
    """Samples of a run's newest moving average, all classes alike: uint8 (count, H, W, 3)."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "sagan_cli", "sample", str(run), "--class", "all", "-n", str(count), "-q",
             "--out", f"{folder}/"], check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in sorted(Path(folder).rglob("*.png"))])


def told(pictures: Pixels) -> dict[str, Any]:
    """Shares of pictures with none, one, and more animals, and how far the lone ones move about, in heights."""
    counts = count_animals(pictures)
    lone = places(pictures[counts == 1])
    shares = {"none": counts == 0, "one": counts == 1, "more": counts > 1}
    return {name: float(np.mean(which)) for name, which in shares.items()} | {
        "place_deviation": float(lone.std()) if len(lone) else None
    }


def learned(attn_at: tuple[int, ...], seed: int, steps: int) -> dict[str, Any]:
    """Trains a discriminator of 16x64 pictures to tell one animal from none and two; its shares of right answers."""
    import torch

    from sagan_cli.contracts import ModelSpec
    from sagan_cli.engine.step import advance_spectral_norms
    from sagan_cli.model import sagan

    def tensor(pictures: Pixels) -> torch.Tensor:
        return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(127.5).sub(1)

    near, far = APART[0], APART[-1]
    spans = np.random.default_rng(SEED).uniform(near, far, KNOWN // 2)
    two = np.stack([draw_alone(SEED + 2, i, 16, 64, 2, span) for i, span in enumerate(spans)])
    right, wrong = (
        tensor(drawn(KNOWN, 16, 64, 1)),
        tensor(np.concatenate([drawn(KNOWN // 2, 16, 64, 0, SEED + 1), two])),
    )
    torch.manual_seed(seed)
    dice = torch.Generator().manual_seed(seed)
    _, network = sagan.build(ModelSpec(16, 64, base_width=WIDTH, attn_at=attn_at))
    optimizer = torch.optim.Adam(network.parameters(), RATE, betas=(0.0, 0.99))
    for _ in range(steps):
        advance_spectral_norms(network)
        here, there = (torch.randint(0, KNOWN, (BATCH,), generator=dice) for _ in range(2))
        with torch.autocast("cpu", torch.bfloat16):
            score = network(torch.cat([right[here], wrong[there]]), None)
        loss = (1 - score[:BATCH]).relu().mean() + (1 + score[BATCH:]).relu().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def pleased(pictures: Pixels) -> float:
        with torch.no_grad():
            return float((network.eval()(tensor(pictures), None) > 0).float().mean())

    unseen = SEED + 3
    answers = {"one": pleased(drawn(UNSEEN, 16, 64, 1, unseen)), "none": 1 - pleased(drawn(UNSEEN, 16, 64, 0, unseen))}
    for span in APART:
        two = np.stack([draw_alone(unseen, i, 16, 64, 2, span) for i in range(UNSEEN)])
        answers[f"two, {span:g} apart"] = 1 - pleased(two)
    gamma = [float(weight.detach()) for name, weight in network.named_parameters() if name.endswith("gamma")]
    return {"attention": list(attn_at), "seed": seed, "right": answers, "gamma": gamma}


def main() -> int:
    """Writes the measurements as JSON and prints the file's path; exit code 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=3000, help="pictures of a size and number of animals")
    parser.add_argument("--twins", type=Path, help="add what the runs of this ablation draw")
    parser.add_argument("-n", type=int, default=510, help="samples of a run")
    parser.add_argument("--learn", action="store_true", help="train discriminators as well")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=3000, help="updates of a discriminator")
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
    if options.learn:
        known = before.get("discriminators", {})
        rows = known.get("rows", []) if known.get("updates") == options.steps else []
        report["discriminators"] = {"updates": options.steps, "rows": rows}
        for seed, attn_at in itertools.product(options.seeds, ((), (32,))):
            if any((row["seed"], row["attention"]) == (seed, list(attn_at)) for row in rows):
                continue
            rows.append(learned(attn_at, seed, options.steps))
            print(rows[-1], file=sys.stderr, flush=True)
            write(options.out, report)  # a training that is there is not made again, so what was stopped goes on
    write(options.out, report)
    print(options.out)
    return 0 if all(size["goals_reached"] for size in sizes) else 1


def write(out: Path, report: dict[str, Any]) -> None:
    """As JSON."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
