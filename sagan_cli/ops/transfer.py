"""From the host to a device, without waiting for it: a training step must never stop the host."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A host tensor on `device`; the tensor itself where that is the host.

    A copy from ordinary memory to a CUDA device makes the host wait for all that the device still has to do. From
    page-locked memory it takes its place in the queue; the allocator keeps that memory until the copy is done.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
