"""The `sagan` architecture: the networks of the authors' release, generalised to any image size.

At 128 pixels the networks equal the release layer by layer. Other sizes follow its channel rule: a map of 1/2^k of the
image's side has base_width * min(16, 2^k) channels; SAGAN-128 has 16, 16, 8, 4, 2, 1 times base_width.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagan_cli.contracts import ModelSpec
from sagan_cli.geometry import channels_at, check_attention, geometry
from sagan_cli.model.attention_placement import AttentionBlocks, AttentionNetwork
from sagan_cli.model.blocks import DownBlock, UpBlock, normalisation
from sagan_cli.model.layers import SPECTRAL, LayerTypes, layer_types
from sagan_cli.ops.precision import no_autocast, wide

ARCH = "sagan"


class SAGANGenerator(AttentionNetwork):
    """Generator: z (B, latent) ~ N(0, 1), y (B,) class indices or None -> images (B, C, H, W) in [-1, 1]."""

    def __init__(self, spec: ModelSpec, types: LayerTypes = SPECTRAL) -> None:
        super().__init__()
        grid = geometry(spec.height, spec.width)
        self.start = (grid.start_height, grid.start_width)
        widths = [channels_at(spec.base_width, grid.stages - i) for i in range(grid.stages + 1)]
        self.linear = types.linear(spec.latent, widths[0] * grid.start_height * grid.start_width)
        self.blocks = nn.ModuleList(UpBlock(i, o, spec.num_classes, types) for i, o in pairwise(widths))
        places = {k - 1: str(side) for side, k in grid.attention_sites().items() if side in spec.attn_at}
        self.attention = AttentionBlocks(spec, places, widths[1:], spectral=types.spectral, arch=ARCH)
        self.norm = types.norm(widths[-1])  # the last norm is not conditional
        self.to_image = types.conv(widths[-1], spec.channels, 3)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.linear(z).unflatten(1, (*self.start, -1)).permute(0, 3, 1, 2)
        for n, block in enumerate(self.blocks):
            h = self.attention.after(n)(block(h, y))
        return torch.tanh(wide(self.to_image(F.relu(self.norm(h, None)))))


class SAGANDiscriminator(AttentionNetwork):
    """Discriminator: images (B, C, H, W) in [-1, 1], y (B,) or None -> logits (B,).

    The logit is psi(h) + <embed(y), h> (projection, Miyato and Koyama 2018), or psi(h) without classes.
    """

    def __init__(self, spec: ModelSpec, types: LayerTypes = SPECTRAL) -> None:
        super().__init__()
        grid = geometry(spec.height, spec.width)
        widths = [spec.channels] + [channels_at(spec.base_width, i) for i in range(grid.stages)]
        downs = [DownBlock(i, o, first=(n == 0), types=types) for n, (i, o) in enumerate(pairwise(widths))]
        top = channels_at(spec.base_width, grid.stages)
        self.blocks = nn.ModuleList([*downs, DownBlock(widths[-1], top, down=False, types=types)])
        sites = {side: grid.stages - k for side, k in reversed(grid.attention_sites().items())}  # large maps first
        places = {n - 1: str(side) for side, n in sites.items() if side in spec.attn_at}
        self.attention = AttentionBlocks(spec, places, widths[1:], spectral=types.spectral, arch=ARCH)
        self.linear = types.linear(top, 1)
        self.embed = types.embedding(spec.num_classes, top) if spec.num_classes else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = x
        for n, block in enumerate(self.blocks):
            h = self.attention.after(n)(block(h))
        h = wide(F.relu(h)).sum(dim=(2, 3))  # sum, not mean, as in the authors' release
        with no_autocast(h):
            logits: Tensor = self.linear(h).squeeze(1)
            if self.embed is not None:
                assert y is not None, "a class-conditional network needs labels"
                logits = logits + (self.embed(y) * h).sum(1)
        return logits


def build(spec: ModelSpec) -> tuple[SAGANGenerator, SAGANDiscriminator]:
    """Build the `sagan` networks.

    Raises:
        UsageError: unsupported image size, attention map or option.
    """
    check_attention(spec.height, spec.width, spec.attn_at)
    in_g, in_d = layer_types(**normalisation(spec, ARCH))
    return SAGANGenerator(spec, in_g), SAGANDiscriminator(spec, in_d)
