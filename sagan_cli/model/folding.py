"""Spectral norm folded into plain weights: the same function, for networks that draw and are not trained further."""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize


def fold_(network: nn.Module) -> nn.Module:
    """Fold every layer that can be, in place; the outputs in evaluation mode stay the same to the bit.

    Those can that have a method `fold_`, as the layers of this package do, and those whose weights are parametrised by
    `torch.nn.utils.parametrize`, as `torch.nn.utils.parametrizations.spectral_norm` does. Folding is for good: the
    singular vectors go, so the network cannot be trained on or saved as a checkpoint.

    The network must be in evaluation mode, and no copy of another that lives on: PyTorch changes the class of a
    parametrised layer, which copies share.
    """
    for module in list(network.modules()):  # a list: unparametrising takes modules away
        fold = getattr(module, "fold_", None)
        if fold is not None:
            fold()
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return network
