"""Feature extractors: frozen networks from uint8 images to named features, opened by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sagan_cli.data.packing.pack import Pack, cache_dir
from sagan_cli.engine.jobs import Progress
from sagan_cli.engine.runtime import Runtime
from sagan_cli.errors import UsageError, closest
from sagan_cli.evaluation.extractors.weights import EXTRACTORS

CLASSIFIER = "classifier"
NAMES = (*EXTRACTORS, CLASSIFIER)
LayerTensors: TypeAlias = dict[str, Tensor]
"""Layer -> float32 (N, D)."""


@dataclass(frozen=True)
class Extractor:
    """A frozen network that scores are computed with. Scores are comparable only if `name` and `digest` are equal."""

    name: str
    """The name in `--extractor`: `inception-v3-compat`, `classifier`, ..."""
    digest: str
    """sha256 of the weights: of the published file if there is one, else of the tensors."""
    published: bool | None
    """Whether the weights are the published ones; None if none are published (classifier)."""
    layers: Mapping[str, str]
    """Metric (`fid`, `kid`, `prc`, `isc`) -> the layer it is computed from; other metrics cannot be computed."""
    resize: str
    """How images are resized to the network's input, in a few words for the record."""
    device: torch.device
    compute: Callable[[Tensor, tuple[str, ...]], LayerTensors]
    """(uint8 (N, 3, H, W) on `device`, layers) -> features on `device`; any H and W."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Further facts for the record, such as a classifier's accuracy."""
    inception: nn.Module | None = None
    """The network itself if it is Inception, for the self-check."""

    def __call__(self, images: Tensor, layers: tuple[str, ...]) -> LayerTensors:
        """Compute features of uint8 images (N, 3, H, W) on any device; float32 (N, D) per layer, on the CPU.

        The network always runs in fp32 without autocast, so that scores are reproducible.
        """
        # TF32, the default of cuDNN's convolutions, keeps only three digits.
        plain = torch.backends.cudnn.flags(allow_tf32=False) if self.device.type == "cuda" else nullcontext()
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False), plain:
            found = self.compute(images.to(self.device), layers)
            return {name: value.float().cpu() for name, value in found.items()}


def as_rgb(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert uint8 (n, H, W, C) to (n, H, W, 3): grey is repeated, transparency becomes white as in training."""
    channels = images.shape[-1]
    if channels == 1:
        return np.repeat(images, 3, axis=-1)
    if channels == 4:
        alpha = images[..., 3:].astype(np.uint16)
        # round(c * a / 255 + 255 - a) in integers
        return ((images[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return images


def three_channels(images: NDArray[np.uint8]) -> Tensor:
    """Convert uint8 (n, H, W, C) to a tensor (n, 3, H, W), as `as_rgb`."""
    # torch requires writeable arrays, which slices of a mapped pack are not.
    return torch.from_numpy(np.require(as_rgb(images), requirements=["C", "W"])).permute(0, 3, 1, 2)


def open_extractor(
    name: str,
    weights: Path | None,
    pack: Pack | None,
    runtime: Runtime,
    progress: Progress,
    notify: Callable[[str], None],
) -> Extractor:
    """Open an extractor; the leading process downloads or trains what is missing before the others continue.

    Args:
        weights: a file instead of the published one.
        pack: labelled images for the classifier.

    Raises:
        UsageError: no such name, or weights for an extractor that takes none.
        SaganError: weights that cannot be downloaded or read.
        DataError: a classifier without classes.
    """
    if name not in NAMES:
        raise UsageError(f"--extractor {name}: no such extractor{closest(name, NAMES)}; there are {', '.join(NAMES)}")
    if not runtime.leads:
        runtime.barrier()
    extractor = _open(name, weights, pack, runtime.device, progress, notify)
    if runtime.leads:
        runtime.barrier()
    return extractor


def _open(
    name: str,
    weights: Path | None,
    pack: Pack | None,
    device: torch.device,
    progress: Progress,
    notify: Callable[[str], None],
) -> Extractor:
    if name != CLASSIFIER:
        from sagan_cli.evaluation.extractors.torch_fidelity import open_torch_fidelity

        return open_torch_fidelity(
            name, weights=weights, device=device, environ=os.environ, progress=progress, notify=notify
        )
    if weights is not None:
        raise UsageError("--weights: the classifier is trained on the data, not loaded; use another --extractor")
    if pack is None:
        raise UsageError("--extractor classifier is trained on --data, which must be images with classes")
    from sagan_cli.evaluation.extractors.classifier import open_classifier

    return open_classifier(
        pack.images, pack.labels, pack.class_names, pack.digest,
        folder=cache_dir() / "classifiers", device=device, progress=progress, notify=notify,
    )  # fmt: skip
