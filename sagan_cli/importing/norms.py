"""The batch norms of other projects as ours: a gain and a bias for each class, and the statistics of evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sagan_cli.importing.foreign import Foreign

OUR_EPSILON = 1e-5
"""Of `model.layers.ConditionalBatchNorm2d`."""


@dataclass(frozen=True)
class Norm:
    """(x - mean) / sqrt(var + 1e-5) * gain[y] + bias[y], in float64."""

    gain: Tensor
    """(classes, C); one row where classes have no say."""
    bias: Tensor
    mean: Tensor
    """(C,)."""
    var: Tensor


def norm(gain: Tensor, bias: Tensor, statistics: tuple[Tensor, Tensor], epsilon: float) -> Norm:
    """A norm with another epsilon: what it has more is added to the variance, which is the same function."""
    mean, var = statistics
    return Norm(gain, bias, mean, var + (epsilon - OUR_EPSILON))


def running(foreign: Foreign, name: str, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of torch's own batch norm."""
    foreign.skip(f"{name}.num_batches_tracked")
    return foreign.take(f"{name}.running_mean", channels), foreign.take(f"{name}.running_var", channels)


def affine(foreign: Foreign, name: str, channels: int, epsilon: float) -> Norm:
    """torch.nn.BatchNorm2d, without classes."""
    gain, bias = (foreign.take(f"{name}.{part}", channels)[None] for part in ("weight", "bias"))
    return norm(gain, bias, running(foreign, name, channels), epsilon)


def ours(prefix: str, layer: Norm) -> dict[str, Tensor]:
    """The tensors of a `ConditionalBatchNorm2d`."""
    return {
        f"{prefix}.gain": layer.gain, f"{prefix}.bias": layer.bias, f"{prefix}.running_mean": layer.mean,
        f"{prefix}.running_var": layer.var,
    }  # fmt: skip
