"""Dropout whose masks are a function of what a checkpoint holds: a resumed run drops what it would have dropped."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

_WORD = 0xFFFFFFFF
_MULTIPLIER = 0x045D9F3B


class Dropout(nn.Module):
    """Zeroes each number with probability p in training and scales the others by 1 / (1 - p) (Srivastava et al. 2014).

    PyTorch's own draws from a generator that checkpoints do not hold. Here a mask is a hash of the layer's seed, drawn
    with its weights, of the number of masks so far, and of the position; both numbers are buffers. It is the same on
    every device, and asks no device for an answer.
    """

    stream: Tensor

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        seed = torch.randint(2**31, (1,))
        self.register_buffer("stream", torch.cat([seed, torch.zeros_like(seed)]))  # seed, masks so far

    def forward(self, x: Tensor) -> Tensor:
        """Any shape; in evaluation the identity."""
        if not self.training:
            return x
        # Of processes that share a batch, each has a stream of its own.
        rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        key = _hash(_hash(self.stream[0] ^ rank << 20) ^ self.stream[1])
        self.stream[1] += 1
        words = _hash(_hash(torch.arange(x.numel(), device=x.device) ^ key) ^ key).view(x.shape)
        return x * (words >= int(self.p * 2**32)) / (1 - self.p)


def _hash(word: Tensor) -> Tensor:
    """A scrambled 32-bit word for each, in int64; products stay below 2^63."""
    for _ in range(2):
        word = ((word ^ word >> 16) * _MULTIPLIER) & _WORD
    return word ^ word >> 16
