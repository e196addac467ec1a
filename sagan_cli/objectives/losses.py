"""Adversarial losses: functions of logits on real (N,) and fake images (N,), each minimised by one network."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sagan_cli.contracts import Loss


def _cross_entropy(real: Tensor, fake: Tensor) -> Tensor:
    """-E[log s(D(x))] - E[log(1 - s(D(G(z))))] with the sigmoid s; 2 log 2 if D cannot distinguish the images."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def _g_pairs(real: Tensor | None, fake: Tensor) -> Tensor:
    assert real is not None, "declared by `uses_real`"
    return F.softplus(real - fake).mean()


HINGE = Loss(
    "Lim and Ye 2017; Zhang et al. 2019, equation 4",
    discriminator=lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
    generator=lambda real, fake: -fake.mean(),
)
NON_SATURATING = Loss(
    "Goodfellow et al. 2014, section 3: G maximises log D",
    discriminator=_cross_entropy,
    generator=lambda real, fake: F.softplus(-fake).mean(),
)
MINIMAX = Loss(
    "Goodfellow et al. 2014, equation 1",
    discriminator=_cross_entropy,
    generator=lambda real, fake: -F.softplus(fake).mean(),
)
LEAST_SQUARES = Loss(
    "Mao et al. 2017, equation 9 (a = 0, b = c = 1)",
    discriminator=lambda real, fake: 0.5 * ((real - 1).square().mean() + fake.square().mean()),
    generator=lambda real, fake: 0.5 * (fake - 1).square().mean(),
)
WASSERSTEIN = Loss(
    "Arjovsky et al. 2017; needs a Lipschitz D: --clip, --gp or spectral norm",
    discriminator=lambda real, fake: fake.mean() - real.mean(),
    generator=lambda real, fake: -fake.mean(),
)
RELATIVISTIC = Loss(
    "relativistic pairing, Jolicoeur-Martineau 2018; Huang et al. 2024, equation 2",
    discriminator=lambda real, fake: F.softplus(fake - real).mean(),
    generator=_g_pairs,
    uses_real=True,
)
