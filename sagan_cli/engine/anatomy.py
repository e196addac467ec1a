"""What the two networks of a specification consist of, read off networks that have shapes and no numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Cost:
    """Parameters, and the memory of one process."""

    g_parameters: int
    d_parameters: int
    weights_mib: float
    """Weights, gradients, Adam's two moments and the moving average."""
    activations_mib: float
    """What is kept for the backward pass of this process's share of the batch, in the dearer of the two updates."""


def count(arch: str, spec: ModelSpec, batch: int, precision: str) -> Cost:
    """Count parameters and saved activations on the meta device, where tensors have shapes and no contents."""
    with torch.device("meta"):
        g, d = networks.build(arch, spec)
    counts = [sum(p.numel() for p in net.parameters()) for net in (g, d)]
    weights = 4 * (4 * counts[0] + 4 * counts[1] + counts[0])
    z = torch.empty(batch, spec.latent, device="meta")
    y = torch.zeros(batch, dtype=torch.long, device="meta") if spec.num_classes else None
    x = torch.empty(2 * batch, spec.channels, spec.height, spec.width, device="meta")
    both = None if y is None else torch.cat([y, y])
    d_update = _saved_bytes(lambda: d(x, both))
    d.requires_grad_(False)
    g_update = _saved_bytes(lambda: d(g(z, y), y))
    # Under autocast the large tensors are half as wide; weights' copies and fp32 norms make up part of the difference.
    narrower = 0.6 if precision == "bf16" else 1.0
    return Cost(counts[0], counts[1], weights / 2**20, max(d_update, g_update) * narrower / 2**20)


def _saved_bytes(forward: Callable[[], torch.Tensor]) -> int:
    """Bytes that autograd keeps of one forward pass, each storage counted once."""
    sizes: dict[int, tuple[Any, int]] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        sizes[storage._cdata] = (storage, storage.nbytes())  # held, so that no later storage takes its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        out = forward()
    del out
    return sum(size for _, size in sizes.values())
