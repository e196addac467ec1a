"""From a configuration to everything a run needs to know before its first step: the pictures, the network, the cost."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sagan_cli import geometry
from sagan_cli.config.schema import Config
from sagan_cli.contracts import Dataset, ModelSpec
from sagan_cli.engine import networks
from sagan_cli.errors import UsageError

DEFAULT_SIZE = 64


@dataclass(frozen=True)
class Shape:
    """The picture size and attention that a configuration comes to."""

    height: int
    width: int
    attn_at: tuple[int, ...]


@dataclass(frozen=True)
class Cost:
    """What a step takes, counted on networks without memory."""

    g_parameters: int
    d_parameters: int
    weights_mib: float
    """Weights, gradients, Adam's two moments and the moving average."""
    activations_mib: float
    """What one process keeps for the backward pass of its share of the batch, in the dearer of the two updates."""


def shape(config: Config, native: int | None) -> Shape:
    """Turn `auto` into numbers, and check the attention's place.

    Raises:
        UsageError: a size that no SAGAN has, or a feature map that the size has not.
    """
    height, width = parse_size(config.data.size, native or DEFAULT_SIZE)
    geometry.geometry(height, width)
    attn_at = parse_attention(config.model.attn_at, height, width)
    return Shape(height, width, attn_at)


def parse_size(text: str, auto: int) -> tuple[int, int]:
    """auto, N or HEIGHTxWIDTH -> (height, width)."""
    if text == "auto":
        return auto, auto
    match = re.fullmatch(r"(\d{1,5})(?:[xX×](\d{1,5}))?", text.strip())
    if not match:
        raise UsageError(f"--size {text}: write one side, as in 64, or HEIGHTxWIDTH, as in 96x128")
    return int(match[1]), int(match[2] or match[1])


def parse_attention(text: str, height: int, width: int) -> tuple[int, ...]:
    """auto, none or a list of longer sides -> the sides in ascending order."""
    if text == "auto":
        return geometry.default_attention(height, width)
    if text.strip().lower() == "none":
        return ()
    try:
        sides = tuple(sorted(int(side) for side in text.split(",")))
    except ValueError:
        raise UsageError(f"--attn-at {text}: write sides of feature maps, as in 32 or 16,32, or none") from None
    geometry.check_attention(height, width, sides)
    return sides


def model_spec(config: Config, form: Shape, channels: int, num_classes: int) -> ModelSpec:
    """What the architecture is told."""
    return ModelSpec(
        height=form.height, width=form.width, channels=channels, num_classes=num_classes, latent=config.model.latent,
        base_width=config.model.base_width, attn_at=form.attn_at, options=dict(config.model.options),
    )  # fmt: skip


def cost(arch: str, spec: ModelSpec, batch: int, precision: str) -> Cost:
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


@dataclass(frozen=True)
class Opened:
    """A source that has been looked at and not yet packed."""

    dataset: Dataset
    form: Shape


def open_data(config: Config) -> Opened:
    """Find the pictures and fix the size."""
    from sagan_cli.data import sources

    root = Path(config.data.root)
    form = shape(
        config, None if config.data.size != "auto" else sources.native_size(config.data.source, root, config.data.split)
    )
    dataset = sources.open_source(
        config.data.source, data_root=root, split=config.data.split, height=form.height, width=form.width,
        unconditional=config.data.unconditional,
    )  # fmt: skip
    return Opened(dataset, form)
