"""Inception with weights that anyone can compute, and the features it must give: proof of resize and arithmetic.

The published weights cannot be shipped, so what surrounds them is proven with others: every number below follows from
integer arithmetic alone (splitmix64, Steele et al. 2014), so it is the same on every machine. The expected features
were computed by torch-fidelity 0.4.0 on a CPU:

    python tests/support/inception_weights.py --known
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

PLACES = tuple(range(0, 2048, 128))
"""Features that are compared, of the 2,048."""
EXPECTED = (
    (0.14781, 0.0966854, 0.192677, 0.281178, 0.085064, 0.27935, 0.15549, 0.31959,
     0.372913, 0.319569, 0.201855, 0.151334, 0.28258, 0.0961442, 0.285056, 0.0384449),
    (0.195167, 0.0607282, 0.0627209, 0.265736, 0.103309, 0.353426, 0.0639056, 0.251886,
     0.166164, 0.249133, 0.125887, 0.150898, 0.582132, 0.0433627, 0.181269, 0.226849),
)  # fmt: skip
"""Of the two pictures of `self_check.known_tensor`."""


def measured(inception: nn.Module) -> Tensor:
    """(2, 16) float32: the features at `PLACES` of the two known pictures, with known weights.

    A copy of the network is given them; it has the class, the resizing and the device of the original.
    """
    network: Any = copy.deepcopy(inception)
    first = 0
    for name, tensor in sorted(network.state_dict().items()):
        if tensor.dim() > 1:
            rows = _uniform(first, tensor.numel()).reshape(len(tensor), -1)
            first += tensor.numel()
            # Filters that sum to zero: otherwise what all pictures share outgrows what tells them apart.
            rows = (rows - rows.mean(axis=1, keepdims=True)) * (3 / np.sqrt(rows.shape[1]))
            tensor.copy_(torch.from_numpy(rows.astype(np.float32).reshape(tensor.shape)))
        else:
            tensor.fill_(1 if name.endswith(("bn.weight", "running_var")) else 0)
    network.features_list = ["2048"]
    device = next(network.parameters()).device
    with torch.inference_mode():
        (features,) = network(known_tensor().to(device))
    found: Tensor = features[:, list(PLACES)].float().cpu()
    return found


def known_tensor() -> Tensor:
    """Two pictures uint8 (2, 3, 40, 56) that need no random numbers: ramps, and a chequerboard over them."""
    y, x = np.mgrid[0:40, 0:56]
    ramps = np.stack([x * 4, y * 6, (x + y) * 2])
    board = np.where((x // 5 + y // 7) % 2, ramps[::-1], 255 - ramps)
    return torch.from_numpy(np.stack([ramps, board]).clip(0, 255).astype(np.uint8))


def difference(inception: nn.Module) -> float:
    """Largest difference to the expected features, relative to the largest of them."""
    expected = torch.tensor(EXPECTED)
    return float((measured(inception) - expected).abs().max() / expected.abs().max())


def _uniform(first: int, count: int) -> NDArray[np.float64]:
    """splitmix64 of first, first + 1, ... as numbers in [-1, 1)."""
    with np.errstate(over="ignore"):
        z = (np.arange(first, first + count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0
