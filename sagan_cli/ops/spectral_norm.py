"""Spectral normalisation (Miyato et al. 2018, arXiv 1802.05957): a weight divided by its largest singular value.

sigma is estimated by power iteration. The two halves are kept apart: `power_iteration` moves the estimate, once per
optimiser step; `normalised` only reads it, so a forward pass, in evaluation above all, never changes the network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sagan_cli.ops.precision import no_autocast

EPSILON = 1e-8
"""The length below which a vector is not scaled up to 1."""


def as_matrix(weight: Tensor) -> Tensor:
    """(O, ...) -> (O, rest): the matrix whose singular values count, columns ordered as they lie in memory."""
    if weight.dim() == 4:
        # A channels_last weight lies as (O, h, w, I); this order makes the flattening a view instead of a copy.
        weight = weight.permute(0, 2, 3, 1)
    return weight.reshape(weight.shape[0], -1)


@torch.no_grad()
def power_iteration(weight: Tensor, u: Tensor, v: Tensor, iterations: int = 1) -> None:
    """Move u (O,) and v (rest,), in place, towards the leading singular vectors of the weight."""
    matrix = as_matrix(weight)
    for _ in range(iterations):
        v.copy_(F.normalize(matrix.t() @ u, dim=0, eps=EPSILON))
        u.copy_(F.normalize(matrix @ v, dim=0, eps=EPSILON))


def normalised(weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """W / sigma with sigma = u^T W v, in fp32 whatever the autocast.

    u and v are constants of the derivative, as in the authors' release and in PyTorch; sigma is not.
    """
    with no_autocast(weight):
        out: Tensor = _Normalise.apply(weight, u, v)
    return out


class _Normalise(torch.autograd.Function):
    """dL/dW = (dL/dWbar - <dL/dWbar, Wbar> u v^T) / sigma: Miyato et al., equation 12, without autograd's copies."""

    @staticmethod
    def forward(ctx, weight: Tensor, u: Tensor, v: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        sigma = torch.dot(u, as_matrix(weight) @ v)
        bar = weight / sigma
        # Clones: the caller moves u and v in place before the next step, which must not reach back into this graph.
        ctx.save_for_backward(bar, u.clone(), v.clone(), sigma)
        return bar

    @staticmethod
    @once_differentiable  # a gradient penalty differentiates through Wbar, never through this
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        bar, u, v, sigma = ctx.saved_tensors
        # As matrices, so that each pass runs straight through memory; the last one works in place.
        matrix = as_matrix(grad)
        along = torch.dot(matrix.reshape(-1), as_matrix(bar).reshape(-1)) / sigma
        out = (matrix / sigma).addr_(u * -along, v)
        if grad.dim() == 4:
            o, i, h, w = grad.shape
            out = out.view(o, h, w, i).permute(0, 3, 1, 2)
        return out, None, None
