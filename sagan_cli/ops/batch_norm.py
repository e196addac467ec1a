"""Batch normalisation with statistics over all processes, and a gain and bias per image.

Statistics of the global batch make a run on several processes the same function as a run on one.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sagan_cli.ops.assumed_batch import assumed_batch_size
from sagan_cli.ops.precision import wide


def batch_norm(x: Tensor, mean: Tensor, var: Tensor, *, training: bool, momentum: float, eps: float) -> Tensor:
    """Normalise x (B, C, H, W) per channel: (x - mean) / sqrt(var + eps).

    Training uses the batch's own statistics, over all processes of the default group, and updates the running mean and
    (unbiased) variance (C,).
    """
    if training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return _across_processes(x, mean, var, momentum, eps)
    return F.batch_norm(x, mean, var, training=training, momentum=momentum, eps=eps)


def _across_processes(x: Tensor, mean: Tensor, var: Tensor, momentum: float, eps: float) -> Tensor:
    # PyTorch's SyncBatchNorm supports no CPU; this runs on gloo and nccl.
    if assumed_batch_size() == 0:  # penalties need the second derivative
        return _twice_differentiable(x, mean, var, momentum, eps)
    out: Tensor = _Global.apply(x, mean, var, momentum, eps)
    return out


class _Global(torch.autograd.Function):
    """Batch norm over all processes with PyTorch's single-process kernels and two messages of 2 C numbers.

    The loss of each process depends on the images of all, so the backward pass sums the statistics' gradients over
    them.
    """

    @staticmethod
    def forward(ctx, x: Tensor, mean: Tensor, var: Tensor, momentum: float, eps: float) -> Tensor:  # type: ignore[no-untyped-def]
        # Only the statistics of this pass are used; no other kernel computes them as fast.
        spare = torch.zeros_like(mean), torch.ones_like(var)
        _, own_mean, own_scale = torch.native_batch_norm(x, None, None, *spare, True, 0.0, eps)
        own_var = own_scale.pow(-2) - eps
        batch_mean, batch_var = _together(own_mean, own_var)
        _remember(mean, var, batch_mean, batch_var, x, momentum)
        ctx.save_for_backward(x, batch_mean, batch_var)
        ctx.eps = eps
        return torch.native_batch_norm(x, None, None, batch_mean, batch_var, False, 0.0, eps)[0]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        x, mean, var = ctx.saved_tensors
        # With fixed statistics the kernel returns the sums of grad * xhat and of grad over this process's images.
        _, along, total = torch.ops.aten.native_batch_norm_backward(
            grad, x, torch.ones_like(mean), mean, var, None, None, False, ctx.eps, [False, True, True]
        )
        sums = torch.stack([along, total])
        dist.all_reduce(sums)
        along, total = sums / (dist.get_world_size() * x.numel() / x.shape[1])
        # scale (grad - mean of grad - xhat * mean of grad xhat): per channel a multiple of grad, one of x, a constant.
        scale = torch.rsqrt(var + ctx.eps)
        of_x = -scale.square() * along
        constant = -scale * total - of_x * mean
        constant, of_x, scale = (values[:, None, None] for values in (constant, of_x, scale))
        into = torch.addcmul(constant, x, of_x).addcmul_(grad, scale)  # fp32: rounding would bias it
        return into.to(x.dtype), None, None, None, None


def _twice_differentiable(x: Tensor, mean: Tensor, var: Tensor, momentum: float, eps: float) -> Tensor:
    full = wide(x)
    local_var, local_mean = torch.var_mean(full, dim=(0, 2, 3), correction=0)
    total: Tensor = _Sum.apply(torch.stack([local_mean, local_var + local_mean.square()]))
    moments = total / dist.get_world_size()
    batch_mean, batch_var = moments[0], (moments[1] - moments[0].square()).clamp_min(0)
    _remember(mean, var, batch_mean.detach(), batch_var.detach(), x, momentum)
    scale = torch.rsqrt(batch_var + eps)
    return ((full - batch_mean[:, None, None]) * scale[:, None, None]).to(x.dtype)


class _Sum(torch.autograd.Function):
    """Sum over all processes, differentiable any number of times."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        out: Tensor = _Sum.apply(grad)
        return out


def _together(mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Combine mean and variance (C,) of all processes, whose slices have equal size."""
    moments = torch.stack([mean, var + mean.square()])
    dist.all_reduce(moments)
    moments /= dist.get_world_size()
    return moments[0], (moments[1] - moments[0].square()).clamp_min(0)


@torch.no_grad()
def _remember(mean: Tensor, var: Tensor, batch_mean: Tensor, batch_var: Tensor, x: Tensor, momentum: float) -> None:
    count = dist.get_world_size() * x.numel() / x.shape[1]
    mean.lerp_(batch_mean, momentum)
    var.lerp_(batch_var * (count / (count - 1)), momentum)


def modulate(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """Return gain * x + bias for x (B, C, H, W), gain and bias (B, C) or (1, C)."""
    return torch.addcmul(bias[:, :, None, None].to(x.dtype), x, gain[:, :, None, None].to(x.dtype))
