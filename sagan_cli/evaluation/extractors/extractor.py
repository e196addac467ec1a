"""What every feature extractor offers: uint8 pictures in, named features out, an identity that a record can hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Features = dict[str, Tensor]
"""Layer -> float32 (N, D)."""


@dataclass(frozen=True)
class Extractor:
    """A frozen network that scores are computed with. Two scores compare only when `name` and `digest` agree."""

    name: str
    """As `--extractor` has it: `inception-v3-compat`, `classifier`, ..."""
    digest: str
    """sha256 of the weights: of the published file where there is one, else of the tensors."""
    published: bool | None
    """Whether the weights are the ones that everybody else uses; None where nothing is published (classifier)."""
    layers: Mapping[str, str]
    """Metric (`fid`, `kid`, `prc`, `isc`) -> layer it is computed on; a metric that is not there cannot be computed."""
    resize: str
    """The rule by which other sizes are brought to the network's own, in a few words for the record."""
    device: torch.device
    compute: Callable[[Tensor, tuple[str, ...]], Features]
    """(uint8 (N, 3, H, W) on `device`, layers wanted) -> features on `device`; any H and W."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """More for the record, such as a classifier's accuracy."""
    inception: nn.Module | None = None
    """The network itself where it is Inception, for the self-check."""

    def __call__(self, pictures: Tensor, layers: tuple[str, ...]) -> Features:
        """Features of uint8 pictures (N, 3, H, W), anywhere in memory; float32 (N, D) per layer, on the CPU.

        The network runs in fp32 without autocast whatever surrounds the call: features are a unit of measurement.
        """
        # Nor in TF32, which cuDNN would take for convolutions and which keeps three digits.
        plain = torch.backends.cudnn.flags(allow_tf32=False) if self.device.type == "cuda" else nullcontext()
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False), plain:
            found = self.compute(pictures.to(self.device), layers)
            return {name: value.float().cpu() for name, value in found.items()}


def three_channels(pictures: NDArray[np.uint8]) -> Tensor:
    """uint8 (n, H, W, C) -> (n, 3, H, W): grey repeated, transparency laid on white as training lays it."""
    channels = pictures.shape[-1]
    if channels == 1:
        pictures = np.repeat(pictures, 3, axis=-1)
    elif channels == 4:
        alpha = pictures[..., 3:].astype(np.uint16)
        # round(c * a / 255 + 255 - a) in integers
        pictures = ((pictures[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    # Writeable, as torch wants arrays to be: a slice of a mapped pack is not.
    return torch.from_numpy(np.require(pictures, requirements=["C", "W"])).permute(0, 3, 1, 2)
