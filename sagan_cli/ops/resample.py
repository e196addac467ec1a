"""Resampling folded into the convolution beside it: the same function with less than half the multiplications.

Nearest-neighbour doubling repeats each pixel four times, so a 3x3 window over the doubled map sees at most 2x2
different pixels; the products that share a pixel are added up in the kernel first. Averaging 2x2 after a convolution
is the mirror image. Either way the stored weight stays 3x3, and one low-resolution output costs 16 multiplications
instead of 36.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def upsampling_kernel(weight: Tensor) -> Tensor:
    """(O, I, 3, 3) -> (I, O, 4, 4), for `upsample_conv3x3`; in the weight's own precision."""
    return _box_folded(weight).flip(2, 3).transpose(0, 1)


def upsample_conv3x3(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """conv3x3(nearest2x(x)) with zero padding 1: (B, I, H, W), kernel from `upsampling_kernel` -> (B, O, 2H, 2W)."""
    return F.conv_transpose2d(x, kernel.to(x.dtype), _like(bias, x), stride=2, padding=1)


def pooling_kernel(weight: Tensor) -> Tensor:
    """(O, I, 3, 3) -> (O, I, 4, 4), for `conv3x3_avgpool`; in the weight's own precision."""
    return _box_folded(weight) / 4


def conv3x3_avgpool(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """avgpool2x2(conv3x3(x)) with zero padding 1: (B, I, H, W), H and W even, kernel from `pooling_kernel`

    -> (B, O, H/2, W/2).
    """
    return F.conv2d(x, kernel.to(x.dtype), _like(bias, x), stride=2, padding=1)


def _box_folded(weight: Tensor) -> Tensor:
    """The 3x3 kernel convolved with a 2x2 box of ones: (O, I, 3, 3) -> (O, I, 4, 4), in the weight's own precision."""
    rows = F.pad(weight, (0, 0, 0, 1)) + F.pad(weight, (0, 0, 1, 0))
    return F.pad(rows, (0, 1)) + F.pad(rows, (1, 0))


def _like(bias: Tensor | None, x: Tensor) -> Tensor | None:
    return None if bias is None else bias.to(x.dtype)
