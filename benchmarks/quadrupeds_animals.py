"""Measures `quadrupeds-alone`: how often its counter is right, and what a discriminator can learn to count.

    python benchmarks/quadrupeds_animals.py              # docs/results/quadrupeds_animals.json
    python benchmarks/quadrupeds_animals.py --learn      # adds what discriminators learn: an hour of one core

The second part trains discriminators alone, as classifiers: pictures with one animal against pictures with none and
with two that stand so many heights apart, as many of each. No generator takes part: what comes out is what a generator
could be told at all. One half of the answers is right by chance.
"""

from __future__ import annotations

import argparse
import itertools
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


def learned(attn_at: tuple[int, ...], apart: float, seed: int, steps: int) -> dict[str, Any]:
    """Trains a discriminator of 16x64 pictures to tell one animal from none and two; its share of right answers."""
    import torch

    from sagan_cli.contracts import ModelSpec
    from sagan_cli.engine.step import advance_spectral_norms
    from sagan_cli.model import sagan

    half = (KNOWN + UNSEEN) // 2
    many = np.stack([draw_alone(SEED + 2, i, 16, 64, 2, apart) for i in range(half)])
    mixed = np.stack([drawn(half, 16, 64, 0, SEED + 1), many], axis=1).reshape(-1, 16, 64, 3)
    right, wrong = (
        torch.from_numpy(p).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        for p in (drawn(KNOWN + UNSEEN, 16, 64, 1), mixed)
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
    network.eval()
    with torch.no_grad():
        share = [
            float((network(right[KNOWN:], None) > 0).float().mean()),
            float((network(wrong[KNOWN:], None) < 0).float().mean()),
        ]
    gamma = [float(weight.detach()) for name, weight in network.named_parameters() if name.endswith("gamma")]
    return {"attention": list(attn_at), "apart": apart, "seed": seed, "right": sum(share) / 2, "gamma": gamma}


def main() -> int:
    """Writes the measurements as JSON and prints the file's path; exit code 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=3000, help="pictures of a size and number of animals")
    parser.add_argument("--learn", action="store_true", help="train discriminators as well")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1500, help="updates of a discriminator")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    sizes = [counted(*size, options.count) for size in SIZES]
    command = "python benchmarks/quadrupeds_animals.py" + (" --learn" if options.learn else "")
    report: dict[str, Any] = {"command": command, "seed": SEED, "numpy": np.__version__, "sizes": sizes}
    if options.learn:
        found = report["discriminators"] = {"updates": options.steps, "rows": []}
        for apart, seed, attn_at in itertools.product(APART, range(options.seeds), ((), (32,))):
            found["rows"].append(learned(attn_at, apart, seed, options.steps))
            print(found["rows"][-1], file=sys.stderr, flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(options.out)
    return 0 if all(size["goals_reached"] for size in sizes) else 1


if __name__ == "__main__":
    raise SystemExit(main())
