"""Tiny pairs of networks and what an iteration of their training takes, for tests on any device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sagan_cli.config.schema import TrainConfig
from sagan_cli.contracts import ModelSpec
from sagan_cli.engine import networks
from sagan_cli.engine.cuda_graph import WARM, state
from sagan_cli.engine.iteration import Iteration, iteration
from sagan_cli.engine.networks import Networks
from sagan_cli.engine.runtime import Runtime
from sagan_cli.engine.step_inputs import Inputs, Tensors
from sagan_cli.objectives.objective import Objective

BATCH, CLASSES, SIDE, LATENT = 4, 3, 16, 4
PLAIN = TrainConfig(batch=BATCH, d_steps=2, accumulate=2)
STEPS = WARM + 3
CPU = torch.device("cpu")


def players(arch: str = "sagan", cfg: TrainConfig = PLAIN, device: torch.device = CPU) -> Networks:
    """A conditional pair, with attention where the architecture has any; always the same one."""
    where = () if arch == "dcgan" else (8,)
    spec = ModelSpec(SIDE, SIDE, 3, num_classes=CLASSES, latent=LATENT, base_width=2, attn_at=where)
    return networks.create(arch, spec, cfg, device)[0]


def inputs(step: int, device: torch.device = CPU, rounds: int = 2, *, gp: float = 0.0) -> Inputs:
    """Noise for images, too; a function of the step; with the random input of a gradient penalty of weight `gp`."""
    rng = torch.Generator().manual_seed(step)

    def pair(name: str, labels: str, *shape: int) -> Tensors:
        x, y = torch.randn(BATCH, *shape, generator=rng), torch.randint(CLASSES, (BATCH,), generator=rng)
        return {name: x.to(device), labels: y.to(device)}

    def update() -> Tensors:
        found = pair("real", "real_labels", 3, SIDE, SIDE) | pair("latents", "fake_labels", LATENT)
        mixture = torch.rand(BATCH, generator=rng).to(device)
        return found | ({"weight.gp": torch.tensor(gp).to(device), "random.gp": mixture} if gp else {})

    return Inputs(tuple(update() for _ in range(rounds)), pair("latents", "fake_labels", LATENT))


def work(
    pair: Networks, cfg: TrainConfig, runtime: Runtime, warn: Callable[[str], None] = lambda text: None
) -> Iteration:
    """Return the iteration of the settings."""
    return iteration(pair, Objective.of(cfg), runtime, cfg, warn)


def train(work: Iteration, pair: Networks, device: torch.device = CPU, *, gp: float = 0.0) -> Tensor:
    """`STEPS` steps with rates that fall; their statistics, (STEPS, 4 or more)."""
    told = []
    for step in range(STEPS):
        for optimiser in (pair.opt_g, pair.opt_d):
            optimiser.param_groups[0]["lr"] = 1e-2 / (1 + step)
        told.append(torch.stack([v.cpu().clone() for v in work(inputs(step, device, gp=gp)).values()]))
    return torch.stack(told)


def kept(pair: Networks) -> dict[str, list[Tensor]]:
    """Weights, buffers and optimisers' state, copied."""
    return {kind: [t.detach().cpu().clone() for t in tensors] for kind, tensors in state(pair).items()}
