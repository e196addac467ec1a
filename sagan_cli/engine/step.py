"""One update of the discriminator and one of the generator: the whole of adversarial training, twice fifteen lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sagan_cli.config.schema import TrainConfig
from sagan_cli.engine.runtime import Runtime
from sagan_cli.objectives.losses import LOSSES, Loss
from sagan_cli.objectives.penalties import gradient_penalty, r1
from sagan_cli.ops.precision import wide


@dataclass(frozen=True)
class Objective:
    """The game that is played, and what keeps the discriminator smooth."""

    loss: Loss
    gp: float = 0.0
    """Weight lambda of the gradient penalty."""
    r1: float = 0.0
    """Weight gamma of R1."""
    clip: float = 0.0
    """Largest absolute value of D's weights after each of its steps; 0 leaves them alone."""

    @classmethod
    def of(cls, train: TrainConfig) -> Objective:
        """The one that a run's settings ask for."""
        return cls(LOSSES[train.loss], train.gp, train.r1, train.clip)


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
    objective: Objective,
    mixture: Tensor,
    parts: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    """Update D on this process's real pictures (x, y) and latents (z, y).

    Args:
        mixture: (n,) in [0, 1], where between real and fake the gradient penalty looks.
        parts: equal slices that are computed one after another, so that memory holds one; their gradients add up. Batch
            norm takes its statistics over a slice; all else is the mathematics of the whole batch.

    Returns:
        Detached scalars: loss with penalties, mean logit on real pictures, mean logit on fake ones.
    """
    advance_spectral_norms(players.discriminator)
    players.opt_d.zero_grad(set_to_none=True)
    told = []
    for x, y_real, z, y_fake, between in _slices((*real, *noise, mixture), parts):
        loss, on_real, on_fake = _of_discriminator(players, runtime, x, y_real, z, y_fake, objective, between)
        (loss if parts == 1 else loss / parts).backward()
        told.append(torch.stack([loss.detach(), on_real.detach().mean(), on_fake.detach().mean()]))
    runtime.average_gradients(players.discriminator)
    players.opt_d.step()
    if objective.clip:
        with torch.no_grad():
            for weight in players.discriminator.parameters():
                weight.clamp_(-objective.clip, objective.clip)
    d_loss, d_real, d_fake = torch.stack(told).mean(0)
    return d_loss, d_real, d_fake


def _of_discriminator(
    players: Players,
    runtime: Runtime,
    x: Tensor,
    y_real: Tensor | None,
    z: Tensor,
    y_fake: Tensor | None,
    objective: Objective,
    mixture: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """D's loss with penalties, and its logits on real and fake pictures (n,) each, fp32."""
    with torch.no_grad(), runtime.autocast():
        fake = players.generator(z, y_fake)
    fake = fake.to(x.dtype)
    if getattr(players.discriminator, "batches_apart", False):
        # Batch norm in D, as its authors use it: real and fake pictures have statistics of their own.
        with runtime.autocast():
            on_real, on_fake = (wide(players.discriminator(*half)) for half in ((x, y_real), (fake, y_fake)))
    else:
        # One forward pass over both halves: D sees one weight, and no second pass disturbs the first one's graph.
        both = torch.cat([x, fake]).contiguous(memory_format=torch.channels_last)
        labels = None if y_real is None or y_fake is None else torch.cat([y_real, y_fake])
        with runtime.autocast():
            on_real, on_fake = wide(players.discriminator(both, labels)).split([len(x), len(z)])
    loss = objective.loss.discriminator(on_real, on_fake)
    if objective.gp:
        loss = loss + objective.gp * gradient_penalty(players.discriminator, x, fake, y_real, mixture)
    if objective.r1:
        loss = loss + objective.r1 * r1(players.discriminator, x, y_real)
    return loss, on_real, on_fake


def generator_step(
    players: Players, runtime: Runtime, noise: tuple[Tensor, Tensor | None], objective: Objective, parts: int = 1
) -> Tensor:
    """Update G on this process's latents (z, y), in so many slices; returns the detached loss."""
    advance_spectral_norms(players.generator)
    players.opt_g.zero_grad(set_to_none=True)
    # D's weight gradients are not wanted here, and cost a third of the step.
    players.discriminator.requires_grad_(False)
    told = []
    for z, y in _slices(noise, parts):
        with runtime.autocast():
            logits = players.discriminator(players.generator(z, y), y)
        loss = objective.loss.generator(wide(logits))
        (loss if parts == 1 else loss / parts).backward()
        told.append(loss.detach())
    players.discriminator.requires_grad_(True)
    runtime.average_gradients(players.generator)
    players.opt_g.step()
    return torch.stack(told).mean()


def _slices(tensors: tuple[Tensor | None, ...], parts: int) -> Iterator[tuple[Any, ...]]:
    """Each tensor cut into `parts` along its first axis, slice by slice; None stays None."""
    return zip(*((None,) * parts if t is None else t.chunk(parts) for t in tensors), strict=True)


def set_rates(players: Players, train: TrainConfig, step: int) -> None:
    """The learning rates of a step: as set, and from `train.decay_from` on a straight line to 0 at `train.decay_steps`.

    Args:
        step: generator updates made before this one.
    """
    first, last = train.decay_from, train.decay_steps
    left = min(1.0, max(0.0, 1 - (step - first) / (last - first))) if last else 1.0
    for optimiser, rate in ((players.opt_g, train.g_lr), (players.opt_d, train.d_lr)):
        for group in optimiser.param_groups:
            group["lr"] = rate * left


def advance_spectral_norms(network: nn.Module) -> None:
    """One power iteration for each weight that has one: once per optimiser step of its network, before its forward."""
    for module in network.modules():
        advance = getattr(module, "advance_", None)
        if advance is not None:
            advance()
