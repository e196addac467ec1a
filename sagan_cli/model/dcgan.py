"""The `dcgan` architecture (Radford et al. 2016, arXiv 1511.06434, section 3), and the base of `sagan-dcgan`.

G treats z as a 1x1 map: a transposed convolution makes the start grid, further ones (4x4, stride 2) double it, each
with batch norm and ReLU; the last one makes the image, with tanh. D mirrors it, with LeakyReLU 0.2 and batch norm in
all stages but the first, and ends in a convolution over the start grid. There is no attention, no spectral norm and no
bias except in batch norm; weights start as N(0, 0.02).

Channels double with each halving of the map, from `base_width` at half the image's side; at 64 pixels, 64 gives the
PyTorch example (512 to 64) and 128 the paper's figure (1024 to 128). Additions: sizes other than 64, by the number of
stages; classes, by conditional batch norm in G and a projection of the last map's sum in D (Miyato and Koyama 2018).
Kernels are 4x4, as in the PyTorch re-implementations; the paper has 5x5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagan_cli.contracts import ModelSpec
from sagan_cli.geometry import geometry
from sagan_cli.model.attention_placement import (
    AttentionBlocks,
    AttentionNetwork,
    attended,
    checked_options,
    no_attention,
)
from sagan_cli.model.layers import ConditionalBatchNorm2d, Embedding, SNEmbedding
from sagan_cli.ops.precision import no_autocast, wide

OPTIONS = {"spectral_norm": ("none",)}
"""Options of `dcgan`, and their values."""
Layer = Callable[[int, int, tuple[int, int], int, int], nn.Module]
"""(in, out, kernel, stride, padding) -> a convolution or a transposed one."""


@dataclass(frozen=True)
class DCGANStyle:
    """The properties in which DCGAN and `sagan-dcgan` differ."""

    arch: str
    """Registered name."""
    deconv: Layer
    """Stages of G, except the last, which is `last_deconv`."""
    conv: Layer
    """Stages of D, except the last, which is `last_conv`."""
    last_deconv: Layer
    last_conv: Layer
    slope: float
    """Negative slope of D's LeakyReLU."""
    norm_in_d: bool
    """Whether D's stages except the first have batch norm."""
    spectral_g: bool = False
    spectral_d: bool = False
    """Whether attention blocks, their controls and D's embedding use spectral norm."""
    attend_after: tuple[int, ...] = ()
    """Stages that are followed by attention in the source, counted from 0."""


def _conv(i: int, o: int, kernel: tuple[int, int], stride: int, padding: int) -> nn.Module:
    return nn.Conv2d(i, o, kernel, stride, padding, bias=False)


def _deconv(i: int, o: int, kernel: tuple[int, int], stride: int, padding: int) -> nn.Module:
    return nn.ConvTranspose2d(i, o, kernel, stride, padding, bias=False)


DCGAN = DCGANStyle("dcgan", _deconv, _conv, _deconv, _conv, slope=0.2, norm_in_d=True)


class DCGANGenerator(AttentionNetwork):
    """Generator: z (B, latent) ~ N(0, 1), y (B,) class indices or None -> images (B, C, H, W) in [-1, 1]."""

    def __init__(self, spec: ModelSpec, style: DCGANStyle = DCGAN) -> None:
        super().__init__()
        grid = geometry(spec.height, spec.width)
        widths = [spec.base_width << i for i in reversed(range(grid.stages))]
        first = style.deconv(spec.latent, widths[0], (grid.start_height, grid.start_width), 1, 0)
        self.stages = nn.ModuleList([first, *(style.deconv(i, o, (4, 4), 2, 1) for i, o in pairwise(widths))])
        self.norms = nn.ModuleList(ConditionalBatchNorm2d(width, spec.num_classes) for width in widths)
        sides = [max(m) for m in grid.maps()[:-1]]
        places = attended(spec, sides, style.attend_after)
        self.attention = AttentionBlocks(spec, places, widths, spectral=style.spectral_g, arch=style.arch)
        self.to_image = style.last_deconv(widths[-1], spec.channels, (4, 4), 2, 1)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        h = z[:, :, None, None]
        for n, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            h = self.attention.after(n)(F.relu(norm(stage(h), y)))
        return torch.tanh(wide(self.to_image(h)))


class DCGANDiscriminator(AttentionNetwork):
    """Discriminator: images (B, C, H, W) in [-1, 1], y (B,) or None -> logits (B,)."""

    def __init__(self, spec: ModelSpec, style: DCGANStyle = DCGAN) -> None:
        super().__init__()
        grid = geometry(spec.height, spec.width)
        widths = [spec.base_width << i for i in range(grid.stages)]
        self.slope = style.slope
        # With batch norm in D, real and fake images are separate batches, as in Radford et al.'s code.
        self.batches_apart = style.norm_in_d
        self.stages = nn.ModuleList(style.conv(i, o, (4, 4), 2, 1) for i, o in pairwise([spec.channels, *widths]))
        normed = widths[1:] if style.norm_in_d else []
        self.norms = nn.ModuleList(ConditionalBatchNorm2d(width) for width in normed)
        sides = [max(m) for m in reversed(grid.maps()[:-1])]
        places = attended(spec, sides, style.attend_after)
        self.attention = AttentionBlocks(spec, places, widths, spectral=style.spectral_d, arch=style.arch)
        self.to_logit = style.last_conv(widths[-1], 1, (grid.start_height, grid.start_width), 1, 0)
        embedding = SNEmbedding if style.spectral_d else Embedding
        self.embed = embedding(spec.num_classes, widths[-1]) if spec.num_classes else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = x
        for n, stage in enumerate(self.stages):
            h = stage(h)
            if self.norms and n:
                h = self.norms[n - 1](h, None)
            h = self.attention.after(n)(F.leaky_relu(h, self.slope))
        h = wide(h)
        with no_autocast(h):
            logits: Tensor = self.to_logit(h).flatten()
            if self.embed is not None:
                assert y is not None, "a class-conditional network needs labels"
                logits = logits + (self.embed(y) * h.sum(dim=(2, 3))).sum(1)
        return logits


def build(spec: ModelSpec) -> tuple[DCGANGenerator, DCGANDiscriminator]:
    """Build the `dcgan` networks.

    Raises:
        UsageError: unsupported image size, attention map or option.
    """
    checked_options(spec, "dcgan", OPTIONS)
    no_attention(spec, "dcgan")
    pair = DCGANGenerator(spec), DCGANDiscriminator(spec)
    for network in pair:
        network.apply(_start)
    return pair


def settled(spec: ModelSpec, *, auto: bool) -> ModelSpec:
    """Resolve `--attn-at auto` to no attention; `build` refuses an explicit map."""
    return replace(spec, attn_at=()) if auto else spec


build.settled = settled  # type: ignore[attr-defined]


def _start(module: nn.Module) -> None:
    """Initialise weights as N(0, 0.02) and batch norm's gains as N(1, 0.02), as in the authors' code."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Embedding):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, ConditionalBatchNorm2d):
        nn.init.normal_(module.gain, 1.0, 0.02)
