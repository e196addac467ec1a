"""The spectral norms of other projects: the stored weight, and the vectors by which their evaluation divides it.

All of them divide W by sigma = u^T W v in evaluation, W flattened to (rows, columns) as it lies in memory; they differ
in where u and v come from. Our layers do the same with the columns in another order (`ops.spectral_norm.as_matrix`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sagan_cli.importing.foreign import Foreign


@dataclass(frozen=True)
class Normed:
    """A weight with its spectral norm, all in float64."""

    weight: Tensor
    bias: Tensor | None
    u: Tensor
    """(rows,)."""
    v: Tensor
    """(columns,), columns as they lie in memory."""

    def sigma(self) -> Tensor:
        """u^T W v, a scalar."""
        return torch.dot(self.u, self.weight.flatten(1) @ self.v)

    def bar(self) -> Tensor:
        """The normalised weight."""
        return self.weight / self.sigma()


def hooked(foreign: Foreign, name: str, shape: tuple[int, ...], *, bias: bool) -> Normed:
    """`torch.nn.utils.spectral_norm`: in evaluation, the stored u and v as they are.

    Files from before PyTorch 1.0 have no v; there the weight that evaluation used is stored itself.
    """
    weight = foreign.take(f"{name}.weight_orig", *shape)
    matrix = weight.flatten(1)
    u = foreign.take(f"{name}.weight_u", shape[0])
    if f"{name}.weight_v" not in foreign and f"{name}.weight" in foreign:
        used = foreign.take(f"{name}.weight", *shape)
        sigma = (weight * used).sum() / used.square().sum()
        v = matrix.t() @ u
        v = v * (sigma / torch.dot(u, matrix @ v))  # of whatever length makes u^T W v the sigma that was used
    else:
        v = foreign.take(f"{name}.weight_v", matrix.shape[1])
    return _checked(foreign, name, weight, bias, u, v)


def biggan(foreign: Foreign, name: str, shape: tuple[int, ...], *, bias: bool) -> Normed:
    """BigGAN-PyTorch's own: evaluation takes one power iteration from the stored u, and keeps none of it."""
    weight = foreign.take(f"{name}.weight", *shape)
    u = foreign.take(f"{name}.u0", 1, shape[0])[0]
    # Further vectors, of --num_G_SVs, and the logged singular values do not enter the function.
    foreign.skip(*(f"{name}.{kind}{i}" for kind in ("u", "sv") for i in range(32)))
    return _checked(foreign, name, weight, bias, *_iterated(weight, u))


def port(foreign: Foreign, name: str, shape: tuple[int, ...], *, bias: bool) -> Normed:
    """The well-known port's own: every forward pass, in evaluation too, first takes one power iteration.

    What is imported is the first forward pass after loading.
    """
    weight = foreign.take(f"{name}.weight_bar", *shape)
    u = foreign.take(f"{name}.weight_u", shape[0])
    foreign.take(f"{name}.weight_v", weight.flatten(1).shape[1])  # overwritten before it is used
    return _checked(foreign, name, weight, bias, *_iterated(weight, u))


def ours(prefix: str, layer: Normed) -> dict[str, Tensor]:
    """The tensors of a `SpectralNormed` layer of this package."""
    v = layer.v
    if layer.weight.dim() == 4:
        v = v.view(layer.weight.shape[1:]).permute(1, 2, 0).reshape(-1)
    found = {f"{prefix}.weight": layer.weight, f"{prefix}.u": layer.u, f"{prefix}.v": v}
    return found if layer.bias is None else {**found, f"{prefix}.bias": layer.bias}


def _iterated(weight: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    matrix = weight.flatten(1)
    v = F.normalize(matrix.t() @ u, dim=0, eps=1e-12)
    return F.normalize(matrix @ v, dim=0, eps=1e-12), v


def _checked(foreign: Foreign, name: str, weight: Tensor, bias: bool, u: Tensor, v: Tensor) -> Normed:
    layer = Normed(weight, foreign.take(f"{name}.bias", weight.shape[0]) if bias else None, u, v)
    sigma = layer.sigma()
    if not bool(torch.isfinite(sigma)) or float(sigma) == 0:
        raise foreign.refuse(name, f"its spectral norm comes to {float(sigma)}, and nothing can be divided by that")
    return layer
