"""Swap the input and output channels of convolution kernels, as transposed convolutions need them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def swap_in_out_channels(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a kernel (O, I, h, w) as (I, O, h, w), channels_last, in `dtype`; the gradient has the weight's type."""
    out: Tensor = _SwapInOut.apply(weight, dtype)
    return out


class _SwapInOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight: Tensor, dtype: torch.dtype) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.type = weight.dtype
        return _swapped(weight.to(dtype))

    @staticmethod
    @once_differentiable  # second derivatives go through the kernel's values, never through this copy
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        return _swapped(grad).to(ctx.type), None


def _swapped(weight: Tensor) -> Tensor:
    o, i, h, w = weight.shape
    return swap_outer_axes(weight.permute(0, 2, 3, 1).reshape(o, h * w, i)).view(i, h, w, o).permute(0, 3, 1, 2)


def swap_outer_axes(taps: Tensor) -> Tensor:
    """Return (O, taps, I) as a contiguous (I, taps, O).

    Two 2-D transposes are several times as fast as one 3-D permutation. A channels_last kernel has this memory layout.
    """
    o, n, i = taps.shape
    return taps.reshape(o, n * i).t().contiguous().view(n, i, o).transpose(0, 1).contiguous()
