"""What a feature extractor is: a frozen network from uint8 images to named features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

CLASSIFIER = "classifier"
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

    @property
    def passed_check(self) -> str:
        """Name of the file that records a passed self-check of these weights, device and library versions."""
        versions = [metadata.version(name) for name in ("torch", "torch-fidelity")]
        parts: list[Any] = [1, self.name, self.digest, self.device.type, self.resize, versions]
        return f"passed-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}.json"

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


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 over (name, shape, dtype, bytes) of all tensors in the order of their names.

    It is the same for `.pth` and `.safetensors` files of the same numbers, and on every device.
    """
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tuple(tensor.shape)}\0{tensor.dtype}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
