"""Where a network looks: the attention maps of a forward pass, exactly those it used, and what they amount to."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sagan_cli.errors import SaganError


@dataclass(frozen=True)
class LayerMaps:
    """One attention layer's part in one forward pass over B pictures."""

    name: str
    """As `attention_layers()` has it: the longer side of the feature map, or a plugin's own name."""
    maps: Tensor
    """(B, N, M) float32 on the CPU: row n says where query position n looks; rows sum to 1; row-major positions."""
    query_grid: tuple[int, int]
    """(height, width) of the N query positions, which tile the picture."""
    key_grid: tuple[int, int]
    """(height, width) of the M key positions: smaller where keys are pooled; they tile the picture as well."""
    gamma: float | None
    """The layer's learned scale, where it has one."""
    strength: Tensor
    """(B,) |y - x| / |x|: how much the layer changes what passes through it. 0 is an idle layer."""

    def entropy(self) -> Tensor:
        """(B, N) of each row, over log M: 0 looks at one position, 1 at all alike."""
        p = self.maps.double()
        return -(torch.special.xlogy(p, p)).sum(-1) / math.log(max(p.shape[-1], 2))

    def distance(self) -> Tensor:
        """(B, N) mean distance from a query to where it looks, in widths of the picture's longer side."""
        query, key = (_centres(grid, self.query_grid) for grid in (self.query_grid, self.key_grid))
        return (self.maps.double() * torch.cdist(query, key)).sum(-1)


@contextmanager
def attending(network: nn.Module, names: Collection[str] | None = None) -> Iterator[dict[str, LayerMaps]]:
    """Within the block, a forward pass of `network` leaves the maps of its attention layers in the dictionary.

    Args:
        names: only these layers; () watches none, so that any network will do.

    Raises:
        SaganError: the network declares no attention layers, or one of them shows no maps.
    """
    layers = {} if names is not None and not names else attention_layers(network)
    if names is not None:
        layers = {name: layer for name, layer in layers.items() if name in names}
    found: dict[str, LayerMaps] = {}

    def look(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            found[name] = _read(name, layer, args[0], output)

        return hook

    hooks = [layer.register_forward_hook(look(name)) for name, layer in layers.items()]
    try:
        yield found
    finally:
        for handle in hooks:
            handle.remove()


def attention_layers(network: nn.Module) -> Mapping[str, Any]:
    """The attention layers that a network declares, checked to show their maps.

    Raises:
        SaganError: it declares none, or one of them has no method `maps`.
    """
    declared: Mapping[str, nn.Module] = getattr(network, "attention_layers", dict)()
    kind = type(network).__name__
    if not declared:
        raise SaganError(
            f"{kind} has no attention layers to show: train with --attn-at, or, in a plugin, declare them by "
            "attention_layers()"
        )
    for name, layer in declared.items():
        if not callable(getattr(layer, "maps", None)):
            raise SaganError(f"the attention layer '{name}' of {kind} shows no maps: it has no method maps(x)")
    return declared


@torch.no_grad()
def _read(name: str, layer: Any, x: Tensor, y: Tensor) -> LayerMaps:
    maps = layer.maps(x).float().cpu()
    height, width = x.shape[2:]
    gamma = getattr(layer, "gamma", None)
    strength = (y.float() - x.float()).flatten(1).norm(dim=1) / x.float().flatten(1).norm(dim=1).clamp_min(1e-12)
    return LayerMaps(
        name, maps, (height, width), _key_grid(name, layer, maps.shape[2], height, width),
        gamma.item() if isinstance(gamma, Tensor) and gamma.numel() == 1 else None, strength.cpu(),
    )  # fmt: skip


def _key_grid(name: str, layer: Any, count: int, height: int, width: int) -> tuple[int, int]:
    """The layer's own word, else the grid that is smaller by one whole factor."""
    own = getattr(layer, "key_grid", None)
    if callable(own):
        rows, columns = own(height, width)
        return int(rows), int(columns)
    factor = math.isqrt(max(height * width // count, 1))
    if (height // factor) * (width // factor) != count:
        raise SaganError(
            f"attention layer '{name}': {count} keys for {height}x{width} queries; give it a method key_grid(h, w)"
        )
    return height // factor, width // factor


def _centres(grid: tuple[int, int], frame: tuple[int, int]) -> Tensor:
    """(n, 2) centres of a grid's cells in widths of the longer side of a picture of the proportions of `frame`."""
    tall, wide = (side / max(frame) for side in frame)
    y = (torch.arange(grid[0]) + 0.5) / grid[0] * tall
    x = (torch.arange(grid[1]) + 0.5) / grid[1] * wide
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).reshape(-1, 2).double()
