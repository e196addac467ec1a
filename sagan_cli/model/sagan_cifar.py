"""The `sagan-cifar` architecture: SNGAN's ResNet for CIFAR-10 with attention, as in PyTorch-StudioGAN.

The ResNet is that of Miyato et al. 2018 (arXiv 1802.05957), table 4. G has up-blocks of 4 `base_width` channels (256 at
width 64) from 4x4 to 32x32. D has down-blocks of 2 `base_width` channels (128) down to 8x8, two blocks without
resampling, ReLU, the sum over positions and the projection. At 32 pixels both have attention at 16. Larger images get
more blocks of the same width. The blocks are those of `sagan`.

Differences from the source: no spectral norm on the tables of conditional batch norm, Xavier instead of orthogonal
initialisation, epsilons of 1e-5 and 1e-8. Parameter counts are equal.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagan_cli.contracts import ModelSpec
from sagan_cli.geometry import check_attention, geometry
from sagan_cli.model.attention_placement import AttentionBlocks, AttentionNetwork
from sagan_cli.model.blocks import DownBlock, UpBlock, normalisation
from sagan_cli.model.layers import LayerTypes, layer_types
from sagan_cli.ops.precision import no_autocast, wide

ARCH = "sagan-cifar"


class CIFARGenerator(AttentionNetwork):
    """Generator: z (B, latent) ~ N(0, 1), y (B,) class indices or None -> images (B, C, H, W) in [-1, 1]."""

    def __init__(self, spec: ModelSpec, types: LayerTypes) -> None:
        super().__init__()
        maps = geometry(spec.height, spec.width).maps()
        width = 4 * spec.base_width
        self.start = maps[0]
        self.linear = types.linear(spec.latent, width * maps[0][0] * maps[0][1])
        self.blocks = nn.ModuleList(UpBlock(width, width, spec.num_classes, types) for _ in maps[1:])
        self.attention = _attention(spec, [max(m) for m in maps[1:]], width, types)
        self.norm = types.norm(width)
        self.to_image = types.conv(width, spec.channels, 3)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.linear(z).unflatten(1, (*self.start, -1)).permute(0, 3, 1, 2)
        for n, block in enumerate(self.blocks):
            h = self.attention.after(n)(block(h, y))
        return torch.tanh(wide(self.to_image(F.relu(self.norm(h, None)))))


class CIFARDiscriminator(AttentionNetwork):
    """Discriminator: images (B, C, H, W) in [-1, 1], y (B,) or None -> logits (B,)."""

    def __init__(self, spec: ModelSpec, types: LayerTypes) -> None:
        super().__init__()
        maps = geometry(spec.height, spec.width).maps()
        halved = maps[-2:0:-1]  # from half the image to twice the start grid
        width = 2 * spec.base_width
        downs = [DownBlock(width if n else spec.channels, width, first=n == 0, types=types) for n in range(len(halved))]
        self.blocks = nn.ModuleList([*downs, *(DownBlock(width, width, down=False, types=types) for _ in range(2))])
        self.attention = _attention(spec, [max(m) for m in halved], width, types)
        self.linear = types.linear(width, 1)
        self.embed = types.embedding(spec.num_classes, width) if spec.num_classes else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = x
        for n, block in enumerate(self.blocks):
            h = self.attention.after(n)(block(h))
        h = wide(F.relu(h)).sum(dim=(2, 3))
        with no_autocast(h):
            logits: Tensor = self.linear(h).squeeze(1)
            if self.embed is not None:
                assert y is not None, "a class-conditional network needs labels"
                logits = logits + (self.embed(y) * h).sum(1)
        return logits


def build(spec: ModelSpec) -> tuple[CIFARGenerator, CIFARDiscriminator]:
    """Build the `sagan-cifar` networks; options: `OPTIONS`.

    Raises:
        UsageError: unsupported image size, attention map or option.
    """
    check_attention(spec.height, spec.width, spec.attn_at)
    in_g, in_d = layer_types(**normalisation(spec, ARCH))
    return CIFARGenerator(spec, in_g), CIFARDiscriminator(spec, in_d)


def _attention(spec: ModelSpec, sides: list[int], width: int, types: LayerTypes) -> AttentionBlocks:
    places = {n: str(side) for n, side in enumerate(sides) if side in spec.attn_at}
    return AttentionBlocks(spec, places, [width] * len(sides), spectral=types.spectral, arch=ARCH)
