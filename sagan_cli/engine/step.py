"""One update of the discriminator and one of the generator: the whole of adversarial training, twice fifteen lines."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sagan_cli.engine.runtime import Runtime
from sagan_cli.ops.losses import hinge_discriminator, hinge_generator


@dataclass
class Players:
    """The two networks and their optimisers."""

    generator: nn.Module
    discriminator: nn.Module
    opt_g: torch.optim.Optimizer
    opt_d: torch.optim.Optimizer


def discriminator_step(
    players: Players,
    runtime: Runtime,
    real: tuple[Tensor, Tensor | None],
    noise: tuple[Tensor, Tensor | None],
) -> tuple[Tensor, Tensor, Tensor]:
    """Update D on this process's real pictures (x, y) and latents (z, y).

    Returns:
        Detached scalars: loss, mean logit on real pictures, mean logit on fake ones.
    """
    x, y_real = real
    z, y_fake = noise
    advance_spectral_norms(players.discriminator)
    with torch.no_grad(), runtime.autocast():
        fake = players.generator(z, y_fake)
    # One forward pass over both halves: D sees one weight, and no second pass disturbs the first one's graph.
    both = torch.cat([x, fake.to(x.dtype)]).contiguous(memory_format=torch.channels_last)
    labels = None if y_real is None or y_fake is None else torch.cat([y_real, y_fake])
    with runtime.autocast():
        logits = players.discriminator(both, labels)
    on_real, on_fake = logits.float().split([len(x), len(z)])
    loss = hinge_discriminator(on_real, on_fake)
    players.opt_d.zero_grad(set_to_none=True)
    loss.backward()
    runtime.average_gradients(players.discriminator)
    players.opt_d.step()
    return loss.detach(), on_real.detach().mean(), on_fake.detach().mean()


def generator_step(players: Players, runtime: Runtime, noise: tuple[Tensor, Tensor | None]) -> Tensor:
    """Update G on this process's latents (z, y); returns the detached loss."""
    z, y = noise
    advance_spectral_norms(players.generator)
    players.discriminator.requires_grad_(
        False
    )  # D's weight gradients are not wanted here, and cost a third of the step
    with runtime.autocast():
        logits = players.discriminator(players.generator(z, y), y)
    loss = hinge_generator(logits.float())
    players.opt_g.zero_grad(set_to_none=True)
    loss.backward()
    players.discriminator.requires_grad_(True)
    runtime.average_gradients(players.generator)
    players.opt_g.step()
    return loss.detach()


def advance_spectral_norms(network: nn.Module) -> None:
    """One power iteration for each weight that has one: once per optimiser step of its network, before its forward."""
    for module in network.modules():
        advance = getattr(module, "advance_", None)
        if advance is not None:
            advance()
