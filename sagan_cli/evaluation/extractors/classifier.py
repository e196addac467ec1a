"""The small convolutional classifier whose features stand in for Inception's where nothing can be downloaded.

3x3 convolution, batch norm, ReLU, four times (five for pictures over 32 pixels); every stage halves the sides that are
longer than 4. The 128 global averages of the last stage, each standardised to mean 0 and variance 1 over the training
pictures, are the layer `features`; one linear map of them gives `logits`. The standardising matters to a Frechet
distance: a trained network's averages differ tenfold in spread, and a few channels would otherwise decide alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagan_cli.evaluation.extractors.extractor import Extractor, Features

NAME = "classifier"
FEATURES, LOGITS = "features", "logits"
LAYERS = {"fid": FEATURES, "kid": FEATURES, "prc": FEATURES, "isc": LOGITS}
DIMENSIONS = 128
LONGEST = 64
"""Pixels of the longer side above which pictures are reduced, so that the cost of a picture is bounded."""

_WIDTHS = (32, 64, 128, DIMENSIONS)
_SMALL = 32
"""Pixels of the longer side above which one more, thin, stage comes first."""
_FLOOR = 4
"""Pixels of a side that is not halved further."""


def input_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) of the pictures that the network sees, for a data set of this size; at most 64 a side."""
    scale = min(1.0, LONGEST / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


class Classifier(nn.Module):
    """Normalised pictures (N, 3, h, w) -> standardised features (N, 128) and logits (N, classes)."""

    def __init__(self, size: tuple[int, int], classes: int, rng: torch.Generator | None = None) -> None:
        """Random weights from `rng`, or from nowhere in particular if they are to be loaded; the global RNG is kept."""
        super().__init__()
        self.size = size
        widths = _WIDTHS if max(size) <= _SMALL else (_WIDTHS[0] // 2, *_WIDTHS)
        with torch.random.fork_rng(devices=[]):
            self.stages = nn.Sequential(*_stages(size, widths))
            self.standard = nn.BatchNorm1d(DIMENSIONS, affine=False)
            self.linear = nn.Linear(DIMENSIONS, classes)
        if rng is not None:
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=rng)
            nn.init.normal_(self.linear.weight, std=0.01, generator=rng)
            nn.init.zeros_(self.linear.bias)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        features = self.standard(self.stages(x).mean((2, 3)))
        return features, self.linear(features)

    def normalised(self, pictures: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) of any size -> float32 (N, 3, h, w) in [-1, 1], channels_last.

        Pictures of the network's own size are not touched; others are resized in float by bilinear interpolation,
        antialiased where that reduces them.
        """
        x = pictures.float()
        if tuple(x.shape[2:]) != self.size:
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True, align_corners=False)
        return x.contiguous(memory_format=torch.channels_last).div_(127.5).sub_(1)


def as_extractor(network: Classifier, digest: str, device: torch.device, facts: Mapping[str, Any]) -> Extractor:
    """The trained network, frozen, on `device`."""
    network = network.to(device).eval().requires_grad_(False)

    def compute(pictures: Tensor, layers: tuple[str, ...]) -> Features:
        with exact(device):
            found = dict(zip((FEATURES, LOGITS), network(network.normalised(pictures)), strict=True))
        return {layer: found[layer] for layer in layers}

    resize = f"antialiased bilinear to {network.size[0]}x{network.size[1]}, in float"
    return Extractor(NAME, digest, None, LAYERS, resize, device, compute, facts)


def exact(device: torch.device) -> AbstractContextManager[None]:
    """Convolutions that give the same numbers twice, and full fp32: cuDNN's default of TF32 keeps three digits."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


def known_pictures(size: tuple[int, int]) -> Tensor:
    """Two pictures by integer arithmetic alone, noise and a slope, half as large again as `size`: uint8 (2, 3, H, W).

    Their features tell whether weights, resizing and arithmetic are those that the classifier was trained with.
    """
    height, width = (side + side // 2 + 1 for side in size)
    places = torch.arange(3 * height * width)
    noise = (places * 2654435761 % 4294967296).bitwise_right_shift(13) % 256
    slope = (places % width) * 255 // width
    return torch.stack([noise, slope]).to(torch.uint8).reshape(2, 3, height, width)


def _stages(size: tuple[int, int], widths: tuple[int, ...]) -> list[nn.Module]:
    """Convolution, norm and ReLU per width; each stage halves the sides that are longer than `_FLOOR`."""
    layers: list[nn.Module] = []
    before, sides = 3, size
    for width in widths:
        stride = (2 if sides[0] > _FLOOR else 1, 2 if sides[1] > _FLOOR else 1)
        sides = (-(-sides[0] // stride[0]), -(-sides[1] // stride[1]))
        layers += [
            nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
        before = width
    return layers
