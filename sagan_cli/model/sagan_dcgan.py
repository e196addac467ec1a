"""The `sagan-dcgan` architecture: the DCGAN-shaped networks of heykeetae's Self-Attention-GAN in PyTorch.

DCGAN (`model.dcgan`) with spectral norm on all layers of both networks but the last, batch norm in G only, LeakyReLU
0.1, biases, and attention after the third and fourth stage of each network (values at C, no output convolution, biases,
no spectral norm). At 64 pixels G has attention at 16 and 32, D at 8 and 4. An image of 2^n pixels has n - 2 stages and
`base_width` 2^(n - 3) channels at the smallest map, as in the source.

Differences from the source, which supports 64 pixels only: any supported size; attention at other maps by `--attn-at`;
spectral norm of a transposed convolution uses the output channels as matrix rows, as PyTorch does (the option
`deconv_rows=input` selects the source's behaviour); one power iteration per optimiser step instead of one per forward
pass; classes, as in `model.dcgan`; Xavier initialisation.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagan_cli.contracts import ModelSpec
from sagan_cli.geometry import geometry
from sagan_cli.model import attention_placement as stages
from sagan_cli.model.attention_placement import ATTENTION, checked_options
from sagan_cli.model.dcgan import DCGANDiscriminator, DCGANGenerator, DCGANStyle
from sagan_cli.model.layers import SpectralNormed
from sagan_cli.ops.kernel_layout import swap_in_out_channels
from sagan_cli.ops.precision import product_type

OPTIONS = {**ATTENTION, "spectral_norm": ("both", "d", "none"), "deconv_rows": ("output", "input")}
"""The options of `sagan-dcgan`, and their values."""


class SNStridedConv2d(SpectralNormed):
    """Spectrally normalised convolution with any kernel, stride and padding."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int], stride: int, padding: int) -> None:
        super().__init__((out_channels, in_channels, *kernel), bias=True)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.bar(), self.bias, self.stride, self.padding)


class SNConvTranspose2d(SpectralNormed):
    """Spectrally normalised transposed convolution.

    Args:
        rows: channels that are the rows of the normalised matrix: `output`, as in `torch.nn.utils.spectral_norm`, with
            a weight (out, in, h, w); or `input`, as in the source, with a weight (in, out, h, w).
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
        self._swapped: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self._inputs_first(x), self.bias, self.stride, self.padding)

    def _inputs_first(self, x: Tensor) -> Tensor:
        """Return the normalised kernel as (in, out, h, w); cached once the layer is folded."""
        if not self.by_output:
            return self.bar()
        if self.u is not None:
            return swap_in_out_channels(self.bar(), product_type(x))
        if self._swapped is None or self._swapped.dtype != product_type(x):
            with torch.inference_mode(False), torch.no_grad():
                self._swapped = swap_in_out_channels(self.weight.detach(), product_type(x))
        return self._swapped


PORT = DCGANStyle(
    "sagan-dcgan", SNConvTranspose2d, SNStridedConv2d, nn.ConvTranspose2d, nn.Conv2d, slope=0.1, norm_in_d=False,
    spectral_g=True, spectral_d=True, attend_after=(2, 3),
)  # fmt: skip


def build(spec: ModelSpec) -> tuple[DCGANGenerator, DCGANDiscriminator]:
    """Build the `sagan-dcgan` networks; options: `OPTIONS`.

    Raises:
        UsageError: unsupported image size, attention map or option.
    """
    options = checked_options(spec, "sagan-dcgan", OPTIONS)
    style = replace(PORT, deconv=functools.partial(SNConvTranspose2d, rows=options.get("deconv_rows", "output")))
    if options["spectral_norm"] != "both":
        style = replace(style, deconv=nn.ConvTranspose2d, spectral_g=False)
    if options["spectral_norm"] == "none":
        style = replace(style, conv=nn.Conv2d, spectral_d=False)
    return DCGANGenerator(spec, style), DCGANDiscriminator(spec, style)


def settled(spec: ModelSpec, *, auto: bool) -> ModelSpec:
    """Resolve `--attn-at auto` to the published stages of each network."""
    sides = [max(grid) for grid in geometry(spec.height, spec.width).maps()[:-1]]
    return stages.settled(spec, sides, PORT.attend_after, auto=auto)


build.settled = settled  # type: ignore[attr-defined]
