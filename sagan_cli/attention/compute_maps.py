"""Run the networks of a checkpoint and record their attention maps, for images from seeds or for given images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sagan_cli.contracts import ModelSpec
from sagan_cli.engine import checkpoint, networks
from sagan_cli.engine.attention_maps import LayerMaps, attention_layers, record_maps
from sagan_cli.engine.runtime import Runtime
from sagan_cli.engine.sample import Request, Sampler, group_of, latents, ready, to_uint8
from sagan_cli.errors import CheckpointError, SaganError
from sagan_cli.generators import open_found

MAX_BYTES = 4 * 2**30
"""Limit of the maps of one checkpoint; a clear error is better than a machine that swaps."""

Tick = Callable[[int], object]
LayerNames = Mapping[str, Collection[str]]
"""Names of layers by network: {"G": ["32"], "D": []}."""


@dataclass(frozen=True)
class CheckpointNetworks:
    """The two networks of a checkpoint, in evaluation mode."""

    sampler: Sampler
    discriminator: nn.Module | None
    """With its trained weights, as it has no EMA; None before `with_discriminator`."""

    def network(self, letter: str) -> nn.Module:
        """Return `G` or `D`."""
        network = self.sampler.generator if letter == "G" else self.discriminator
        assert network is not None, "call with_discriminator first"
        return network

    def layers(self, letter: str) -> Mapping[str, nn.Module]:
        """Return the attention layers of G or D in the order of the forward pass.

        Raises:
            SaganError: it declares none, or one without maps.
        """
        return attention_layers(self.network(letter))

    def has_layers(self, letter: str) -> bool:
        """Return whether G or D declares any attention layer."""
        network = self.sampler.generator if letter == "G" else self.discriminator
        return bool(getattr(network, "attention_layers", dict)())


@dataclass(frozen=True)
class RecordedMaps:
    """B images, and the maps of the chosen layers on them."""

    images: NDArray[np.uint8]
    """(B, H, W, C)."""
    labels: NDArray[np.int64]
    """(B,); -1 where the model has no classes."""
    layers: tuple[tuple[str, LayerMaps], ...]
    """`G` or `D`, and the layer: G's first, in the order of the forward pass."""


def open_generator(path: Path, runtime: Runtime, *, raw: bool = False) -> CheckpointNetworks:
    """Load the generator of a checkpoint directory or an exported file, without D.

    Raises:
        UsageError: `raw`, but the file holds the EMA weights only.
        CheckpointError: damaged, of another format, or of an architecture that is not installed.
    """
    return CheckpointNetworks(open_found(path, runtime, raw=raw), None)


def with_discriminator(pair: CheckpointNetworks, runtime: Runtime) -> CheckpointNetworks:
    """Load D from the checkpoint's training state as well.

    Raises:
        CheckpointError: that file is missing or damaged, or the generator is from an exported file.
    """
    stored = pair.sampler.facts
    if not stored.path.is_dir():
        raise CheckpointError(f"{stored.path}: holds the generator only; name a run or checkpoint to show layers of D")
    tensors = checkpoint.load_tensors(stored, checkpoint.STATE, ("discriminator",))
    with torch.random.fork_rng(devices=[]):
        _, d = networks.build(stored.arch, stored.spec)
    checkpoint.load_module(d, tensors, "discriminator", stored.path)
    return replace(pair, discriminator=ready(d, runtime.device))


def maps_of_seeds(
    pair: CheckpointNetworks, requests: Sequence[Request], chosen: LayerNames, runtime: Runtime, tick: Tick
) -> RecordedMaps:
    """Record G's layers while it generates the requested images, and D's layers on these images.

    The images equal those of `sagan sample` to the byte. D gets G's output in floating point, as in training; a saved
    image differs from it by rounding to 8 bits.

    Raises:
        SaganError: the output is not finite, or the maps exceed MAX_BYTES.
    """
    z, y = latents(requests, pair.sampler.spec, None)
    recorder = _Recorder(len(requests))
    with torch.inference_mode(), runtime.autocast():
        for part, own_z, own_y in _groups(z, y, pair.sampler.spec, runtime):
            with record_maps(pair.sampler.generator, chosen["G"]) as seen:
                x = pair.sampler.generator(own_z, own_y)
            if not torch.isfinite(x).all():
                raise SaganError(
                    "the generator's output is not a number: its training diverged; use an earlier checkpoint"
                )
            recorder.images.append(to_uint8(x)[:part])
            recorder.add("G", seen, part)
            if chosen["D"]:
                with record_maps(pair.network("D"), chosen["D"]) as seen:
                    pair.network("D")(x, own_y)
                recorder.add("D", seen, part)
            tick(part)
    return recorder.result(np.full(len(requests), -1) if y is None else y.numpy())


