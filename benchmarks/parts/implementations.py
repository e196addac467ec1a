"""The sides of a comparison, each a function that takes one training step: the textbook's, and ours at two precisions.

How our step is driven stands in `ours` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from parts.systems import System
from sagan_cli.config.schema import TrainConfig
from sagan_cli.engine import networks
from sagan_cli.engine.iteration import iteration
from sagan_cli.engine.runtime import Runtime
from sagan_cli.engine.step_inputs import Inputs
from sagan_cli.objectives.objective import Objective

Take = Callable[[], Any]
TEXTBOOK, EXACT, DEFAULT, AGAIN = "textbook", "exact", "default", "textbook again"
SIDES = (TEXTBOOK, EXACT, DEFAULT, AGAIN)
"""`exact` is fp32, `default` what `sagan train` does unasked; `again` a second copy of the textbook, for the noise."""
BATCHES = 4
"""Different batches that a side goes through in turn, so that D never knows them by heart."""


def side(name: str, system: System, runtime: Runtime, seed: int = 0) -> Take:
    """A step of one side; every side gets the same pictures, latents and classes in the same order.

    Args:
        name: one of `SIDES`.
        runtime: device and default precision; a side of the textbook takes the device alone.
    """
    torch.manual_seed(seed)
    inputs = [_inputs(system, seed * BATCHES + i) for i in range(BATCHES)]
    if name in (TEXTBOOK, AGAIN):
        return _textbook(system, runtime.device, inputs)
    return ours(system, Runtime(runtime.device, "fp32") if name == EXACT else runtime, inputs)


def ours(system: System, runtime: Runtime, inputs: list[dict[str, Any]]) -> Take:
    """One step of `sagan train`: an update of D, one of G, and the moving average, with nothing read back."""
    settings = TrainConfig(batch=system.batch)
    players, ema = networks.create(system.arch, system.spec, settings, runtime.device)
    update = iteration(players, Objective.of(settings), runtime, settings, warn=lambda text: None)
    moved = []
    for given in inputs:
        there = {k: v.to(runtime.device) for k, v in given.items() if v is not None}
        real = {"real": there["x"].contiguous(memory_format=torch.channels_last), "latents": there["z_d"]}
        labels = {name: there["y"] for name in ("real_labels", "fake_labels") if "y" in there}
        fake = {name: y for name, y in labels.items() if name == "fake_labels"}
        moved.append(Inputs((real | labels,), {"latents": there["z_g"]} | fake))
    taken = 0

    def take() -> None:
        nonlocal taken
        update(moved[taken % len(moved)])
        ema.update(players.generator, taken)
        taken += 1

    return take


def _textbook(system: System, device: torch.device, inputs: list[dict[str, Any]]) -> Take:
    step = system.textbook_step(device)
    names = [n for n in ("x", "y", "z_d", "z_g") if inputs[0][n] is not None]
    moved = [[given[n].to(device) for n in names] for given in inputs]
    taken = 0

    def take() -> None:
        nonlocal taken
        step(*moved[taken % len(moved)])
        taken += 1

    return take


def _inputs(system: System, seed: int) -> dict[str, Any]:
    """Pictures of noise x in [-1, 1], latents, classes y and the penalty's mixture, on the CPU."""
    rng, spec, n = torch.Generator().manual_seed(seed), system.spec, system.batch
    return {
        "x": torch.rand(n, spec.channels, spec.height, spec.width, generator=rng) * 2 - 1,
        "y": torch.randint(spec.num_classes, (n,), generator=rng) if spec.num_classes else None,
        "z_d": torch.randn(n, spec.latent, generator=rng),
        "z_g": torch.randn(n, spec.latent, generator=rng),
        "mixture": torch.rand(n, generator=rng),
    }


def count_parameters(system: System) -> dict[str, tuple[int, int]]:
    """Trained numbers of G and D on both sides, counted on networks without memory."""
    with torch.device("meta"):
        pairs = {"ours": networks.build(system.arch, system.spec), TEXTBOOK: system.textbook()}
    return {name: tuple(sum(p.numel() for p in n.parameters()) for n in pair) for name, pair in pairs.items()}
