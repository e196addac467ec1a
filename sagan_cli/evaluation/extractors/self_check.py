"""Self-check of an extractor on this machine, before its first score.

Four tests detect a missing resize, wrong weights, a network in training mode or broken arithmetic: a known image gives
the same features as before; images in another order and other batches give the same features; two halves of the real
images are as close as expected by chance; noise is far from them. A passed check is stored per weights, device and
library versions.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sagan_cli.errors import SaganError
from sagan_cli.evaluation.extractors.extractor import Extractor, three_channels
from sagan_cli.evaluation.features import ImageSet, next_batch
from sagan_cli.evaluation.metrics.kid import kid
from sagan_cli.files import write_atomic

VARIABLE = "SAGAN_SELF_CHECK"
IMAGES = 64
"""Number of real images: two halves of 32."""
FEWEST = 16
"""With fewer images, the halves are not compared."""
TOLERANCE = 1e-3
"""Relative difference of features that other batches, threads and library versions may cause."""
SPLITS = 10
FLOOR = 0.2
"""Largest distance of two halves of real images, as a share of the distance to noise."""
KNOWN_INDICES = tuple(range(0, 2048, 128))
"""Features that are compared, of the 2,048."""
KNOWN_FEATURES = (
    (0.14781, 0.0966854, 0.192677, 0.281178, 0.085064, 0.27935, 0.15549, 0.31959,
     0.372913, 0.319569, 0.201855, 0.151334, 0.28258, 0.0961442, 0.285056, 0.0384449),
    (0.195167, 0.0607282, 0.0627209, 0.265736, 0.103309, 0.353426, 0.0639056, 0.251886,
     0.166164, 0.249133, 0.125887, 0.150898, 0.582132, 0.0433627, 0.181269, 0.226849),
)  # fmt: skip
"""Features of the two images of `known_images`, computed by torch-fidelity 0.4.0 on a CPU:

    python tests/support/inception_weights.py --known
"""


@dataclass(frozen=True)
class Finding:
    """Measurements of a passed check, for the record."""

    known_images: float
    """Relative difference of the known images' features to the stored ones; 0 the first time."""
    order: float
    """Largest relative difference of features in another order and other batches."""
    floor: float | None
    """KID of two halves of the real images divided by the KID of real images and noise; None with few images."""


def self_check(
    extractor: Extractor, real: Callable[[int], Tensor], folder: Path, notify: Callable[[str], None]
) -> Finding | None:
    """Check an extractor once per machine; return None if the check was passed before.

    Args:
        real: returns at most the given number of real images, uint8 (n, 3, H, W); called only if the check runs.
        folder: directory of passed checks.

    Raises:
        SaganError: a test failed.
    """
    marker = folder / extractor.passed_check
    if marker.is_file():
        return None
    notify(f"checking the extractor {extractor.name} on this machine (once)")
    if extractor.inception is not None and (wrong := inception_difference(extractor.inception)) > TOLERANCE:
        raise _failed(extractor, f"with known weights its features are wrong (relative difference {wrong:.2g})")
    layer = extractor.layers["fid"]
    images = real(IMAGES)
    finding = Finding(
        _known(extractor, layer, folder), _order(extractor, layer, images), _floor(extractor, layer, images)
    )
    text = json.dumps({"extractor": extractor.name, "weights_sha256": extractor.digest, **vars(finding)}, indent=1)
    write_atomic(marker, text.encode() + b"\n")
    return finding


def _known(extractor: Extractor, layer: str, folder: Path) -> float:
    """Compare the features of the known images with the stored ones, also of other devices and versions."""
    features = extractor(known_images(), (layer,))[layer].double()
    if not torch.isfinite(features).all() or float(features.std()) == 0.0:
        raise _failed(extractor, "the features of a known image are all equal or not finite: wrong weights")
    file = folder / f"known-{extractor.name}-{extractor.digest[:16]}.json"
    if not file.is_file():
        write_atomic(file, json.dumps({"layer": layer, "features": features.tolist()}).encode())
        return 0.0
    stored = torch.tensor(json.loads(file.read_text(encoding="utf-8"))["features"], dtype=torch.float64)
    return _agree(extractor, features, stored, f"a known image gives other features than before (see {file})")


