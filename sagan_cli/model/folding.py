"""Spectral norm folded into plain weights: the same function, for networks that draw and are not trained further."""

from __future__ import annotations

from torch import nn


def fold_(network: nn.Module) -> nn.Module:
    """Fold every layer that can be (those with a method `fold_`), in place; the outputs stay the same to the bit.

    Folding is for good: the singular vectors go, so the network cannot be trained on or saved as a checkpoint.
    """
    for module in network.modules():
        fold = getattr(module, "fold_", None)
        if fold is not None:
            fold()
    return network
