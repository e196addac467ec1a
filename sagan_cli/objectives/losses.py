"""Adversarial objectives on discriminator logits: one row each, the two sides of the game and where it comes from.

D's side is minimised over D with logits on real and fake pictures, G's over G with logits on fake ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """The two sides of one game."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    """Logits on real (N,) and fake (M,) pictures -> scalar."""
    generator: Callable[[Tensor], Tensor]
    """Logits on fake pictures (M,) -> scalar."""
    about: str
    """One line with its source."""


def _hinge(real: Tensor, fake: Tensor) -> Tensor:
    """E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))]; 0 when all clear their margin."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def _cross_entropy(real: Tensor, fake: Tensor) -> Tensor:
    """-E[log s(D(x))] - E[log(1 - s(D(G(z))))] with s the sigmoid; 2 log 2 where D cannot tell."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def _least_squares(real: Tensor, fake: Tensor) -> Tensor:
    """(E[(D(x) - 1)^2] + E[D(G(z))^2]) / 2."""
    return 0.5 * ((real - 1).square().mean() + fake.square().mean())


def _critic(real: Tensor, fake: Tensor) -> Tensor:
    """E[D(G(z))] - E[D(x)]; its negative bounds the Wasserstein distance where D is 1-Lipschitz."""
    return fake.mean() - real.mean()


LOSSES: dict[str, Loss] = {
    "hinge": Loss(_hinge, lambda fake: -fake.mean(), "Lim and Ye 2017; Zhang et al. 2019, equation 4"),
    "non-saturating": Loss(
        _cross_entropy, lambda fake: F.softplus(-fake).mean(), "Goodfellow et al. 2014, section 3: G maximises log D"
    ),
    "minimax": Loss(
        _cross_entropy, lambda fake: -F.softplus(fake).mean(), "Goodfellow et al. 2014, equation 1, as it stands"
    ),
    "least-squares": Loss(
        _least_squares, lambda fake: 0.5 * (fake - 1).square().mean(), "Mao et al. 2017, equation 9 (a = 0, b = c = 1)"
    ),
    "wasserstein": Loss(
        _critic, lambda fake: -fake.mean(), "Arjovsky et al. 2017; keep D Lipschitz with --clip, --gp or spectral norm"
    ),
}
