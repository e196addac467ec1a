"""Record the attention maps that a forward pass uses, and their entropy, distance and strength."""

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
    """The maps of one attention layer in a forward pass over B images."""

    name: str
    """The key of `attention_layers()`: the longer side of the feature map, or a plugin's own name."""
    maps: Tensor
    """(B, N, M) float32 on the CPU: row n is the attention of query n; rows sum to 1; row-major positions."""
    query_grid: tuple[int, int]
    """(height, width) of the N queries, which tile the image."""
    key_grid: tuple[int, int]
    """(height, width) of the M keys, which tile the same image; smaller where keys are pooled."""
    gamma: float | None
    """The layer's learned scale, if it has one."""
    strength: Tensor
    """(B,) |y - x| / |x|: relative change of the input x by the layer; 0 for gamma = 0."""

    def entropy(self) -> Tensor:
        """Return (B, N), the entropy of each row over log M: 0 for one key, 1 for uniform attention."""
        p = self.maps.double()
        return -(torch.special.xlogy(p, p)).sum(-1) / math.log(max(p.shape[-1], 2))

    def distance(self) -> Tensor:
        """Return (B, N), the mean distance from a query to its keys, in units of the image's longer side."""
        query, key = (_centres(grid, self.query_grid) for grid in (self.query_grid, self.key_grid))
        return (self.maps.double() * torch.cdist(query, key)).sum(-1)


@contextmanager
def record_maps(network: nn.Module, names: Collection[str] | None = None) -> Iterator[dict[str, LayerMaps]]:
    """Record the maps of a forward pass of `network` within the block into the returned dictionary.

    Args:
        names: only these layers; with (), `network` needs no attention layers.

    Raises:
        SaganError: the network declares no attention layers, or one of them has no method `maps`.
    """
    layers = {} if names is not None and not names else attention_layers(network)
    if names is not None:
        layers = {name: layer for name, layer in layers.items() if name in names}
    recorded: dict[str, LayerMaps] = {}

    def recorder(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            recorded[name] = _read(name, layer, args[0], output)

        return hook

    hooks = [layer.register_forward_hook(recorder(name)) for name, layer in layers.items()]
    try:
        yield recorded
    finally:
        for handle in hooks:
            handle.remove()


def attention_layers(network: nn.Module) -> Mapping[str, Any]:
    """Return the attention layers that a network declares.

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
    """Return the layer's own `key_grid`, or the query grid divided by one whole factor."""
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


def _centres(grid: tuple[int, int], image: tuple[int, int]) -> Tensor:
    """Return (n, 2) centres of cells in units of the longer side of an image with the aspect ratio of `image`."""
    tall, wide = (side / max(image) for side in image)
    y = (torch.arange(grid[0]) + 0.5) / grid[0] * tall
    x = (torch.arange(grid[1]) + 0.5) / grid[1] * wide
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).reshape(-1, 2).double()
