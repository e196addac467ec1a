"""What the two networks of a specification consist of, read off networks that have shapes and no numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from sagan_cli.contracts import ModelSpec
from sagan_cli.engine import networks


@dataclass(frozen=True)
class Anatomy:
    """Counts and places of one network."""

    parameters: int
    """Numbers that are trained; buffers such as running statistics and singular vectors are not among them."""
    attention: tuple[str, ...]
    """Names of the attention layers that it declares, in the order in which a picture meets them."""


def anatomy(arch: str, spec: ModelSpec) -> tuple[Anatomy, Anatomy]:
    """That of G and of D.

    Raises:
        UsageError: unknown architecture, or a specification that it refuses.
        PluginError: the plugin does not load.
    """
    with torch.device("meta"):
        g, d = networks.build(arch, spec)
    return _of(g), _of(d)


def whereabouts(arch: str, spec: ModelSpec) -> str:
    """Where the networks attend, in words: `none`, `32`, or `G 16, 32; D 8, 4` where they differ.

    A control in the place of attention has no maps and is told by the sides that the specification names.

    Raises:
        UsageError, PluginError: as `anatomy`.
    """
    if not spec.attn_at:
        return "none"
    in_g, in_d = (", ".join(sorted(network.attention, key=_number)) for network in anatomy(arch, spec))
    if in_g == in_d:
        return in_g or ", ".join(map(str, spec.attn_at))
    return "; ".join(f"{letter} {sides}" for letter, sides in zip("GD", (in_g, in_d), strict=True) if sides)


def _number(name: str) -> tuple[int, str]:
    return (int(name) if name.isdecimal() else 0), name


def _of(network: nn.Module) -> Anatomy:
    layers: dict[str, nn.Module] = getattr(network, "attention_layers", dict)()
    return Anatomy(sum(p.numel() for p in network.parameters()), tuple(layers))
