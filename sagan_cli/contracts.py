"""What a data set and an architecture must offer: the whole agreement between the core and its plugins.

Built-ins keep it too, and `sagan_cli.testing` checks it. This file imports no torch and no numpy.

A `sagan.datasets` entry point names a `DatasetFactory`, a `sagan.architectures` one an `ArchitectureFactory`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

API_VERSION = 1
"""The contract's version; a plugin module may declare `SAGAN_PLUGIN_API = 1` to be refused by a core that moved on."""


@runtime_checkable
class Dataset(Protocol):
    """Numbered pictures, read one at a time while they are packed; training itself never calls `read`.

    It must survive pickling, because packing sends it to worker processes.
    """

    class_names: Sequence[str]
    """One name per label; empty when the pictures carry no labels."""

    def __len__(self) -> int: ...

    def fingerprint(self) -> str:
        """A short text that differs whenever any picture, label or their order differs; it keys the packed cache."""
        ...

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Picture `index` as uint8, shape (H, W) or (H, W, C) with C in 1, 3, 4, any H, W; and its label (0 if none).

        Raises:
            BadImage: this picture cannot be read; it is skipped, counted and listed.
        """
        ...


class DatasetFactory(Protocol):
    """Opens a data set by name.

    `root` is `--data-root` (files may live there), `split` is "train" or "test", and `height` x `width` is the size
    that training will use: a set that is drawn, not read, can draw at that size at once. The core crops and resizes
    whatever comes back.

    A factory may carry the attribute `native_size`, the side in pixels that `--size` defaults to for this data set, or
    (height, width), and `structure`, a function uint8 (N, H, W, 3) -> bool (N,) that tells which pictures are built
    right: `sagan eval-fid` then reports their share.
    """

    def __call__(self, root: Path, *, split: str, height: int, width: int) -> Dataset: ...


@dataclass(frozen=True)
class ModelSpec:
    """The shape of a generator/discriminator pair: all that an architecture factory is told."""

    height: int
    width: int
    channels: int = 3
    num_classes: int = 0
    """0 is unconditional."""
    latent: int = 128
    """Length of the latent vector z ~ N(0, 1)."""
    base_width: int = 64
    """Channels at full resolution; the paper's `ch`."""
    attn_at: tuple[int, ...] = (32,)
    """Feature maps with self-attention, each named by its longer side; () is the twin without attention."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """An architecture's own settings, from `--set model.options.key=value`."""


class ArchitectureFactory(Protocol):
    """Builds the two networks, freshly initialised from torch's default generator.

    generator(z, y)      z (N, latent) float, y (N,) int64 or None -> pictures (N, C, H, W) in [-1, 1]
    discriminator(x, y)  the same pictures and labels -> logits (N,)

    A network may offer `attention_layers() -> dict[str, nn.Module]`, by which attention is logged and drawn; a
    network without it simply has none. To be drawn, such a layer takes and returns a feature map (B, C, H, W) and has
    a method `maps(x) -> (B, N, M)`, the attention of the N = H W positions to M keys, whose rows sum to 1; keys that
    lie on another grid than (H / s, W / s) are told by a method `key_grid(H, W)`.

    A discriminator with the attribute `batches_apart = True` sees real and fake pictures in passes of their own, which
    batch norm in it needs; others see both in one.

    Modules with a method `advance_()` have it called once per optimiser step of their network, before the forward pass
    (spectral norm's power iteration lives there). Norms that carry `running_mean` and `momentum`, as PyTorch's do,
    have their statistics measured anew on the averaged weights.

    A factory may carry `settled`, a function (spec, *, auto: bool) -> ModelSpec that is asked once, when a run begins,
    where attention stands: with `auto`, `--attn-at` was left open, and `spec.attn_at` is what `sagan` would do; else it
    is what was said. What it returns is recorded and built, so it may name other maps, none (), or add an option.
    Without it, `auto` is what it is for `sagan`. It is not asked about networks that are there already.
    """

    def __call__(self, spec: ModelSpec) -> tuple[nn.Module, nn.Module]: ...
