"""Convert residual generators of other projects to `sagan` and `sagan-cifar`.

A `Naming` gives a project's names and storage. Blocks have conditional batch norm, 3x3, norm, 3x3 and a learned 1x1
shortcut; attention is that of the authors' release; the end is a norm, a 3x3 convolution and tanh.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from sagan_cli.contracts import ModelSpec
from sagan_cli.geometry import MIN_STAGES, channels_at, geometry
from sagan_cli.importing import layers
from sagan_cli.importing.foreign import Converted, Foreign

CIFAR_MULTIPLIER = 4
"""`sagan-cifar` has 4 `base_width` channels on every map."""


class Spectral(Protocol):
    """Reads one spectrally normalised layer."""

    def __call__(self, foreign: Foreign, name: str, shape: tuple[int, ...], *, bias: bool) -> layers.Normed: ...


@dataclass(frozen=True)
class Layout:
    """The order of blocks and attention in one file."""

    blocks: tuple[str, ...]
    """Prefix of each block, from the 4x4 feature map up."""
    attention: Mapping[int, str]
    """Number of blocks before it -> prefix of an attention block."""


@dataclass(frozen=True)
class Naming:
    """Names and storage of the parts of a project's generator."""

    linear: str
    block: Mapping[str, str]
    """conv0, conv1, shortcut, norm0, norm1 -> their names after a block's prefix."""
    attention: Mapping[str, str]
    """query, key, value, output, gamma -> their names after its prefix."""
    attention_bias: bool
    last_norm: str
    to_image: str
    weight: str
    """Name of a stored weight after its layer's name: `weight` or `weight_orig`."""
    layout: Callable[[Foreign], Layout]
    classes: Callable[[Foreign, str], int]
    """(file, prefix of the first norm of a block) -> classes; 0 for none."""
    spectral: Spectral
    norm: Callable[[Foreign, str, int, int], layers.BatchNorm]
    """(file, prefix, classes, channels) -> a block's norm."""
    final_norm: Callable[[Foreign, str, int], layers.BatchNorm]


def convert(foreign: Foreign, naming: Naming) -> Converted:
    """Return architecture, specification and tensors that compute the same function in evaluation.

    Raises:
        CheckpointError: a tensor is missing, too many or of another shape, or no architecture has this network.
    """
    layout = naming.layout(foreign)
    widths = _widths(foreign, naming, layout)
    arch, spec = _recognised(foreign, naming, layout, widths)
    state: dict[str, Tensor] = {}
    state |= layers.normed_tensors("linear", _linear(foreign, naming, spec, widths[0]))
    carried = torch.zeros(widths[0], dtype=torch.float64)
    """Constant that a block adds at every position for the attention before it."""
    for i, (inner, outer) in enumerate(pairwise(widths)):
        prefix = layout.blocks[i]

        def conv(part: str, o: int, c: int, side: int, prefix: str = prefix) -> layers.Normed:
            return naming.spectral(foreign, prefix + naming.block[part], (o, c, side, side), bias=True)

        def norm(part: str, channels: int, prefix: str = prefix) -> layers.BatchNorm:
            return naming.norm(foreign, prefix + naming.block[part], spec.num_classes, channels)

        norm0, shortcut, conv1 = norm("norm0", inner), conv("shortcut", outer, inner, 1), conv("conv1", outer, outer, 3)
        norm0 = replace(norm0, mean=norm0.mean - carried)
        shortcut = _shifted(shortcut, shortcut.bar().flatten(1) @ carried)
        carried = torch.zeros(outer, dtype=torch.float64)
        if i + 1 in layout.attention:
            side = f"attention.{4 << (i + 1)}"
            tensors, before, carried = _attention(foreign, naming, layout.attention[i + 1], outer)
            conv1 = _shifted(conv1, before)
            state |= {f"{side}.{name}": tensor for name, tensor in tensors.items()}
        own = f"blocks.{i}"
        for part, layer in (("conv0", conv("conv0", outer, inner, 3)), ("conv1", conv1), ("shortcut", shortcut)):
            state |= layers.normed_tensors(f"{own}.{part}", layer)
        state |= layers.batch_norm_tensors(f"{own}.norm0", norm0) | layers.batch_norm_tensors(
            f"{own}.norm1", norm("norm1", outer)
        )
    state |= layers.batch_norm_tensors("norm", naming.final_norm(foreign, naming.last_norm, widths[-1]))
    state |= layers.normed_tensors(
        "to_image", naming.spectral(foreign, naming.to_image, (3, widths[-1], 3, 3), bias=True)
    )
    foreign.finish()
    return Converted(arch, spec, state)


