"""Where folding resampling into a convolution pays: one layer, forward and backward, both ways, by map and type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from measuring import interleaved, ratio, timed, waiting
from torch import Tensor

from sagan_cli.engine.runtime import open_runtime
from sagan_cli.ops.resample import conv3x3_avgpool, pooling_kernel, upsample_conv3x3, upsampling_kernel

LAYERS = (
    (1024, 4, 4), (1024, 4, 8), (256, 16, 4), (256, 32, 4), (512, 4, 16), (256, 16, 8), (128, 32, 8), (256, 16, 16),
    (128, 4, 32), (64, 32, 16), (64, 4, 64),
)  # fmt: skip
"""Channels, batch, and side of the smaller map: of SAGAN-128 at batch 4, SAGAN-32 at 16, the `laptop` network at 32."""
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Way = Callable[[Tensor, Tensor], Tensor]


def folded_up(x: Tensor, weight: Tensor) -> Tensor:
    """Doubling and convolution as one transposed convolution."""
    return upsample_conv3x3(x, upsampling_kernel(weight, x.dtype), None)


def plain_up(x: Tensor, weight: Tensor) -> Tensor:
    """Doubling, then convolution."""
    return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight.to(x.dtype), padding=1)


def folded_down(x: Tensor, weight: Tensor) -> Tensor:
    """Convolution and pooling as one strided convolution."""
    return conv3x3_avgpool(x, pooling_kernel(weight, x.dtype), None)


def plain_down(x: Tensor, weight: Tensor) -> Tensor:
    """Convolution, then pooling."""
    return F.avg_pool2d(F.conv2d(x, weight.to(x.dtype), padding=1), 2)


def measure(device: torch.device, quick: bool) -> list[dict[str, Any]]:
    """A row for each layer: the folded way's time over the plain one's."""
    rows = []
    with open_runtime(str(device), "fp32"):
        wait = waiting(device)
        for channels, batch, side in LAYERS[::3] if quick else LAYERS:
            row: dict[str, Any] = {"channels": channels, "batch": batch, "side": side, "ratio": {}}
            for name, dtype in TYPES.items():
                weight = _laid_out(torch.randn(channels, channels, 3, 3), device).requires_grad_()
                small = _laid_out(torch.randn(batch, channels, side, side), device).to(dtype).requires_grad_()
                large = _laid_out(torch.randn(batch, channels, 2 * side, 2 * side), device).to(dtype).requires_grad_()
                for what, x, ways in (
                    ("up", small, {"folded": folded_up, "plain": plain_up}),
                    ("down", large, {"folded": folded_down, "plain": plain_down}),
                ):
                    work = {way: timed(_pass(make, x, weight), wait) for way, make in ways.items()}
                    seconds = interleaved(work, 3 if quick else 7, warm=1)
                    row["ratio"][f"{what} {name}"] = ratio(seconds, "folded", "plain")
            rows.append(row)
    return rows


def _pass(way: Way, x: Tensor, weight: Tensor) -> Callable[[], None]:
    def run() -> None:
        y = way(x, weight)
        torch.autograd.grad(y, (x, weight), torch.ones_like(y))

    return run


def _laid_out(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device).contiguous(memory_format=torch.channels_last)