def _order(extractor: Extractor, layer: str, images: Tensor) -> float:
    """Check that the features of an image depend only on the image, not on its batch or position."""
    plain = torch.cat([extractor(part, (layer,))[layer] for part in torch.split(images, 16)]).double()
    order = torch.arange(len(images)).flip(0)
    other = torch.cat([extractor(part, (layer,))[layer] for part in torch.split(images[order], 7)]).double()
    wrong = "features change with the order of the images: the network is not in evaluation mode"
    return _agree(extractor, other[order], plain, wrong)


def _floor(extractor: Extractor, layer: str, images: Tensor) -> float | None:
    """Return the KID of two halves of the real images (0 on average) divided by that of real images and noise."""
    count = len(images) // 2
    if 2 * count < FEWEST:
        return None
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.integers(0, 256, (count, *images.shape[1:]), dtype=np.uint8))
    real, other = (extractor(part, (layer,))[layer].numpy() for part in (images, noise))
    splits = [rng.permutation(2 * count) for _ in range(SPLITS)]
    halves, far = (
        np.array([kid(real[s[:count]], to(s), subsets=1, subset_size=count).value for s in splits])
        for to in (lambda s: real[s[count:]], lambda s: other)
    )
    floor, scatter, distance = float(halves.mean()), float(halves.std()), float(far.mean())
    if not distance > max(2 * scatter, abs(floor) / FLOOR):
        raise _failed(
            extractor,
            f"two halves of the real images have a KID of {floor:.2g} +- {scatter:.2g}, and noise only one of "
            f"{distance:.2g}: wrong weights, a missing resize, or images that are noise",
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
        f"self-check of the extractor {extractor.name}: {reason}; its scores would be wrong "
        f"({VARIABLE}=skip scores without the check, which the record notes)"
    )


def sample_images(images: ImageSet, limit: int) -> Tensor:
    """Up to `limit` images, evenly spaced, of the size of the first; uint8 (n, 3, H, W)."""
    chosen = np.unique(np.linspace(0, len(images) - 1, min(limit, len(images))).astype(np.int64))
    found = [three_channels(part) for part in next_batch(images.batches(limit, chosen), len(chosen))]
    return torch.cat([part for part in found if part.shape[1:] == found[0].shape[1:]])


def known_weight_features(inception: nn.Module) -> Tensor:
    """Return the features at `KNOWN_INDICES` of the two known images with known weights, float32 (2, 16).

    The published weights are not part of this package. Resizing and arithmetic are therefore checked with weights from
    integer arithmetic (splitmix64, Steele et al. 2014), which are the same on every machine. They are set in a copy of
    the network, with its class, resizing and device.
    """
    network: Any = copy.deepcopy(inception)
    first = 0
    for name, tensor in sorted(network.state_dict().items()):
        if tensor.dim() > 1:
            rows = _uniform(first, tensor.numel()).reshape(len(tensor), -1)
            first += tensor.numel()
            # Filters sum to zero: otherwise the common part of all images dominates their differences.
            rows = (rows - rows.mean(axis=1, keepdims=True)) * (3 / np.sqrt(rows.shape[1]))
            tensor.copy_(torch.from_numpy(rows.astype(np.float32).reshape(tensor.shape)))
        else:
            tensor.fill_(1 if name.endswith(("bn.weight", "running_var")) else 0)
    network.features_list = ["2048"]
    device = next(network.parameters()).device
    with torch.inference_mode():
        (features,) = network(known_images().to(device))
    found: Tensor = features[:, list(KNOWN_INDICES)].float().cpu()
    return found


def known_images() -> Tensor:
    """Return two fixed images, uint8 (2, 3, 40, 56): ramps, and a chequerboard over them."""
    y, x = np.mgrid[0:40, 0:56]
    ramps = np.stack([x * 4, y * 6, (x + y) * 2])
    board = np.where((x // 5 + y // 7) % 2, ramps[::-1], 255 - ramps)
    return torch.from_numpy(np.stack([ramps, board]).clip(0, 255).astype(np.uint8))


def inception_difference(inception: nn.Module) -> float:
    """Return the largest difference to the expected features, relative to the largest of them."""
    expected = torch.tensor(KNOWN_FEATURES)
    return float((known_weight_features(inception) - expected).abs().max() / expected.abs().max())


def _uniform(first: int, count: int) -> NDArray[np.float64]:
    """Return splitmix64 of first, first + 1, ... as numbers in [-1, 1)."""
    with np.errstate(over="ignore"):
        z = (np.arange(first, first + count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0
