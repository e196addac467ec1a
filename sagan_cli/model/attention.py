"""The self-attention block of the authors' release, `official`: pooled keys and values, output convolution, gamma."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagan_cli.model.layers import SNConv2d
from sagan_cli.ops.attention import attend, attention_map


class SelfAttention(nn.Module):
    """y = x + gamma * o (Zhang et al. 2019, equation 3), with C/8 queries and keys and C/2 values, all without bias.

    Keys and values are max-pooled 2x2, so N = H W positions look at M = N / 4. gamma starts at 0: the block is the
    identity until training finds a use for it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner, value = max(channels // 8, 1), max(channels // 2, 1)
        self.query = SNConv2d(channels, inner, 1, bias=False)
        self.key = SNConv2d(channels, inner, 1, bias=False)
        self.value = SNConv2d(channels, value, 1, bias=False)
        self.output = SNConv2d(value, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W); H and W even."""
        h, w = x.shape[2:]
        query, key, value = self._project(x)
        o = attend(query, key, value)
        # (B, N, e) seen as a picture is channels_last already: no copy.
        o = self.output(o.transpose(1, 2).unflatten(2, (h, w)))
        return x + self.gamma.to(x.dtype) * o.to(x.dtype)

    def maps(self, x: Tensor) -> Tensor:
        """The attention maps that `forward` uses on x: (B, N, M), rows sum to 1, positions in row-major order."""
        query, key, _ = self._project(x)
        return attention_map(query, key)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query = self.query(x)
        key = F.max_pool2d(self.key(x), 2)
        value = F.max_pool2d(self.value(x), 2)
        return _positions(query), _positions(key), _positions(value)


def _positions(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H W, C)."""
    return x.flatten(2).transpose(1, 2)
