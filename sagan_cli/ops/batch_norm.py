"""Batch normalisation with statistics over every process, and a gain and bias per picture.

Normalising by the statistics of the global batch makes a run the same mathematics on one process and on many.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from sagan_cli.ops.precision import wide


def batch_norm(x: Tensor, mean: Tensor, var: Tensor, *, training: bool, momentum: float, eps: float) -> Tensor:
    """(x - mean) / sqrt(var + eps) per channel; x (B, C, H, W), running mean and var (C,) updated in training.

    Training uses the batch's own statistics, over all processes of the default group when there is one; the running
    variance is the unbiased one, as everywhere in PyTorch.
    """
    if training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return _across_processes(x, mean, var, momentum, eps)
    return F.batch_norm(x, mean, var, training=training, momentum=momentum, eps=eps)


def _across_processes(x: Tensor, mean: Tensor, var: Tensor, momentum: float, eps: float) -> Tensor:
    # torch's SyncBatchNorm refuses CPU modules; this runs on gloo and nccl alike. Slices are of equal size, so the
    # global mean is the mean of means, and the global variance the mean of (variance + squared mean) less its square.
    import torch.distributed.nn.functional as dist_nn  # here: importing it writes a Python file to the temporary folder

    world = dist.get_world_size()
    full = wide(x)
    local_var, local_mean = torch.var_mean(full, dim=(0, 2, 3), correction=0)
    # Differentiable: each process's loss depends on the pictures of all.
    moments = dist_nn.all_reduce(torch.stack([local_mean, local_var + local_mean.square()])) / world
    batch_mean, batch_var = moments[0], moments[1] - moments[0].square()
    with torch.no_grad():
        count = world * x.numel() / x.shape[1]
        mean.lerp_(batch_mean, momentum)
        var.lerp_(batch_var * (count / (count - 1)), momentum)
    scale = torch.rsqrt(batch_var.clamp_min(0) + eps)
    return ((full - batch_mean[:, None, None]) * scale[:, None, None]).to(x.dtype)


def modulate(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """gain * x + bias with gain and bias (B, C) or (1, C) over x (B, C, H, W)."""
    return torch.addcmul(bias[:, :, None, None].to(x.dtype), x, gain[:, :, None, None].to(x.dtype))
