"""Penalties on the discriminator's gradient by its images: R1, R2 and the gradient penalty of WGAN-GP.

They are computed in fp32 and with materialised attention, because PyTorch's fused attention has no second derivative.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sagan_cli.contracts import Penalty, PenaltyInputs
from sagan_cli.ops.assumed_batch import assumed_batch
from sagan_cli.ops.precision import no_autocast, wide


def _r1(inputs: PenaltyInputs) -> Tensor:
    return 0.5 * _gradient(inputs, inputs.real, inputs.real_labels).square().sum(1).mean()


def _r2(inputs: PenaltyInputs) -> Tensor:
    return 0.5 * _gradient(inputs, inputs.fake, inputs.fake_labels).square().sum(1).mean()


def _gradient_penalty(inputs: PenaltyInputs) -> Tensor:
    """E[(|grad D(m)| - 1)^2] at m = t x + (1 - t) G(z), t uniform in [0, 1], with the classes of the real images."""
    assert inputs.random is not None, "drawn by the penalty's `random`"
    share = inputs.random.view(-1, 1, 1, 1).to(inputs.real.dtype)
    between = share * inputs.real + (1 - share) * inputs.fake.to(inputs.real.dtype)
    # The small constant keeps the square root differentiable where the gradient is 0.
    norm = (_gradient(inputs, between, inputs.real_labels).square().sum(1) + 1e-12).sqrt()
    return (norm - 1).square().mean()


def _gradient(inputs: PenaltyInputs, x: Tensor, y: Tensor | None) -> Tensor:
    """(N, C H W): the gradient of each logit by its image, itself differentiable."""
    x = wide(x.detach()).requires_grad_()
    with no_autocast(x), assumed_batch(0):
        logits = inputs.discriminator(x, y)
        (gradient,) = torch.autograd.grad(wide(logits).sum(), x, create_graph=True)
    return gradient.flatten(1)


R1 = Penalty("E[|grad D(x)|^2] / 2 on real images; Mescheder et al. 2018, equation 9", _r1)
R2 = Penalty("E[|grad D(G(z))|^2] / 2 on fake images; Mescheder et al. 2018, equation 10", _r2)
GP = Penalty(
    "gradient norm 1 between real and fake images; Gulrajani et al. 2017, equation 3",
    _gradient_penalty,
    random=lambda generator, count: torch.rand(count, generator=generator),
    stream="mixture",
)
