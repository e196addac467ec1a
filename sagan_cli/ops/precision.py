"""Keep autocast's bf16 out of sums over many terms, norms, logits and the final tanh."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """Convert to fp32 unless the tensor is wider; float64 stays float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def no_autocast(like: Tensor) -> AbstractContextManager[Any]:
    """Disable autocast on the device of `like`."""
    device = like.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def product_type(x: Tensor) -> torch.dtype:
    """Return the type in which a convolution of x multiplies: autocast's if enabled, otherwise that of x."""
    device = x.device.type
    if x.dtype == torch.float32 and torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype
