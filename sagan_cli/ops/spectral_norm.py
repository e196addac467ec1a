"""Spectral normalisation (Miyato et al. 2018, arXiv 1802.05957): a weight divided by its largest singular value.

sigma is estimated by power iteration. `power_iteration` updates the estimate once per optimiser step; `normalised` only
reads it, so that a forward pass never changes the network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sagan_cli.ops.precision import no_autocast

EPSILON = 1e-8
"""Smallest norm that a vector is divided by."""


def as_matrix(weight: Tensor) -> Tensor:
    """Reshape (O, ...) to (O, rest), the matrix whose largest singular value is used."""
    if weight.dim() == 4:
        # The memory order of a channels_last weight: flattening is a view instead of a copy.
        weight = weight.permute(0, 2, 3, 1)
    return weight.reshape(weight.shape[0], -1)


@torch.no_grad()
def power_iteration(weight: Tensor, u: Tensor, v: Tensor, iterations: int = 1) -> None:
    """Update u (O,) and v (rest,) in place towards the leading singular vectors of the weight."""
    matrix = as_matrix(weight)
    for _ in range(iterations):
        v.copy_(F.normalize(matrix.t() @ u, dim=0, eps=EPSILON))
        u.copy_(F.normalize(matrix @ v, dim=0, eps=EPSILON))


def normalised(weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Return W / sigma with sigma = u^T W v, in fp32 even under autocast.

    The derivative treats u and v as constants, as the authors' release and PyTorch do.
    """
    with no_autocast(weight):
        out: Tensor = _Normalise.apply(weight, u, v)
    return out


class _Normalise(torch.autograd.Function):
    """Miyato et al., equation 12, without autograd's copies: dL/dW = (dL/dWbar - <dL/dWbar, Wbar> u v^T) / sigma."""

    @staticmethod
    def forward(ctx, weight: Tensor, u: Tensor, v: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        sigma = torch.dot(u, as_matrix(weight) @ v)
        bar = weight / sigma
        # Clones, because the caller updates u and v in place before the backward pass of a later step.
        ctx.save_for_backward(bar, u.clone(), v.clone(), sigma)
        return bar

    @staticmethod
    @once_differentiable  # second derivatives go through Wbar, never through this function
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        bar, u, v, sigma = ctx.saved_tensors
        # As matrices, so that memory is read in order; the last operation works in place.
        matrix = as_matrix(grad)
        along = torch.dot(matrix.reshape(-1), as_matrix(bar).reshape(-1)) / sigma
        out = (matrix / sigma).addr_(u * -along, v)
        if grad.dim() == 4:
            o, i, h, w = grad.shape
            out = out.view(o, h, w, i).permute(0, 3, 1, 2)
        return out, None, None
