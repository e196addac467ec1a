"""An exponential moving average of a generator: the weights that samples, scores and exports use."""

from __future__ import annotations

import copy

import torch
from torch import nn


class EMA:
    """A second generator that follows the first, weights and batch-norm statistics alike.

    The decay is warmed up as min(decay, (1 + t) / (10 + t)) over updates t, so that a run of a thousand steps is not
    averaged with its random start (the schedule of TensorFlow's ExponentialMovingAverage).
    """

    def __init__(self, source: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = copy.deepcopy(source).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, source: nn.Module, updates: int) -> None:
        """Move towards `source`; `updates` counts the ones before this one."""
        weight = 1 - min(self.decay, (1 + updates) / (10 + updates))
        mine = [*self.module.parameters(), *self.module.buffers()]
        theirs = [*source.parameters(), *source.buffers()]
        floats = [(m, t) for m, t in zip(mine, theirs, strict=True) if m.is_floating_point()]
        torch._foreach_lerp_([m for m, _ in floats], [t for _, t in floats], weight)
        for m, t in zip(mine, theirs, strict=True):
            if not m.is_floating_point():
                m.copy_(t)