def maps_of_images(
    pair: CheckpointNetworks,
    images: NDArray[np.uint8],
    label: int,
    names: Collection[str],
    runtime: Runtime,
    tick: Tick,
) -> RecordedMaps:
    """Record D's layers on images uint8 (B, H, W, C) of the network's size, all with class `label`.

    Raises:
        SaganError: the maps exceed MAX_BYTES.
    """
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    y = torch.full((len(x),), label) if pair.sampler.spec.num_classes else None
    recorder = _Recorder(len(x))
    recorder.images.append(images)
    with torch.inference_mode(), runtime.autocast():
        for part, own_x, own_y in _groups(x, y, pair.sampler.spec, runtime):
            with record_maps(pair.network("D"), names) as seen:
                pair.network("D")(own_x, own_y)
            recorder.add("D", seen, part)
            tick(part)
    return recorder.result(np.full(len(x), -1) if y is None else y.numpy())


def label_changes_maps(
    pair: CheckpointNetworks, image: NDArray[np.uint8], names: Collection[str], runtime: Runtime
) -> bool:
    """Return whether D's maps on one image (H, W, C) depend on the class; those of a projection D do not."""
    if pair.sampler.spec.num_classes < 2:
        return False
    one, other = (maps_of_images(pair, image[None], label, names, runtime, lambda _: None) for label in (0, 1))
    return any(not torch.equal(a.maps, b.maps) for (_, a), (_, b) in zip(one.layers, other.layers, strict=True))


class _Recorder:
    """Collects the maps of all groups."""

    def __init__(self, total: int) -> None:
        self.images: list[NDArray[np.uint8]] = []
        self._total = total
        self._layers: dict[tuple[str, str], list[LayerMaps]] = {}

    def add(self, letter: str, seen: Mapping[str, LayerMaps], part: int) -> None:
        """Add the first `part` images of a group; the rest is padding.

        Raises:
            SaganError: all groups together would exceed MAX_BYTES.
        """
        for name, layer in seen.items():
            cut = replace(layer, maps=layer.maps[:part], strength=layer.strength[:part])
            self._layers.setdefault((letter, name), []).append(cut)
        size = sum(parts[0].maps[0].nbytes for parts in self._layers.values()) * self._total
        if size > MAX_BYTES:
            raise SaganError(
                f"{self._total} images: their attention maps would take {size / 2**30:.1f} GiB: take fewer images, "
                "or choose one --layer"
            )

    def result(self, labels: NDArray[np.int64]) -> RecordedMaps:
        """Join the groups; layers are in the order of their first call, so G's are before D's."""
        layers = tuple((letter, _joined(parts)) for (letter, _), parts in self._layers.items())
        return RecordedMaps(np.concatenate(self.images), labels, layers)


def _groups(
    x: Tensor, y: Tensor | None, spec: ModelSpec, runtime: Runtime
) -> Iterator[tuple[int, Tensor, Tensor | None]]:
    """Yield the groups of `sagan sample`: their size, and a batch on the device, padded to the full size."""
    group = group_of(spec, runtime.device)
    for start in range(0, len(x), group):
        part = x[start : start + group]
        spare = group - len(part)
        own_y = None if y is None else F.pad(y[start : start + group], (0, spare)).to(runtime.device)
        padded = F.pad(part, (0,) * (2 * (part.dim() - 1)) + (0, spare)).to(runtime.device)
        yield len(part), padded, own_y


def _joined(parts: Sequence[LayerMaps]) -> LayerMaps:
    maps, strength = torch.cat([p.maps for p in parts]), torch.cat([p.strength for p in parts])
    return replace(parts[0], maps=maps, strength=strength)
