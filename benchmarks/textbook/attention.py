"""Self-attention by three explicit matrix products, as the two kinds of ports write it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm


class FullAttention(nn.Module):
    """The well-known port's block: values at C, no pooling, no output convolution; gives its map back as well."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, max(channels // 8, 1), 1)
        self.key = nn.Conv2d(channels, max(channels // 8, 1), 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, C, H, W) -> the same shape, and the map (B, HW, HW)."""
        b, c, h, w = x.shape
        query = self.query(x).view(b, -1, h * w).permute(0, 2, 1)
        key = self.key(x).view(b, -1, h * w)
        attention = torch.softmax(torch.bmm(query, key), dim=-1)
        value = self.value(x).view(b, -1, h * w)
        out = torch.bmm(value, attention.permute(0, 2, 1)).view(b, c, h, w)
        return self.gamma * out + x, attention


class PooledAttention(nn.Module):
    """The authors' block as ports write it: keys and values max-pooled, values at C / 2, spectral norm everywhere."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = spectral_norm(nn.Conv2d(channels, max(channels // 8, 1), 1, bias=False))
        self.key = spectral_norm(nn.Conv2d(channels, max(channels // 8, 1), 1, bias=False))
        self.value = spectral_norm(nn.Conv2d(channels, channels // 2, 1, bias=False))
        self.output = spectral_norm(nn.Conv2d(channels // 2, channels, 1, bias=False))
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        b, c, h, w = x.shape
        query = self.query(x).view(b, -1, h * w)
        key = F.max_pool2d(self.key(x), 2).view(b, -1, h * w // 4)
        attention = torch.softmax(torch.bmm(query.permute(0, 2, 1), key), dim=-1)
        value = F.max_pool2d(self.value(x), 2).view(b, -1, h * w // 4)
        out = torch.bmm(value, attention.permute(0, 2, 1)).view(b, c // 2, h, w)
        return self.gamma * self.output(out) + x
