"""Measures `quadrupeds-alone`: how often its counter is right, and what a discriminator can learn to count.

    python benchmarks/quadrupeds_animals.py              # docs/results/quadrupeds_animals.json
    python benchmarks/quadrupeds_animals.py --learn      # adds what a discriminator learns: some minutes of one core

The second part trains discriminators alone, as classifiers: pictures with one animal against pictures with none or with
two, as many of each. No generator takes part, so what comes out is what a generator could be told at all.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sagan_cli.data.quadrupeds.alone import draw_alone
from sagan_cli.data.quadrupeds.animals import count_animals

SEED = 77_002
NOISE = 0.04
GOAL = 0.99
"""Least share of pictures on which the count must be right."""
SIZES = ((16, 64), (32, 128), (64, 256))
KNOWN, UNSEEN, BATCH = 6000, 1500, 32
"""Pictures of a side to learn from and to be asked about, and of a side in a batch."""
RATE, WIDTH = 1e-3, 32
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


def learned(attn_at: tuple[int, ...], seed: int, steps: int) -> dict[str, Any]:
    """A discriminator of 16x64 pictures, trained to tell one animal from none and two; its share of right answers."""
    import torch

    from sagan_cli.contracts import ModelSpec
    from sagan_cli.engine.step import advance_spectral_norms
    from sagan_cli.model import sagan

    half = (KNOWN + UNSEEN) // 2
    pictures = {
        1: drawn(KNOWN + UNSEEN, 16, 64, 1),
        0: np.concatenate([drawn(half, 16, 64, 0, SEED + 1), drawn(half, 16, 64, 2, SEED + 2)]),
    }
    order = np.random.default_rng(SEED).permutation(KNOWN + UNSEEN)
    pictures[0] = pictures[0][order]
    x = {
        side: torch.from_numpy(p).permute(0, 3, 1, 2).float().div(127.5).sub(1) for side, p in pictures.items()
    }  # fmt: skip
    torch.manual_seed(seed)
    dice = torch.Generator().manual_seed(seed)
    _, network = sagan.build(ModelSpec(16, 64, base_width=WIDTH, attn_at=attn_at))
    optimizer = torch.optim.Adam(network.parameters(), RATE, betas=(0.0, 0.99))
    curve = []
    for step in range(1, steps + 1):
        advance_spectral_norms(network)
        here, there = (torch.randint(0, KNOWN, (BATCH,), generator=dice) for _ in range(2))
        score = network(torch.cat([x[1][here], x[0][there]]), None)
        loss = (1 - score[:BATCH]).relu().mean() + (1 + score[BATCH:]).relu().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            network.eval()
            with torch.no_grad():
                right = [float(((network(x[side][KNOWN:], None) > 0) == bool(side)).float().mean()) for side in (1, 0)]
            network.train()
            curve.append({"step": step, "right": sum(right) / 2})
            print(attn_at, seed, curve[-1], file=sys.stderr, flush=True)
    return {"attention": list(attn_at), "seed": seed, "right": curve[-1]["right"], "curve": curve}


def main() -> int:
    """Writes the measurements as JSON and prints the file's path; exit code 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=3000, help="pictures of a size and number of animals")
    parser.add_argument("--learn", action="store_true", help="train discriminators as well")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    sizes = [counted(*size, options.count) for size in SIZES]
    command = "python benchmarks/quadrupeds_animals.py" + (" --learn" if options.learn else "")
    report: dict[str, Any] = {"command": command, "seed": SEED, "numpy": np.__version__, "sizes": sizes}
    if options.learn:
        report["discriminators"] = [
            learned(attn_at, seed, options.steps) for attn_at in ((), (32,)) for seed in range(options.seeds)
        ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(options.out)
    return 0 if all(size["goals_reached"] for size in sizes) else 1


if __name__ == "__main__":
    raise SystemExit(main())
