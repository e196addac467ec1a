"""The machine's limit: how fast it convolves and multiplies when nothing else is asked of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from measuring import interleaved, summary, timed, waiting

KINDS = ("float32", "bfloat16")
SHAPES = {"256ch 32x32": (16, 256, 32), "512ch 16x16": (16, 512, 16), "128ch 64x64": (8, 128, 64)}
"""Batch, channels in and out, side of the map."""
REFERENCE = "256ch 32x32"
CUDA_FACTOR = 16
"""A GPU gets batches so many times larger."""


def operations(device: torch.device, shape: str = REFERENCE) -> int:
    """Floating-point operations of one convolution forward, a multiplication and its sum as two."""
    batch, channels, side = _size(device, shape)
    return 2 * 9 * channels * channels * side * side * batch


def convolution(kind: torch.dtype, device: torch.device, shape: str = REFERENCE) -> Callable[[], Any]:
    """One 3x3 convolution forward, channels last."""
    x, w = _tensors(kind, device, shape)

    def forward() -> Any:
        with torch.no_grad():
            return F.conv2d(x, w, padding=1)

    return forward


def convolution_both_ways(kind: torch.dtype, device: torch.device, shape: str) -> Callable[[], Any]:
    """The same forward and backward, for input and weight: three times the operations."""
    x, w = (t.requires_grad_() for t in _tensors(kind, device, shape))
    up = torch.randn(x.shape, device=device, dtype=kind).to(memory_format=torch.channels_last)
    return lambda: torch.autograd.grad(F.conv2d(x, w, padding=1), (x, w), up)


def _size(device: torch.device, shape: str) -> tuple[int, int, int]:
    batch, channels, side = SHAPES[shape]
    return batch * (CUDA_FACTOR if device.type == "cuda" else 1), channels, side


def _tensors(kind: torch.dtype, device: torch.device, shape: str) -> tuple[torch.Tensor, torch.Tensor]:
    batch, channels, side = _size(device, shape)
    sizes = ((batch, channels, side, side), (channels, channels, 3, 3))
    x, w = (torch.randn(s, device=device, dtype=kind).to(memory_format=torch.channels_last) for s in sizes)
    return x, w


def product(kind: torch.dtype, device: torch.device) -> tuple[Callable[[], Any], int]:
    """One square matrix product."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    return lambda: a @ b, 2 * side**3


def measure(device: torch.device, rounds: int) -> dict[str, Any]:
    """GFLOP/s of each, interleaved."""
    rows: dict[str, tuple[Callable[[], Any], int]] = {}
    for kind in KINDS:
        dtype = getattr(torch, kind)
        for shape in SHAPES:
            count = operations(device, shape)
            rows[f"{kind}, convolution {shape}, forward"] = convolution(dtype, device, shape), count
            both = convolution_both_ways(dtype, device, shape)
            rows[f"{kind}, convolution {shape}, forward and backward"] = both, 3 * count
        rows[f"{kind}, matrix product"] = product(dtype, device)
    wait = waiting(device)
    seconds = interleaved({name: timed(row[0], wait) for name, row in rows.items()}, rounds, warm=2)
    found = [{"what": name, "gflops": summary([row[1] / s / 1e9 for s in seconds[name]])} for name, row in rows.items()]
    return {"rows": found}
