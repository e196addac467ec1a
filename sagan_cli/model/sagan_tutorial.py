"""The `sagan-tutorial` architecture: the small SAGAN of online tutorials.

G: a linear layer to 2 `base_width` channels at twice the start grid (128 at 8x8 for width 64), then blocks of nearest
upsampling, 3x3 convolution, batch norm and ReLU, of which the last halves the channels, then a 3x3 convolution and
tanh. D: 3x3 convolutions of stride 2 with 32, 64 and 128 channels and one of stride 1 with 256, each with LeakyReLU
0.2, dropout 0.25 and (except the first) batch norm, then a linear layer. Both have attention at the 128-channel stage:
G after its first block (map 16), D after its third convolution (1/8 of the image's side). There is no spectral norm.
Larger images than 32 pixels get more stages of 2 `base_width` channels.

Errors of the tutorials are corrected. They pass 0.8 as batch norm's epsilon, or as its momentum in the sense of Keras;
here both are PyTorch's defaults. Their generator never calls its attention block, and the block multiplies along the
wrong axes; here it is the variant `port`. The sigmoid belongs to the loss (`--loss non-saturating`). Dropout resumes
exactly. Classes are an addition: conditional batch norm in G, projection in D (Miyato and Koyama 2018).
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagan_cli.contracts import ModelSpec
from sagan_cli.geometry import geometry
from sagan_cli.model import attention_placement as stages
from sagan_cli.model.attention_placement import ATTENTION, AttentionBlocks, AttentionNetwork, attended, checked_options
from sagan_cli.model.layers import ConditionalBatchNorm2d, Dropout, Embedding
from sagan_cli.ops.precision import no_autocast, wide

ARCH = "sagan-tutorial"
SLOPE = 0.2
DROPOUT = 0.25
IN_G, IN_D = (1,), (2,)
"""Stages of G and D that are followed by attention, counted from 0."""
OPTIONS = {**ATTENTION, "spectral_norm": ("none",)}
"""The options of `sagan-tutorial`, and their values."""


class TutorialGenerator(AttentionNetwork):
    """Generator: z (B, latent) ~ N(0, 1), y (B,) class indices or None -> images (B, C, H, W) in [-1, 1]."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        maps = geometry(spec.height, spec.width).maps()[1:]
        self.start = maps[0]
        widths = [2 * spec.base_width] * (len(maps) - 1) + [spec.base_width]
        self.linear = nn.Linear(spec.latent, widths[0] * maps[0][0] * maps[0][1])
        self.norm = ConditionalBatchNorm2d(widths[0], spec.num_classes)
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in pairwise(widths))
        self.norms = nn.ModuleList(ConditionalBatchNorm2d(width, spec.num_classes) for width in widths[1:])
        places = attended(spec, _sides_of_g(spec), published=IN_G)
        self.attention = AttentionBlocks(spec, places, widths, arch=ARCH)
        self.to_image = nn.Conv2d(widths[-1], spec.channels, 3, padding=1)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.linear(z).unflatten(1, (-1, *self.start))
        h = self.attention.after(0)(F.relu(self.norm(h, y)))
        for n, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True), start=1):
            h = conv(F.interpolate(h, scale_factor=2, mode="nearest"))
            h = self.attention.after(n)(F.relu(norm(h, y)))
        return torch.tanh(wide(self.to_image(h)))


class TutorialDiscriminator(AttentionNetwork):
    """Discriminator: images (B, C, H, W) in [-1, 1], y (B,) or None -> logits (B,)."""

    batches_apart = True
    """With batch norm in D, real and fake images are separate batches."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        grid = geometry(spec.height, spec.width)
        width = spec.base_width
        strided = [max(1, width * min(4, 1 << n) // 2) for n in range(grid.stages)]
        widths = [spec.channels, *strided, 4 * width]
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, 3, stride=2 if n < grid.stages else 1, padding=1)
            for n, (i, o) in enumerate(pairwise(widths))
        )
        self.norms = nn.ModuleList(ConditionalBatchNorm2d(w) for w in widths[2:])
        self.dropouts = nn.ModuleList(Dropout(DROPOUT) for _ in self.convs)
        places = attended(spec, [max(m) for m in reversed(grid.maps()[:-1])], published=IN_D)
        self.attention = AttentionBlocks(spec, places, strided, arch=ARCH)
        self.linear = nn.Linear(4 * width * grid.start_height * grid.start_width, 1)
        self.embed = Embedding(spec.num_classes, 4 * width) if spec.num_classes else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = x
        for n, (conv, dropout) in enumerate(zip(self.convs, self.dropouts, strict=True)):
            h = conv(h)
            if n:
                h = self.norms[n - 1](h, None)
            h = self.attention.after(n)(dropout(F.leaky_relu(h, SLOPE)))
        h = wide(h)
        with no_autocast(h):
            logits: Tensor = self.linear(h.flatten(1)).squeeze(1)
            if self.embed is not None:
                assert y is not None, "a class-conditional network needs labels"
                logits = logits + (self.embed(y) * h.sum(dim=(2, 3))).sum(1)
        return logits


def build(spec: ModelSpec) -> tuple[TutorialGenerator, TutorialDiscriminator]:
    """Build the `sagan-tutorial` networks; options: `OPTIONS`.

    Raises:
        UsageError: unsupported image size, attention map or option.
    """
    checked_options(spec, ARCH, OPTIONS)
    return TutorialGenerator(spec), TutorialDiscriminator(spec)


def settled(spec: ModelSpec, *, auto: bool) -> ModelSpec:
    """Resolve `--attn-at auto` to the published stage of each network."""
    return stages.settled(spec, _sides_of_g(spec), IN_G, auto=auto)


build.settled = settled  # type: ignore[attr-defined]


def _sides_of_g(spec: ModelSpec) -> list[int]:
    """Return the longer side of the map of each stage of G; stage 0 is the linear layer's."""
    return [max(grid) for grid in geometry(spec.height, spec.width).maps()[1:-1]]
