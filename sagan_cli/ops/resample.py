"""Resampling beside a convolution: folded into it, the same function with less than half the multiplications.

Nearest-neighbour doubling repeats each pixel four times, so a 3x3 window over the doubled map sees at most 2x2
different pixels; the products that share a pixel are added up in the kernel first. Averaging 2x2 after a convolution
is the mirror image. Either way the stored weight stays 3x3, and one low-resolution output costs 16 multiplications
instead of 36. The kernel itself costs memory traffic, once a pass, which small maps do not earn back: `folds` decides.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sagan_cli.ops.layout import exchanged
from sagan_cli.ops.precision import no_autocast, product_type
from sagan_cli.ops.routes import assumed

FOLD_FROM = {torch.float32: 512, torch.float64: 512, torch.bfloat16: 4096}
"""Low-resolution positions of a batch from which folding pays on a CPU, by the type of the products.

Measured per layer, forward and backward, 64 to 1,024 channels (docs/performance.md). Products in bf16 are so fast that
a kernel of 16 taps instead of 9 costs more than it saves on the maps near G's start and D's end.
"""
Make = Callable[[Tensor, torch.dtype], Tensor]
"""`upsampling_kernel` or `pooling_kernel`."""


def conv_of_doubled(
    x: Tensor, weight: Tensor, bias: Tensor | None, folded: Callable[[Make, torch.dtype], Tensor] | None = None
) -> Tensor:
    """conv3x3(nearest2x(x)) with zero padding 1: (B, I, H, W), weight (O, I, 3, 3) -> (B, O, 2H, 2W).

    Args:
        folded: where the folded kernel comes from, given how to make it and its type; default from the weight.
    """
    if not folds(x, x.shape[2] * x.shape[3]):
        return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, bias, padding=1)
    dtype = product_type(x)
    kernel = folded(upsampling_kernel, dtype) if folded else upsampling_kernel(weight, dtype)
    return upsample_conv3x3(x, kernel, bias)


def halved_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, folded: Callable[[Make, torch.dtype], Tensor] | None = None
) -> Tensor:
    """avgpool2x2(conv3x3(x)) with zero padding 1: (B, I, H, W), H and W even, weight (O, I, 3, 3) -> (B, O, H/2, W/2).

    Args:
        folded: as for `conv_of_doubled`.
    """
    if not folds(x, x.shape[2] * x.shape[3] // 4):
        return F.avg_pool2d(F.conv2d(x, weight, bias, padding=1), 2)
    dtype = product_type(x)
    kernel = folded(pooling_kernel, dtype) if folded else pooling_kernel(weight, dtype)
    return conv3x3_avgpool(x, kernel, bias)


def folds(x: Tensor, positions: int) -> bool:
    """Whether folding pays for a low-resolution map of so many positions."""
    pictures = assumed()
    # An accelerator makes kernels in no time, and a program that is traced holds for every batch.
    if x.device.type != "cpu" or pictures == 0 or (pictures is None and torch.compiler.is_compiling()):
        return True
    return (x.shape[0] if pictures is None else pictures) * positions >= FOLD_FROM.get(product_type(x), 0)


def upsample_conv3x3(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """conv3x3(nearest2x(x)) with zero padding 1: (B, I, H, W), kernel from `upsampling_kernel` -> (B, O, 2H, 2W)."""
    return F.conv_transpose2d(x, kernel.to(x.dtype), _like(bias, x), stride=2, padding=1)


def conv3x3_avgpool(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """avgpool2x2(conv3x3(x)) with zero padding 1: (B, I, H, W), H and W even, kernel from `pooling_kernel`

    -> (B, O, H/2, W/2).
    """
    return F.conv2d(x, kernel.to(x.dtype), _like(bias, x), stride=2, padding=1)


def upsampling_kernel(weight: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """(O, I, 3, 3) -> (I, O, 4, 4), for `upsample_conv3x3`; summed in the weight's precision, then rounded to dtype."""
    out: Tensor = _Upsampling.apply(weight, dtype or weight.dtype)
    return out


def pooling_kernel(weight: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """(O, I, 3, 3) -> (O, I, 4, 4), for `conv3x3_avgpool`; summed in the weight's precision, then rounded to dtype."""
    out: Tensor = _Pooling.apply(weight, dtype or weight.dtype)
    return out


# Below, kernels are (O, taps, I): how they lie in memory when they are channels_last. Sixteen taps are sums of nine, so
# folding is one product with a constant matrix, which reads and writes memory in order.


class _Pooling(torch.autograd.Function):
    """The 3x3 kernel convolved with a 2x2 box of quarters."""

    @staticmethod
    def forward(ctx, weight: Tensor, dtype: torch.dtype) -> Tensor:  # type: ignore[no-untyped-def]
        o, i = weight.shape[:2]
        sums = _tap_sums(weight.dtype, weight.device, 0.25)
        ctx.type = weight.dtype
        return _summed(sums, weight.permute(0, 2, 3, 1).reshape(o, 9, i)).to(dtype).view(o, 4, 4, i).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable  # a gradient penalty differentiates through the kernel, never through this
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        o, i = grad.shape[:2]
        taps = grad.permute(0, 2, 3, 1).reshape(o, 16, i).to(ctx.type)
        sums = _tap_sums(ctx.type, grad.device, 0.25)
        return _summed(sums.t(), taps).view(o, 3, 3, i).permute(0, 3, 1, 2), None


class _Upsampling(torch.autograd.Function):
    """The 3x3 kernel convolved with a 2x2 box of ones, turned around, with inputs for outputs."""

    @staticmethod
    def forward(ctx, weight: Tensor, dtype: torch.dtype) -> Tensor:  # type: ignore[no-untyped-def]
        o, i = weight.shape[:2]
        sums = _tap_sums(weight.dtype, weight.device, 1.0).flip(0)
        ctx.type = weight.dtype
        taps = _summed(sums, weight.permute(0, 2, 3, 1).reshape(o, 9, i)).to(dtype)
        return exchanged(taps).view(i, 4, 4, o).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        i, o = grad.shape[:2]
        taps = exchanged(grad.permute(0, 2, 3, 1).reshape(i, 16, o)).to(ctx.type)
        sums = _tap_sums(ctx.type, grad.device, 1.0).flip(0)
        return _summed(sums.t(), taps).view(o, 3, 3, i).permute(0, 3, 1, 2), None


def _summed(sums: Tensor, taps: Tensor) -> Tensor:
    with no_autocast(taps):
        return torch.matmul(sums, taps)


def _tap_sums(dtype: torch.dtype, device: torch.device, scale: float) -> Tensor:
    """(16, 9): which taps of the 3x3 kernel add up to each of the 4x4 one, times `scale`."""
    # What is made while a program is traced belongs to that program.
    make = _new_tap_sums if torch.compiler.is_compiling() else _kept_tap_sums
    return make(dtype, device, scale)


def _new_tap_sums(dtype: torch.dtype, device: torch.device, scale: float) -> Tensor:
    one = torch.eye(4, 3, dtype=dtype, device=device)
    side = one + one.roll(1, 0)
    return torch.kron(side, side) * scale


@lru_cache
def _kept_tap_sums(dtype: torch.dtype, device: torch.device, scale: float) -> Tensor:
    with torch.inference_mode(False):  # training may want what drawing made first
        return _new_tap_sums(dtype, device, scale)


def _like(bias: Tensor | None, x: Tensor) -> Tensor | None:
    return None if bias is None else bias.to(x.dtype)
