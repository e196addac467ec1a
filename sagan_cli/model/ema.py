"""Exponential moving average (EMA) of a generator: the weights that samples, scores and exports use."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

SPECTRAL_ITERATIONS = 20
"""Power iterations from the trained weights' singular vectors to those of the averaged weights."""


class EMA:
    """A copy of a generator whose weights are an exponential moving average of the original's.

    Only weights are averaged. Averaged singular vectors are shorter than 1, which would make spectral norms too small,
    and batch statistics of the averaged network are not the average of batch statistics. `settle` therefore measures
    both on the averaged weights before they are used or saved (standing statistics, Brock et al. 2019, appendix B).

    With `warm_up`, the decay at update t is min(decay, (1 + t) / (10 + t)), as in TensorFlow's
    ExponentialMovingAverage, so that short runs are not averaged with their random initialisation.
    """

    def __init__(self, source: nn.Module, decay: float = 0.999, *, warm_up: bool = True) -> None:
        self.decay, self.warm_up = decay, warm_up
        self.module = copy.deepcopy(source).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, source: nn.Module, updates: int) -> None:
        """Update the average with the weights of `source`; `updates` is the number of previous updates."""
        weight = 1 - (min(self.decay, (1 + updates) / (10 + updates)) if self.warm_up else self.decay)
        torch._foreach_lerp_(list(self.module.parameters()), list(source.parameters()), weight)

    @torch.no_grad()
    def settle(self, source: nn.Module, noise: Iterable[tuple[Tensor, Tensor | None]]) -> None:
        """Measure spectral norms and batch statistics on the averaged weights.

        The result depends on the averaged weights, `source` and `noise` only, not on when or how often it is called.
        `noise` yields latents z and classes y; statistics are means over its batches.
        """
        for mine, theirs in zip(self.module.buffers(), source.buffers(), strict=True):
            mine.copy_(theirs)
        for module in self.module.modules():
            advance = getattr(module, "advance_", None)
            if advance is not None:
                for _ in range(SPECTRAL_ITERATIONS):
                    advance()
        standing_statistics(self.module, noise)


@torch.no_grad()
def standing_statistics(generator: nn.Module, noise: Iterable[tuple[Tensor, Tensor | None]]) -> None:
    """Replace batch statistics by their means over the batches of `noise` (Brock et al. 2019, appendix B).

    `noise` yields latents z (N, latent) and classes y (N,) or None. The generator is left in evaluation mode.
    """
    norms: list[Any] = [m for m in generator.modules() if isinstance(getattr(m, "running_mean", None), Tensor)]
    momenta = [m.momentum for m in norms]
    generator.train()
    for count, (z, y) in enumerate(noise, start=1):
        for norm in norms:
            norm.momentum = 1 / count  # the mean over the batches so far; the first batch replaces the old value
        generator(z, y)
    generator.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
