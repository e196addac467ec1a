"""Adaptive discriminator augmentation (ADA, Karras et al. 2020, arXiv 2006.06676): augment as much as D overfits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sagan_cli.contracts import Loss

MEMORY = 4
"""Updates of D over which its sign is averaged; the paper averages over 4 minibatches."""


def discriminator_sign(loss: Loss, real: Tensor, fake: Tensor) -> Tensor:
    """Return r_t, the paper's measure of overfitting: 0 if D cannot tell real from generated images, 1 if always.

    It is E[sign D(x)] (equation 1 of the paper). For a loss over pairs, whose logits have no zero of their own, it is
    E[sign(D(x) - D(G(z)))].

    Args:
        real, fake: logits (N,).
    """
    return (real - fake if loss.uses_real else real).detach().sign().mean()


class AdaptiveStrength(nn.Module):
    """The factor p in [0, 1] by which the probabilities of all augmentations are multiplied.

    It is state of the run: it rises while r_t is above the target and falls otherwise, by `batch / images` per update.
    """

    strength: Tensor
    sign: Tensor

    def __init__(self, target: float, images: int, batch: int) -> None:
        """Begin at 0; p takes at least `images` real images from 0 to 1."""
        super().__init__()
        self.target, self.step = target, batch / images
        self.register_buffer("strength", torch.zeros(()))
        self.register_buffer("sign", torch.zeros(()))

    def update_(self, sign: Tensor) -> None:
        """Include r_t (detached) of one update and move p; on the device, so that nothing waits for it."""
        self.sign.lerp_(sign.to(self.sign.dtype), 1 / MEMORY)
        self.strength.add_(self.step * (self.sign - self.target).sign()).clamp_(0.0, 1.0)