def _recognised(foreign: Foreign, naming: Naming, layout: Layout, widths: list[int]) -> tuple[str, ModelSpec]:
    """Return the architecture with these channels, and its specification."""
    stages, weight = len(layout.blocks), f"{naming.linear}.{naming.weight}"
    rows, latent = foreign.shape(weight, 2)
    if rows != widths[0] * 16:
        raise foreign.refuse(weight, f"{rows} rows do not make a 4x4 grid of {widths[0]} channels")
    side, last = 4 << stages, widths[-1]
    released = [channels_at(last, stages - i) for i in range(stages + 1)]
    if widths == released:
        arch, base = "sagan", last
    elif len(set(widths)) == 1 and last % CIFAR_MULTIPLIER == 0:
        arch, base = "sagan-cifar", last // CIFAR_MULTIPLIER
    else:
        raise foreign.refuse(
            layout.blocks[0].rstrip("."),
            f"from here up {_listed(widths)} channels at {side} pixels; 'sagan' has {_listed(released)}, 'sagan-cifar' "
            "the same number on every map",
        )
    sides = tuple(sorted(4 << after for after in layout.attention))
    legal = geometry(side, side).attention_sites() if stages >= MIN_STAGES else {}
    if set(sides) - legal.keys():
        raise foreign.refuse(
            layout.blocks[0].rstrip("."), f"{stages} blocks, attention at {sides}: no architecture of sagan"
        )
    classes = naming.classes(foreign, layout.blocks[0] + naming.block["norm0"])
    return arch, ModelSpec(side, side, num_classes=classes, latent=latent, base_width=base, attn_at=sides)


def _widths(foreign: Foreign, naming: Naming, layout: Layout) -> list[int]:
    """Return the channels from the 4x4 feature map up, from the shortcuts; other tensors are checked against them."""
    names = [f"{prefix}{naming.block['shortcut']}.{naming.weight}" for prefix in layout.blocks]
    shapes = [foreign.shape(name, 4) for name in names]
    return [shapes[0][1], *(shape[0] for shape in shapes)]


def _linear(foreign: Foreign, naming: Naming, spec: ModelSpec, width: int) -> layers.Normed:
    """Return the first layer, its rows reordered from (C, 4, 4) to (4, 4, C)."""
    layer = naming.spectral(foreign, naming.linear, (width * 16, spec.latent), bias=True)

    def turned(rows: Tensor) -> Tensor:
        return rows.reshape(width, 16, -1).transpose(0, 1).reshape(rows.shape)

    assert layer.bias is not None
    return replace(layer, weight=turned(layer.weight), bias=turned(layer.bias), u=turned(layer.u))


def _attention(
    foreign: Foreign, naming: Naming, prefix: str, width: int
) -> tuple[dict[str, Tensor], Tensor, Tensor]:  # fmt: skip
    """Return the tensors of attention, and the constants to add before and after it."""
    inner, half = max(width // 8, 1), max(width // 2, 1)
    shapes = {
        "query": (inner, width), "key": (inner, width), "value": (half, width), "output": (width, half),
    }  # fmt: skip
    read = {
        part: naming.spectral(foreign, prefix + naming.attention[part], (*shape, 1, 1), bias=naming.attention_bias)
        for part, shape in shapes.items()
    }
    name = prefix + naming.attention["gamma"]
    gamma = foreign.take(name, *((1,) if foreign.dimensions(name) else ())).reshape(())
    before = after = torch.zeros(width, dtype=torch.float64)
    if naming.attention_bias:
        bias = f"{prefix}{naming.attention['query']}.bias"
        before, after = layers.folded_biases(
            foreign, bias, read["query"], read["value"], read["output"], gamma
        )  # fmt: skip
    state = {"gamma": gamma}
    for part, layer in read.items():
        state |= layers.normed_tensors(part, replace(layer, bias=None))
    return state, before, after


def _shifted(layer: layers.Normed, by: Tensor) -> layers.Normed:
    assert layer.bias is not None
    return replace(layer, bias=layer.bias + by)


def _listed(widths: list[int]) -> str:
    return ", ".join(map(str, widths))
