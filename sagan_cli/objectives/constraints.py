"""Constraints on the discriminator's weights, applied after each of its updates."""

from __future__ import annotations

from torch import nn

from sagan_cli.contracts import Constraint


def _clip(discriminator: nn.Module, limit: float) -> None:
    for weight in discriminator.parameters():
        weight.clamp_(-limit, limit)


CLIP = Constraint("weights within [-VALUE, VALUE]; Arjovsky et al. 2017, algorithm 1", _clip)
