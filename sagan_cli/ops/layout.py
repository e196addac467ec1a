"""Kernels with inputs and outputs exchanged, as transposed convolutions want them: the same numbers, copied fast."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def inputs_first(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """(O, I, h, w) -> (I, O, h, w), channels_last and of a type; the gradient comes back in the weight's own."""
    out: Tensor = _InputsFirst.apply(weight, dtype)
    return out


class _InputsFirst(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight: Tensor, dtype: torch.dtype) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.type = weight.dtype
        return _exchanged(weight.to(dtype))

    @staticmethod
    @once_differentiable  # a gradient penalty differentiates through the kernel, never through this
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        return _exchanged(grad).to(ctx.type), None


def _exchanged(weight: Tensor) -> Tensor:
    o, i, h, w = weight.shape
    return exchanged(weight.permute(0, 2, 3, 1).reshape(o, h * w, i)).view(i, h, w, o).permute(0, 3, 1, 2)


def exchanged(taps: Tensor) -> Tensor:
    """(O, taps, I) -> (I, taps, O), contiguous; in two passes, each of which PyTorch does several times as fast as one.

    Three dimensions: how a channels_last kernel lies in memory.
    """
    o, n, i = taps.shape
    return taps.reshape(o, n * i).t().contiguous().view(n, i, o).transpose(0, 1).contiguous()
