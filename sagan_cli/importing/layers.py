"""Layers of other projects as layers of this package: spectral norms, batch norms, attention with biases.

All projects divide a weight W by sigma = u^T W v in evaluation, W flattened to (rows, columns) in memory order; they
differ in the origin of u and v. This package has the columns in another order (`ops.spectral_norm.as_matrix`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sagan_cli.importing.foreign import Foreign


@dataclass(frozen=True)
class Normed:
    """A weight with its spectral norm, in float64."""

    weight: Tensor
    bias: Tensor | None
    u: Tensor
    """(rows,)."""
    v: Tensor
    """(columns,), in memory order."""

    def sigma(self) -> Tensor:
        """Return u^T W v, a scalar."""
        return torch.dot(self.u, self.weight.flatten(1) @ self.v)

    def bar(self) -> Tensor:
        """Return the normalised weight."""
        return self.weight / self.sigma()


def torch_normed(foreign: Foreign, name: str, shape: tuple[int, ...], *, bias: bool) -> Normed:
    """Read a layer under `torch.nn.utils.spectral_norm`, which evaluates with the stored u and v.

    Files from before PyTorch 1.0 have no v, but the normalised weight.
    """
    weight = foreign.take(f"{name}.weight_orig", *shape)
    matrix = weight.flatten(1)
    u = foreign.take(f"{name}.weight_u", shape[0])
    if f"{name}.weight_v" not in foreign and f"{name}.weight" in foreign:
        used = foreign.take(f"{name}.weight", *shape)
        sigma = (weight * used).sum() / used.square().sum()
        v = matrix.t() @ u
        v = v * (sigma / torch.dot(u, matrix @ v))  # scaled so that u^T W v is the sigma used
    else:
        v = foreign.take(f"{name}.weight_v", matrix.shape[1])
    return _normed(foreign, name, weight, bias, u, v)


def biggan_normed(foreign: Foreign, name: str, shape: tuple[int, ...], *, bias: bool) -> Normed:
    """Read a layer of BigGAN-PyTorch, which evaluates with one power iteration from the stored u."""
    weight = foreign.take(f"{name}.weight", *shape)
    u = foreign.take(f"{name}.u0", 1, shape[0])[0]
    # Further vectors (--num_G_SVs) and logged singular values do not affect the output.
    foreign.skip(*(f"{name}.{kind}{i}" for kind in ("u", "sv") for i in range(32)))
    return _normed(foreign, name, weight, bias, *_iterated(weight, u))


def heykeetae_normed(foreign: Foreign, name: str, shape: tuple[int, ...], *, bias: bool) -> Normed:
    """Read a layer of heykeetae's port, whose every forward pass begins with a power iteration.

    The imported layer is that of the first forward pass after loading.
    """
    weight = foreign.take(f"{name}.weight_bar", *shape)
    u = foreign.take(f"{name}.weight_u", shape[0])
    foreign.take(f"{name}.weight_v", weight.flatten(1).shape[1])  # the power iteration overwrites it
    return _normed(foreign, name, weight, bias, *_iterated(weight, u))


def normed_tensors(prefix: str, layer: Normed) -> dict[str, Tensor]:
    """Return the tensors of a `SpectralNormed` layer."""
    v = layer.v
    if layer.weight.dim() == 4:
        v = v.view(layer.weight.shape[1:]).permute(1, 2, 0).reshape(-1)
    found = {f"{prefix}.weight": layer.weight, f"{prefix}.u": layer.u, f"{prefix}.v": v}
    return found if layer.bias is None else {**found, f"{prefix}.bias": layer.bias}


def _iterated(weight: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    matrix = weight.flatten(1)
    v = F.normalize(matrix.t() @ u, dim=0, eps=1e-12)
    return F.normalize(matrix @ v, dim=0, eps=1e-12), v


def _normed(foreign: Foreign, name: str, weight: Tensor, bias: bool, u: Tensor, v: Tensor) -> Normed:
    layer = Normed(weight, foreign.take(f"{name}.bias", weight.shape[0]) if bias else None, u, v)
    sigma = layer.sigma()
    if not bool(torch.isfinite(sigma)) or float(sigma) == 0:
        raise foreign.refuse(name, f"its spectral norm is {float(sigma)}, which cannot be a divisor")
    return layer


OUR_EPSILON = 1e-5
"""Epsilon of `model.layers.ConditionalBatchNorm2d`."""


@dataclass(frozen=True)
class BatchNorm:
    """(x - mean) / sqrt(var + 1e-5) * gain[y] + bias[y], in float64."""

    gain: Tensor
    """(classes, C); one row without classes."""
    bias: Tensor
    mean: Tensor
    """(C,)."""
    var: Tensor


def batch_norm(gain: Tensor, bias: Tensor, statistics: tuple[Tensor, Tensor], epsilon: float) -> BatchNorm:
    """Return a norm of another epsilon; the difference is added to the variance, so the function is the same."""
    mean, var = statistics
    return BatchNorm(gain, bias, mean, var + (epsilon - OUR_EPSILON))


def running_statistics(foreign: Foreign, name: str, channels: int) -> tuple[Tensor, Tensor]:
    """Read mean and variance of a torch.nn.BatchNorm2d."""
    foreign.skip(f"{name}.num_batches_tracked")
    return foreign.take(f"{name}.running_mean", channels), foreign.take(f"{name}.running_var", channels)


def torch_batch_norm(foreign: Foreign, name: str, channels: int, epsilon: float) -> BatchNorm:
    """Read a torch.nn.BatchNorm2d, without classes."""
    gain, bias = (foreign.take(f"{name}.{part}", channels)[None] for part in ("weight", "bias"))
    return batch_norm(gain, bias, running_statistics(foreign, name, channels), epsilon)


def batch_norm_tensors(prefix: str, layer: BatchNorm) -> dict[str, Tensor]:
    """Return the tensors of a `ConditionalBatchNorm2d`."""
    return {
        f"{prefix}.gain": layer.gain, f"{prefix}.bias": layer.bias, f"{prefix}.running_mean": layer.mean,
        f"{prefix}.running_var": layer.var,
    }  # fmt: skip


LARGEST_SHIFT = 100.0
"""Largest e that is added; with a larger one, x + e in fp32 would not be accurate to 1e-5."""


def folded_biases(
    foreign: Foreign, name: str, query: Normed, value: Normed, output: Normed, gamma: Tensor
) -> tuple[Tensor, Tensor]:
    """Return (before, after), each (C,): constants that replace the biases of an attention block.

    `before` is added to every position of its input x, `after` to every position of its output. Write q, k, v for the
    projections without biases and a, b, c, d for the biases of query, key, value and output.

    - b adds q_i . b to every logit of row i, which softmax ignores.
    - c is unchanged by the map, whose rows sum to 1; with d it adds W c + d at every position.
    - a adds a . k_j to the logits. An input x + e with W_q e = a does the same; W_q is wide, so such an e exists. The
      layer before adds e by its bias, and the effect of e on x, k and v is constant.

    So the outputs differ by one constant per channel, which the next block absorbs: its first batch norm in its mean,
    its 1x1 shortcut in its bias. Evaluation is the same function; in training, batch statistics would change.

    Args:
        name: the query's bias, for the message.

    Raises:
        CheckpointError: no e, or only a far too large one, replaces the query's bias.
    """
    w_query, w_value, w_output = (layer.bar().flatten(1) for layer in (query, value, output))
    assert query.bias is not None
    assert value.bias is not None
    assert output.bias is not None
    before = torch.linalg.pinv(w_query) @ query.bias
    missed = float((w_query @ before - query.bias).abs().max())
    if missed > 1e-9 or float(before.abs().max()) > LARGEST_SHIFT:
        raise foreign.refuse(
            name, "this bias is not 0, sagan's attention has none, and the query's weight is too close to singular to "
            "move it into the layer before"
        )  # fmt: skip
    after = gamma * (w_output @ (value.bias - w_value @ before) + output.bias) - before
    return before, after
