"""Asynchronous copies from the host to a device, so that a training step never makes the host wait."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a host tensor to `device`; return the tensor itself if that is the host.

    A copy from pageable memory makes the host wait until a CUDA device has finished its queue. A copy from pinned
    memory is queued; the allocator keeps that memory until the copy is done.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
