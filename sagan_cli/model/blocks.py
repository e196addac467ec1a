"""Residual blocks of the authors' release; resampling is folded into the convolutions next to it."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from sagan_cli.contracts import ModelSpec
from sagan_cli.model.attention_placement import ATTENTION, checked_options
from sagan_cli.model.layers import SPECTRAL, ConditionalBatchNorm2d, LayerTypes

OPTIONS: dict[str, tuple[Any, ...]] = {
    **{name: ATTENTION[name] for name in ("attention", "attn_ratio", "qk_norm")},
    "spectral_norm": ("both", "d", "none"), "g_norm": ("batch", "none"),
}  # fmt: skip
"""Option -> allowed values, for the architectures that are built of these blocks."""


def normalisation(spec: ModelSpec, arch: str) -> dict[str, str]:
    """Return the options `spectral_norm` and `g_norm`, after checking all options.

    Raises:
        UsageError: unknown option or value.
    """
    options = checked_options(spec, arch, OPTIONS)
    return {name: options[name] for name in ("spectral_norm", "g_norm")}


class UpBlock(nn.Module):
    """G: cBN, ReLU, double, conv, cBN, ReLU, conv; the shortcut doubles and always has a learned 1x1.

    Without batch norm and spectral norm, the second convolution starts at 0, so that the variance of the features does
    not grow with the number of blocks (Zhang et al. 2019, arXiv 1901.09321; R3GAN, Huang et al. 2024).
    """

    def __init__(self, in_channels: int, out_channels: int, num_classes: int, types: LayerTypes = SPECTRAL) -> None:
        super().__init__()
        self.norm0 = types.norm(in_channels, num_classes)
        self.conv0 = types.conv(in_channels, out_channels, 3)
        self.norm1 = types.norm(out_channels, num_classes)
        self.conv1 = types.conv(out_channels, out_channels, 3)
        self.shortcut = types.conv(in_channels, out_channels, 1)
        if types.norm is not ConditionalBatchNorm2d and not types.spectral:
            nn.init.zeros_(self.conv1.weight)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """(B, I, H, W) -> (B, O, 2H, 2W)."""
        # In place where the input is not needed again: one pass over memory less.
        h = self.conv0.up(F.relu(self.norm0(x, y), inplace=True))
        h = self.conv1(F.relu(self.norm1(h, y), inplace=True))
        # A 1x1 convolution commutes with nearest upsampling; on the small map it costs a quarter.
        return h + F.interpolate(self.shortcut(x), scale_factor=2, mode="nearest")


class DownBlock(nn.Module):
    """Residual block of D: ReLU, conv, ReLU, conv, pool; the shortcut is a 1x1 conv with pooling, or the identity.

    `first` omits the leading ReLU, which would remove all negative pixel values.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        down: bool = True,
        first: bool = False,
        types: LayerTypes = SPECTRAL,
    ) -> None:
        super().__init__()
        self.down, self.first = down, first
        self.conv0 = types.conv(in_channels, out_channels, 3)
        self.conv1 = types.conv(out_channels, out_channels, 3)
        same = in_channels == out_channels and not down
        self.shortcut = None if same else types.conv(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, H, W) -> (B, O, H/2, W/2), or (B, O, H, W) without `down`."""
        h = F.relu(self.conv0(x if self.first else F.relu(x)), inplace=True)
        h = self.conv1.down(h) if self.down else self.conv1(h)
        # Pooling commutes with a 1x1 convolution; pooling first costs a quarter.
        skip = F.avg_pool2d(x, 2) if self.down else x
        return h + (skip if self.shortcut is None else self.shortcut(skip))
