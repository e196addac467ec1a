"""An exponential moving average of a generator: the weights that samples, scores and exports use."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

SPECTRAL_ITERATIONS = 20
"""Power iterations that bring the averaged weights' singular vectors home from those of the trained ones."""


class EMA:
    """A second generator whose weights follow the first.

    Weights are averaged; what is measured of weights is not. The mean of many unit vectors is shorter than 1, so a
    spectral norm taken with averaged singular vectors comes out too small and the pictures too harsh; and the batch
    statistics of an averaged network are not the average of batch statistics. `settle` measures both on the averaged
    weights, before they are used or saved (BigGAN's standing statistics, Brock et al. 2019, appendix B).

    The decay is warmed up as min(decay, (1 + t) / (10 + t)) over updates t, so that a run of a thousand steps is not
    averaged with its random start (the schedule of TensorFlow's ExponentialMovingAverage).
    """

    def __init__(self, source: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = copy.deepcopy(source).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, source: nn.Module, updates: int) -> None:
        """Move the weights towards `source`; `updates` counts the ones before this one."""
        weight = 1 - min(self.decay, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(list(self.module.parameters()), list(source.parameters()), weight)

    @torch.no_grad()
    def settle(self, source: nn.Module, noise: Iterable[tuple[Tensor, Tensor | None]]) -> None:
        """Measure spectral norms and batch statistics on the averaged weights.

        A function of the averaged weights, of `source` and of `noise` alone, so that when and how often it is called
        changes nothing. `noise` yields latents z and classes y; statistics are means over its batches.
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
    """Replace a generator's batch statistics by their means over the batches of `noise`; leaves it in evaluation mode.

    The measurement of Brock et al. 2019, appendix B; `noise` yields latents z (N, latent) and classes y (N,) or None.
    """
    norms: list[Any] = [m for m in generator.modules() if isinstance(getattr(m, "running_mean", None), Tensor)]
    momenta = [m.momentum for m in norms]
    generator.train()
    for count, (z, y) in enumerate(noise, start=1):
        for norm in norms:
            norm.momentum = 1 / count  # a plain mean over the batches so far; the first replaces what was there
        generator(z, y)
    generator.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
