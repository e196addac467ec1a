"""Penalties on the slope of the discriminator, which differentiate through its gradient: R1 and the gradient penalty.

Both are taken in fp32, and with attention written out: the fused attention kernel has no second derivative.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sagan_cli.ops.assumed_batch import assumed_batch
from sagan_cli.ops.precision import no_autocast, wide

Discriminator = Callable[[Tensor, Tensor | None], Tensor]
"""Pictures (N, C, H, W) and classes (N,) or None -> logits (N,)."""


def r1(discriminator: Discriminator, x: Tensor, y: Tensor | None) -> Tensor:
    """E[|grad D(x)|^2] / 2 on real pictures (Mescheder et al. 2018, equation 9 without its weight gamma)."""
    return 0.5 * _slope(discriminator, x, y).square().sum(1).mean()


def gradient_penalty(
    discriminator: Discriminator, real: Tensor, fake: Tensor, y: Tensor | None, mixture: Tensor
) -> Tensor:
    """E[(|grad D(m)| - 1)^2] at m between real and fake (Gulrajani et al. 2017, equation 3 without its weight lambda).

    Args:
        real, fake: (N, C, H, W) each; y is the class of the real ones.
        mixture: (N,) in [0, 1], the share of the real picture.
    """
    share = mixture.view(-1, 1, 1, 1).to(real.dtype)
    between = share * real + (1 - share) * fake.to(real.dtype)
    # The small number keeps the square root's derivative finite where the slope is 0.
    length = (_slope(discriminator, between, y).square().sum(1) + 1e-12).sqrt()
    return (length - 1).square().mean()


def _slope(discriminator: Discriminator, x: Tensor, y: Tensor | None) -> Tensor:
    """(N, C H W): the gradient of each logit by its picture, itself differentiable."""
    x = wide(x.detach()).requires_grad_()
    with no_autocast(x), assumed_batch(0):
        logits = discriminator(x, y)
        (slope,) = torch.autograd.grad(wide(logits).sum(), x, create_graph=True)
    return slope.flatten(1)
