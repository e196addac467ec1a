"""`sagan-dcgan`: the DCGAN-shaped networks of the well-known PyTorch port (heykeetae's Self-Attention-GAN).

DCGAN (`model.dcgan`) with spectral norm on every stage of both networks and on neither last layer; batch norm kept in G
beside it, none in D; LeakyReLU 0.1; biases; and after the third and the fourth stage of each network the block of the
paper's first version (values at C, no output convolution, biases, no spectral norm), so that at 64 pixels G attends on
the maps of 16 and 32, D on those of 8 and 4. A picture of 2^n pixels has n - 2 stages and `base_width` 2^(n - 3)
channels where it is smallest, as in the source.

Mended: the source runs at 64 pixels only (elsewhere its fourth stage is missing, and the widths of its attention blocks
are written down as numbers); here any legal size does, and other places by `--attn-at`. Its spectral norm of a
transposed convolution takes the weight's first axis, the input channels, for the rows of the matrix; here they are the
output channels, as in PyTorch, unless the option `deconv_rows` is `input`. Power iteration moves once per optimiser
step, not in each forward pass. Classes are ours to add (`model.dcgan` says how). Stages start by Xavier, whose scale
the spectral norm divides out.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagan_cli.config.architectures import USUAL
from sagan_cli.contracts import ModelSpec
from sagan_cli.geometry import geometry
from sagan_cli.model import places as stages
from sagan_cli.model.dcgan import Discriminator, Generator, Style
from sagan_cli.model.layers import SpectralNormed
from sagan_cli.model.places import ATTENTION, options
from sagan_cli.ops.layout import inputs_first
from sagan_cli.ops.precision import product_type

KNOWN = {**ATTENTION, "spectral_norm": ("both", "d", "none"), "deconv_rows": ("output", "input")}
"""The options of `sagan-dcgan`, and their values."""


class SNStridedConv2d(SpectralNormed):
    """A spectrally normalised convolution of any kernel, stride and padding."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int], stride: int, padding: int) -> None:
        super().__init__((out_channels, in_channels, *kernel), bias=True)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.bar(), self.bias, self.stride, self.padding)


class SNConvTranspose2d(SpectralNormed):
    """A spectrally normalised transposed convolution.

    Its weight lies with the rows of the matrix first: (out, in, h, w), or (in, out, h, w), PyTorch's order, where the
    rows are the input channels.

    Args:
        rows: `output` as `torch.nn.utils.spectral_norm` has it, or `input` as the port has it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int],
        stride: int,
        padding: int,
        *,
        rows: str = "output",
    ) -> None:
        first = (out_channels, in_channels) if rows == "output" else (in_channels, out_channels)
        super().__init__((*first, *kernel), bias=False)
        self.by_output = rows == "output"
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.stride, self.padding = stride, padding
        self._turned: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self._inputs_first(x), self.bias, self.stride, self.padding)

    def _inputs_first(self, x: Tensor) -> Tensor:
        """The kernel as PyTorch wants it; made once, when the layer is folded."""
        if not self.by_output:
            return self.bar()
        if self.u is not None:
            return inputs_first(self.bar(), product_type(x))
        if self._turned is None or self._turned.dtype != product_type(x):
            self._turned = inputs_first(self.weight.detach(), product_type(x))
        return self._turned


PORT = Style(
    "sagan-dcgan", SNConvTranspose2d, SNStridedConv2d, nn.ConvTranspose2d, nn.Conv2d, slope=0.1, norm_in_d=False,
    spectral_g=True, spectral_d=True, attend_after=(2, 3),
)  # fmt: skip


def build(spec: ModelSpec) -> tuple[Generator, Discriminator]:
    """The `sagan-dcgan` architecture of the registry; options: `KNOWN`.

    Raises:
        UsageError: a picture size, an attention map or an option that cannot be.
    """
    said = options(spec, "sagan-dcgan", KNOWN)
    style = replace(PORT, deconv=functools.partial(SNConvTranspose2d, rows=said.get("deconv_rows", "output")))
    spectral = said.get("spectral_norm", USUAL["sagan-dcgan"]["spectral_norm"])
    if spectral != "both":
        style = replace(style, deconv=nn.ConvTranspose2d, spectral_g=False)
    if spectral == "none":
        style = replace(style, conv=nn.Conv2d, spectral_d=False)
    return Generator(spec, style), Discriminator(spec, style)


def settled(spec: ModelSpec, *, auto: bool) -> ModelSpec:
    """`auto` is the published stages of each network."""
    sides = [max(grid) for grid in geometry(spec.height, spec.width).maps()[:-1]]
    return stages.settled(spec, sides, PORT.attend_after, auto=auto)


build.settled = settled  # type: ignore[attr-defined]
