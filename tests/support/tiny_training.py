"""Tiny pairs of networks and what an iteration of their training takes, for tests on any device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sagan_cli.config.schema import TrainConfig
from sagan_cli.contracts import ModelSpec
from sagan_cli.engine import networks
from sagan_cli.engine.cuda_graph import WARM, state
from sagan_cli.engine.iteration import Inputs, Pair
from sagan_cli.engine.step import Players

BATCH, CLASSES, SIDE, LATENT = 4, 3, 16, 4
PLAIN = TrainConfig(batch=BATCH, d_steps=2, accumulate=2)
STEPS = WARM + 3
CPU = torch.device("cpu")


def players(arch: str = "sagan", cfg: TrainConfig = PLAIN, device: torch.device = CPU) -> Players:
    """A conditional pair, with attention where the architecture has any; always the same one."""
    where = () if arch == "dcgan" else (8,)
    spec = ModelSpec(SIDE, SIDE, 3, num_classes=CLASSES, latent=LATENT, base_width=2, attn_at=where)
    return networks.create(arch, spec, cfg, device)[0]


def inputs(step: int, device: torch.device = CPU, rounds: int = 2) -> Inputs:
    """Noise for pictures, too; a function of the step."""
    rng = torch.Generator().manual_seed(step)

    def pair(*shape: int) -> Pair:
        x, y = torch.randn(BATCH, *shape, generator=rng), torch.randint(CLASSES, (BATCH,), generator=rng)
        return x.to(device), y.to(device)

    each = ((pair(3, SIDE, SIDE), pair(LATENT), torch.rand(BATCH, generator=rng).to(device)) for _ in range(rounds))
    return Inputs(tuple(each), pair(LATENT))


def train(work: Callable[[Inputs], Tensor], pair: Players, device: torch.device = CPU) -> Tensor:
    """`STEPS` steps with rates that fall; their losses, (STEPS, 4)."""
    told = []
    for step in range(STEPS):
        for optimiser in (pair.opt_g, pair.opt_d):
            optimiser.param_groups[0]["lr"] = 1e-2 / (1 + step)
        told.append(work(inputs(step, device)).cpu().clone())  # the next call may overwrite it
    return torch.stack(told)


def kept(pair: Players) -> dict[str, list[Tensor]]:
    """Weights, buffers and optimisers' state, copied."""
    return {kind: [t.detach().cpu().clone() for t in tensors] for kind, tensors in state(pair).items()}
