"""What a checkpoint's networks look at: on pictures that G draws from seeds, or on the user's own through D."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sagan_cli.attention.maps import LayerMaps, attending, attention_layers
from sagan_cli.contracts import ModelSpec
from sagan_cli.engine import checkpoint, networks
from sagan_cli.engine.runtime import Runtime
from sagan_cli.engine.sample import Request, Sampler, group_of, latents, load, ready, to_uint8
from sagan_cli.errors import SaganError

MOST_BYTES = 4 * 2**30
"""What the maps of one checkpoint may take; beyond it a smaller machine would swap before it complains."""

Tick = Callable[[int], object]


@dataclass(frozen=True)
class Pair:
    """The two networks of a checkpoint, ready to be watched."""

    sampler: Sampler
    discriminator: nn.Module | None
    """As it was trained (it has no moving average); None where it was not asked for."""

    def network(self, letter: str) -> nn.Module:
        """`G` or `D`."""
        network = self.sampler.generator if letter == "G" else self.discriminator
        assert network is not None, "with_discriminator comes first"
        return network

    def layers(self, letter: str) -> Mapping[str, nn.Module]:
        """The attention layers of G or D, in the order in which a picture meets them.

        Raises:
            SaganError: it declares none, or one that shows no maps.
        """
        return attention_layers(self.network(letter))

    def has_layers(self, letter: str) -> bool:
        """Whether G or D declares any."""
        network = self.sampler.generator if letter == "G" else self.discriminator
        return bool(getattr(network, "attention_layers", dict)())


@dataclass(frozen=True)
class Sight:
    """B pictures, and what the chosen layers did on them."""

    pictures: NDArray[np.uint8]
    """(B, H, W, C)."""
    labels: NDArray[np.int64]
    """(B,); -1 where the model has no classes."""
    layers: tuple[tuple[str, LayerMaps], ...]
    """`G` or `D`, and the layer: G's first, each network's in its own order."""


Chosen = Mapping[str, Collection[str]]
"""Names of layers by network: {"G": ["32"], "D": []}."""


def open_pair(path: Path, runtime: Runtime, *, raw: bool = False) -> Pair:
    """The generator of a checkpoint directory, D still missing.

    Raises:
        CheckpointError: damaged, of another format, or of an architecture that is not there.
    """
    return Pair(load(path, runtime, raw=raw), None)


def with_discriminator(pair: Pair, runtime: Runtime) -> Pair:
    """The same with D, from the checkpoint's training state.

    Raises:
        CheckpointError: that file is missing or damaged.
    """
    facts = pair.sampler.facts
    tensors = checkpoint.load_tensors(facts, checkpoint.STATE, ("discriminator",))
    with torch.random.fork_rng(devices=[]):
        _, d = networks.build(facts.arch, facts.spec)
    checkpoint.load_module(d, tensors, "discriminator", facts.path)
    return replace(pair, discriminator=ready(d, runtime.device))


def of_seeds(pair: Pair, requests: Sequence[Request], chosen: Chosen, runtime: Runtime, tick: Tick) -> Sight:
    """G's layers while it draws the requests, and D's on what G drew.

    The pictures are the bytes of `sagan sample`. D is shown G's output as it is, in floating point, as in training;
    a picture that was saved and is read again differs from it by rounding to 1/255.

    Raises:
        SaganError: the output is not a number, or the maps would not fit in memory.
    """
    z, y = latents(requests, pair.sampler.spec, None)
    found = _Collected(len(requests))
    with torch.inference_mode(), runtime.autocast():
        for part, own_z, own_y in _groups(z, y, pair.sampler.spec, runtime):
            with attending(pair.sampler.generator, chosen["G"]) as seen:
                x = pair.sampler.generator(own_z, own_y)
            if not torch.isfinite(x).all():
                raise SaganError(
                    "the generator's output is not a number: its training diverged; use an earlier checkpoint"
                )
            found.pictures.append(to_uint8(x)[:part])
            found.add("G", seen, part)
            if chosen["D"]:
                with attending(pair.network("D"), chosen["D"]) as seen:
                    pair.network("D")(x, own_y)
                found.add("D", seen, part)
            tick(part)
    return found.sight(np.full(len(requests), -1) if y is None else y.numpy())


def of_pictures(
    pair: Pair, pictures: NDArray[np.uint8], label: int, names: Collection[str], runtime: Runtime, tick: Tick
) -> Sight:
    """D's layers on pictures uint8 (B, H, W, C) of the network's size, each said to be of class `label`.

    Raises:
        SaganError: the maps would not fit in memory.
    """
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    y = torch.full((len(x),), label) if pair.sampler.spec.num_classes else None
    found = _Collected(len(x))
    found.pictures.append(pictures)
    with torch.inference_mode(), runtime.autocast():
        for part, own_x, own_y in _groups(x, y, pair.sampler.spec, runtime):
            with attending(pair.network("D"), names) as seen:
                pair.network("D")(own_x, own_y)
            found.add("D", seen, part)
            tick(part)
    return found.sight(np.full(len(x), -1) if y is None else y.numpy())


def label_matters(pair: Pair, picture: NDArray[np.uint8], names: Collection[str], runtime: Runtime) -> bool:
    """Whether D's maps on one picture (H, W, C) change with the class it is told: a projection D's do not."""
    if pair.sampler.spec.num_classes < 2:
        return False
    one, other = (of_pictures(pair, picture[None], label, names, runtime, lambda _: None) for label in (0, 1))
    return any(not torch.equal(a.maps, b.maps) for (_, a), (_, b) in zip(one.layers, other.layers, strict=True))


class _Collected:
    """The groups' parts, as they come."""

    def __init__(self, total: int) -> None:
        self.pictures: list[NDArray[np.uint8]] = []
        self._total = total
        self._layers: dict[tuple[str, str], list[LayerMaps]] = {}

    def add(self, letter: str, seen: Mapping[str, LayerMaps], part: int) -> None:
        """The first `part` pictures of one group, the rest having been filled up.

        Raises:
            SaganError: all groups together would take more than MOST_BYTES.
        """
        for name, layer in seen.items():
            self._layers.setdefault((letter, name), []).append(_cut(layer, part))
        size = sum(parts[0].maps[0].nbytes for parts in self._layers.values()) * self._total
        if size > MOST_BYTES:
            raise SaganError(
                f"{self._total} pictures: their attention maps would take {size / 2**30:.1f} GiB: take fewer pictures, "
                "or choose one --layer"
            )

    def sight(self, labels: NDArray[np.int64]) -> Sight:
        """All of it; layers in the order in which the pictures met them, which puts G's before D's."""
        layers = tuple((letter, _joined(parts)) for (letter, _), parts in self._layers.items())
        return Sight(np.concatenate(self.pictures), labels, layers)


def _groups(
    x: Tensor, y: Tensor | None, spec: ModelSpec, runtime: Runtime
) -> Iterator[tuple[int, Tensor, Tensor | None]]:
    """Rows in the same groups as `sagan sample` computes: their count, and a full group on the device."""
    group = group_of(spec, runtime.device)
    for start in range(0, len(x), group):
        part = x[start : start + group]
        spare = group - len(part)
        own_y = None if y is None else F.pad(y[start : start + group], (0, spare)).to(runtime.device)
        padded = F.pad(part, (0,) * (2 * (part.dim() - 1)) + (0, spare)).to(runtime.device)
        yield len(part), padded, own_y


def _cut(layer: LayerMaps, part: int) -> LayerMaps:
    return LayerMaps(
        layer.name, layer.maps[:part], layer.query_grid, layer.key_grid, layer.gamma, layer.strength[:part]
    )


def _joined(parts: Sequence[LayerMaps]) -> LayerMaps:
    maps, strength = torch.cat([p.maps for p in parts]), torch.cat([p.strength for p in parts])
    first = parts[0]
    return LayerMaps(first.name, maps, first.query_grid, first.key_grid, first.gamma, strength)
