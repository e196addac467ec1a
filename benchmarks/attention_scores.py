"""Show how large the generator's attention scores and gradients became in a training run.

    python benchmarks/attention_scores.py RUN

Prints the median and the largest norm of G's gradient among the logged steps, and, for each attention layer of the
trained weights, the largest features, queries and keys and the median of the largest attention weight of a position
(1: every row of the map is one-hot), over 256 latents in fp32.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sagan_cli import load_generator, open_run

LATENTS = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    path = parser.parse_args().run
    norms = [row["g_grad"] for row in open_run(path).metrics() if "g_grad" in row]
    if norms:
        print(f"norm of G's gradient: median {np.median(norms):.1f}, largest {max(norms):.0f} of {len(norms)} logged")
    generator = load_generator(path, raw=True)
    for side, layer in generator.sampler.generator.attention_layers().items():  # type: ignore[operator]
        found: dict[str, Tensor] = {}

        def keep(module: nn.Module, inputs: tuple[Tensor, ...], _: Tensor, found: dict[str, Tensor] = found) -> None:
            found["features"] = inputs[0]

        hook = layer.register_forward_hook(keep)
        with torch.no_grad():
            generator.forward(*generator.latents(range(LATENTS)))
            hook.remove()
            x = found["features"]
            largest = {"features": x, "queries": layer.query(x), "keys": layer.key(x)}
            told = ", ".join(f"{name} {float(value.abs().max()):.0f}" for name, value in largest.items())
            print(f"attention at {side}: largest {told}; median of the largest weight of a position "
                  f"{float(layer.maps(x).amax(-1).median()):.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
