"""Up- and downsampling folded into a 3x3 convolution: the same function with less than half the multiplications.

After nearest-neighbour upsampling, a 3x3 window covers at most 2x2 different pixels, so the weights that multiply the
same pixel can be added first. Average pooling after a convolution is the transposed case. The stored weight stays 3x3;
one low-resolution output costs 16 multiplications instead of 36. Building the kernel costs memory traffic once per
pass, which is too much for small maps: `folds` decides.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sagan_cli.ops.assumed_batch import assumed_batch_size
from sagan_cli.ops.kernel_layout import swap_outer_axes
from sagan_cli.ops.precision import no_autocast, product_type

FOLD_FROM = {torch.float32: 512, torch.float64: 512, torch.bfloat16: 4096}
"""Number of low-resolution positions in a batch from which folding is faster on a CPU, by product type.

Measured per layer, forward and backward, 64 to 1,024 channels (docs/performance.md). In bf16 the products are so fast
that the larger kernel costs more than it saves on small maps.
"""
Make = Callable[[Tensor, torch.dtype], Tensor]
"""`upsampling_kernel` or `pooling_kernel`."""


def upsampled_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, folded: Callable[[Make, torch.dtype], Tensor] | None = None
) -> Tensor:
    """Return conv3x3(nearest2x(x)), zero padding 1: (B, I, H, W), weight (O, I, 3, 3) -> (B, O, 2H, 2W).

    Args:
        folded: function (make, dtype) -> folded kernel, for a cached one; default `make(weight, dtype)`.
    """
    if not folds(x, x.shape[2] * x.shape[3]):
        return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, bias, padding=1)
    dtype = product_type(x)
    kernel = folded(upsampling_kernel, dtype) if folded else upsampling_kernel(weight, dtype)
    return upsample_conv3x3(x, kernel, bias)


def pooled_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, folded: Callable[[Make, torch.dtype], Tensor] | None = None
) -> Tensor:
    """Return avgpool2x2(conv3x3(x)), zero padding 1: (B, I, H, W), weight (O, I, 3, 3) -> (B, O, H/2, W/2); H, W even.

    Args:
        folded: as for `upsampled_conv`.
    """
    if not folds(x, x.shape[2] * x.shape[3] // 4):
        return F.avg_pool2d(F.conv2d(x, weight, bias, padding=1), 2)
    dtype = product_type(x)
    kernel = folded(pooling_kernel, dtype) if folded else pooling_kernel(weight, dtype)
    return conv3x3_avgpool(x, kernel, bias)


def folds(x: Tensor, positions: int) -> bool:
    """Return whether folding is faster for low-resolution maps of `positions` positions each."""
    assumed = assumed_batch_size()
    # Building kernels is cheap on an accelerator, and a traced program is used for every batch size.
    if x.device.type != "cpu" or assumed == 0 or (assumed is None and torch.compiler.is_compiling()):
        return True
    return (x.shape[0] if assumed is None else assumed) * positions >= FOLD_FROM.get(product_type(x), 0)


def upsample_conv3x3(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """Return conv3x3(nearest2x(x)), zero padding 1: (B, I, H, W), kernel of `upsampling_kernel` -> (B, O, 2H, 2W)."""
    return F.conv_transpose2d(x, kernel.to(x.dtype), _like(bias, x), stride=2, padding=1)


def conv3x3_avgpool(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """Return avgpool2x2(conv3x3(x)), zero padding 1: (B, I, H, W), kernel of `pooling_kernel` -> (B, O, H/2, W/2)."""
    return F.conv2d(x, kernel.to(x.dtype), _like(bias, x), stride=2, padding=1)


def upsampling_kernel(weight: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Fold a weight (O, I, 3, 3) into the (I, O, 4, 4) of `upsample_conv3x3`; summed in its own type, then rounded."""
    out: Tensor = _Upsampling.apply(weight, dtype or weight.dtype)
    return out


def pooling_kernel(weight: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Fold a weight (O, I, 3, 3) into the (O, I, 4, 4) of `conv3x3_avgpool`; summed in its own type, then rounded."""
    out: Tensor = _Pooling.apply(weight, dtype or weight.dtype)
    return out


# Below, kernels are (O, taps, I), the memory order of channels_last. Each of the 16 taps is a sum of the nine, so
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
    @once_differentiable  # second derivatives go through the kernel's values, never through this
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        o, i = grad.shape[:2]
        taps = grad.permute(0, 2, 3, 1).reshape(o, 16, i).to(ctx.type)
        sums = _tap_sums(ctx.type, grad.device, 0.25)
        return _summed(sums.t(), taps).view(o, 3, 3, i).permute(0, 3, 1, 2), None


class _Upsampling(torch.autograd.Function):
    """The 3x3 kernel convolved with a 2x2 box of ones, flipped, with input and output channels swapped."""

    @staticmethod
    def forward(ctx, weight: Tensor, dtype: torch.dtype) -> Tensor:  # type: ignore[no-untyped-def]
        o, i = weight.shape[:2]
        sums = _tap_sums(weight.dtype, weight.device, 1.0).flip(0)
        ctx.type = weight.dtype
        taps = _summed(sums, weight.permute(0, 2, 3, 1).reshape(o, 9, i)).to(dtype)
        return swap_outer_axes(taps).view(i, 4, 4, o).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        i, o = grad.shape[:2]
        taps = swap_outer_axes(grad.permute(0, 2, 3, 1).reshape(i, 16, o)).to(ctx.type)
        sums = _tap_sums(ctx.type, grad.device, 1.0).flip(0)
        return _summed(sums.t(), taps).view(o, 3, 3, i).permute(0, 3, 1, 2), None


def _summed(sums: Tensor, taps: Tensor) -> Tensor:
    with no_autocast(taps):
        return torch.matmul(sums, taps)


def _tap_sums(dtype: torch.dtype, device: torch.device, scale: float) -> Tensor:
    """Return the (16, 9) matrix that sums taps of the 3x3 kernel into those of the 4x4 kernel, times `scale`."""
    # A tensor that is made during tracing belongs to the traced program and must not be cached.
    make = _new_tap_sums if torch.compiler.is_compiling() else _kept_tap_sums
    return make(dtype, device, scale)


def _new_tap_sums(dtype: torch.dtype, device: torch.device, scale: float) -> Tensor:
    one = torch.eye(4, 3, dtype=dtype, device=device)
    side = one + one.roll(1, 0)
    return torch.kron(side, side) * scale


@lru_cache
def _kept_tap_sums(dtype: torch.dtype, device: torch.device, scale: float) -> Tensor:
    with torch.inference_mode(False):  # training may reuse a tensor that sampling made first
        return _new_tap_sums(dtype, device, scale)


def _like(bias: Tensor | None, x: Tensor) -> Tensor | None:
    return None if bias is None else bias.to(x.dtype)
