"""Proof that an extractor measures what it should on this machine, before its first score is believed.

Four findings, each of which a lost resize, wrong weights, a network left in training mode or broken arithmetic would
change: a known picture gives the features that it gave before, pictures measured in another order and other batches
give the same features, two halves of the real pictures are no further apart than chance puts them, and noise is far
from them. A passed check is remembered per weights, device and library version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sagan_cli.errors import SaganError
from sagan_cli.evaluation.extractors.extractor import Extractor
from sagan_cli.evaluation.extractors.known_inception import difference, known_tensor
from sagan_cli.evaluation.metrics.scores import kid
from sagan_cli.files import write_atomic

VARIABLE = "SAGAN_SELF_CHECK"
PICTURES = 64
"""Real pictures looked at: two halves of 32."""
FEWEST = 16
"""With fewer, the halves say nothing and are left out."""
TOLERANCE = 1e-3
"""Relative difference of features that other batches, threads and library versions may cause."""
SPLITS = 10
FLOOR = 0.2
"""Largest share of the distance to noise that two halves of real pictures may be apart."""


@dataclass(frozen=True)
class Finding:
    """What a passed check found, for the record and for curious people."""

    known_tensor: float
    """Relative difference of the known picture's features to the stored ones; 0 the first time."""
    order: float
    """Largest relative difference of features in another order and other batches."""
    floor: float | None
    """KID of two halves of the real pictures over the KID of real pictures against noise; None with few pictures."""


def self_check(
    extractor: Extractor, real: Callable[[int], Tensor], folder: Path, notify: Callable[[str], None]
) -> Finding | None:
    """Check an extractor once per machine; None where that has been done.

    Args:
        real: asked for at most so many real pictures, uint8 (n, 3, H, W); not asked where the check was passed before.
        folder: where passed checks are remembered.

    Raises:
        SaganError: a finding that must not be; no score can be believed.
    """
    marker = folder / f"{_key(extractor)}.json"
    if marker.is_file():
        return None
    notify(f"checking the extractor {extractor.name} on this machine (once)")
    if extractor.inception is not None and (wrong := difference(extractor.inception)) > TOLERANCE:
        raise _failed(extractor, f"with known weights it gives other features than it should (by {wrong:.2g})")
    layer = extractor.layers["fid"]
    pictures = real(PICTURES)
    finding = Finding(
        _known(extractor, layer, folder), _order(extractor, layer, pictures), _floor(extractor, layer, pictures)
    )
    text = json.dumps({"extractor": extractor.name, "weights_sha256": extractor.digest, **vars(finding)}, indent=1)
    write_atomic(marker, text.encode() + b"\n")
    return finding


def _known(extractor: Extractor, layer: str, folder: Path) -> float:
    """The known picture's features against those that these weights gave the first time, on any device or version."""
    features = extractor(known_tensor(), (layer,))[layer].double()
    if not torch.isfinite(features).all() or float(features.std()) == 0.0:
        raise _failed(extractor, "the features of a known picture are all alike or not finite: wrong weights")
    file = folder / f"known-{extractor.name}-{extractor.digest[:16]}.json"
    if not file.is_file():
        write_atomic(file, json.dumps({"layer": layer, "features": features.tolist()}).encode())
        return 0.0
    stored = torch.tensor(json.loads(file.read_text(encoding="utf-8"))["features"], dtype=torch.float64)
    return _agree(extractor, features, stored, f"a known picture gives other features than before (see {file})")


def _order(extractor: Extractor, layer: str, pictures: Tensor) -> float:
    """Feature i depends on picture i alone: not on its neighbours, its place or the size of its batch."""
    plain = torch.cat([extractor(part, (layer,))[layer] for part in torch.split(pictures, 16)]).double()
    order = torch.arange(len(pictures)).flip(0)
    other = torch.cat([extractor(part, (layer,))[layer] for part in torch.split(pictures[order], 7)]).double()
    wrong = "features change with the order of the pictures: the network is not in evaluation mode"
    return _agree(extractor, other[order], plain, wrong)


def _floor(extractor: Extractor, layer: str, pictures: Tensor) -> float | None:
    """Real against real, in units of real against noise, by the unbiased kernel distance, whose floor is 0."""
    count = len(pictures) // 2
    if 2 * count < FEWEST:
        return None
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.integers(0, 256, (count, *pictures.shape[1:]), dtype=np.uint8))
    real, other = (extractor(part, (layer,))[layer].numpy() for part in (pictures, noise))
    splits = [rng.permutation(2 * count) for _ in range(SPLITS)]
    halves, far = (
        np.array([kid(real[s[:count]], to(s), subsets=1, subset_size=count).value for s in splits])
        for to in (lambda s: real[s[count:]], lambda s: other)
    )
    floor, scatter, distance = float(halves.mean()), float(halves.std()), float(far.mean())
    if not distance > max(2 * scatter, abs(floor) / FLOOR):
        raise _failed(
            extractor,
            f"two halves of the real pictures are {floor:.2g} +- {scatter:.2g} apart (KID), and noise is no more than "
            f"{distance:.2g} away: wrong weights, a lost resize, or pictures that are noise",
        )
    return floor / distance


def _agree(extractor: Extractor, found: Tensor, expected: Tensor, wrong: str) -> float:
    if found.shape != expected.shape:
        raise _failed(extractor, wrong)
    difference = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    if not difference <= TOLERANCE:
        raise _failed(extractor, f"{wrong}; relative difference {difference:.2g}")
    return difference


def _failed(extractor: Extractor, reason: str) -> SaganError:
    return SaganError(
        f"self-check of the extractor {extractor.name}: {reason}; no score of it can be believed "
        f"({VARIABLE}=skip scores all the same, and the record says so)"
    )


def _key(extractor: Extractor) -> str:
    versions = [metadata.version(name) for name in ("torch", "torch-fidelity")]
    parts: list[Any] = [1, extractor.name, extractor.digest, extractor.device.type, extractor.resize, versions]
    return "passed-" + hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
