"""Which tensor of the textbook is which of ours: to give both the same weights, and to compare their gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from textbook import dcgan, residual


@dataclass(frozen=True)
class Match:
    """One tensor of the textbook, and the tensors of ours that it holds."""

    theirs: Tensor
    mine: tuple[Tensor, ...]
    lay: Callable[..., Tensor]
    """Ours as the textbook has them lie; linear, so it serves gradients too."""


def copy_(textbook: nn.Module, ours: nn.Module) -> None:
    """Give the textbook's network our weights, singular vectors and batch statistics."""
    with torch.no_grad():
        for m in matches(textbook, ours):
            m.theirs.copy_(m.lay(*m.mine))


def matches(textbook: Any, ours: Any) -> Iterator[Match]:
    """Every parameter and every buffer that the function depends on, of a pair of equal networks."""
    for theirs, mine in _layers(textbook, ours):
        yield from _tensors(theirs, mine)
    if isinstance(textbook, residual.Generator):
        for m in _tensors(textbook.linear, ours.linear):
            yield m if m.theirs is textbook.linear.weight_v else replace(m, lay=_start_grid)


def _layers(textbook: Any, ours: Any) -> Iterator[tuple[Any, Any]]:
    blocks = list(ours.attention_layers().values())
    if isinstance(textbook, dcgan.Generator | dcgan.Discriminator):
        stages = (textbook.stage1, textbook.stage2, textbook.stage3, textbook.stage4)
        yield from zip((stage[0] for stage in stages), ours.stages, strict=True)
        yield from zip((textbook.attention1, textbook.attention2), blocks, strict=True)
        if isinstance(textbook, dcgan.Generator):
            yield from zip((stage[1] for stage in stages), ours.norms, strict=True)
            yield textbook.last[0], ours.to_image
        else:
            yield textbook.last, ours.to_logit
        return
    for theirs, mine in zip(textbook.blocks, ours.blocks, strict=True):
        yield from ((layer, getattr(mine, name)) for name, layer in theirs.named_children())
    yield from zip((textbook.attention,), blocks, strict=True)
    if isinstance(textbook, residual.Generator):
        yield textbook.norm, ours.norm
        yield textbook.last, ours.to_image
    else:
        yield textbook.linear, ours.linear
        yield textbook.embed, ours.embed


def _tensors(theirs: Any, mine: Any) -> Iterator[Match]:
    if hasattr(theirs, "gamma"):
        for name, layer in theirs.named_children():
            yield from _tensors(layer, getattr(mine, name))
        yield Match(theirs.gamma, (mine.gamma,), lambda t: t.reshape(1))
    elif isinstance(theirs, residual.ConditionalBatchNorm):
        yield Match(theirs.embed.weight, (mine.gain, mine.bias), lambda g, b: torch.cat([g, b], dim=1))
        yield from _statistics(theirs.bn, mine)
    elif isinstance(theirs, nn.BatchNorm2d):
        yield Match(theirs.weight, (mine.gain,), torch.flatten)
        yield Match(theirs.bias, (mine.bias,), torch.flatten)
        yield from _statistics(theirs, mine)
    else:
        yield from _weights(theirs, mine)


def _statistics(theirs: Any, mine: Any) -> Iterator[Match]:
    for name in ("running_mean", "running_var"):
        yield Match(getattr(theirs, name), (getattr(mine, name),), _as_it_is)


def _weights(theirs: Any, mine: Any) -> Iterator[Match]:
    normed = hasattr(theirs, "weight_orig")
    # Ours of a transposed convolution lies with the rows of the matrix first.
    turned = normed and isinstance(theirs, nn.ConvTranspose2d)
    weight = theirs.weight_orig if normed else theirs.weight
    yield Match(weight, (mine.weight,), (lambda t: t.transpose(0, 1)) if turned else _as_it_is)
    if getattr(mine, "bias", None) is not None:
        yield Match(theirs.bias, (mine.bias,), _as_it_is)
    if normed:
        shape = mine.weight.shape
        yield Match(theirs.weight_u, (mine.u,), _as_it_is)
        yield Match(theirs.weight_v, (mine.v,), lambda v: _columns(v, shape))


def _columns(v: Tensor, shape: torch.Size) -> Tensor:
    """Columns of a convolution's matrix from (h, w, in), as ours lie, to PyTorch's (in, h, w)."""
    if len(shape) != 4:
        return v
    _, i, h, w = shape
    return v.view(h, w, i).permute(2, 0, 1).reshape(-1)


def _start_grid(t: Tensor) -> Tensor:
    """Rows of G's linear layer from (4, 4, C), as the authors' release and ours have them, to the ports' (C, 4, 4)."""
    return t.unflatten(0, (4, 4, -1)).movedim(2, 0).flatten(0, 2)


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor
