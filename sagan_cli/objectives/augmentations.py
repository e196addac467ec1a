"""DiffAugment (Zhao et al. 2020, arXiv 2006.10738): differentiable augmentations of all images that D sees.

Each image is transformed with the given probability. The random inputs of an image are uniform numbers in [0, 1): the
first decides whether it is transformed, the others are the parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from sagan_cli.contracts import Augmentation

SHIFT = 1 / 8
"""Largest translation, as a share of each side."""
CUT = 1 / 2
"""Side of the cut-out rectangle, as a share of each side."""


def _color(x: Tensor, u: Tensor) -> Tensor:
    """Brightness in [-0.5, 0.5), saturation in [0, 2), contrast in [0.5, 1.5)."""
    brightness, saturation, contrast = (u[:, i, None, None, None] for i in range(3))
    x = x + (brightness - 0.5)
    gray = x.mean(1, keepdim=True)
    x = gray + (x - gray) * (saturation * 2)
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (x - mean) * (contrast + 0.5)


def _translation(x: Tensor, u: Tensor) -> Tensor:
    """Shift by whole pixels, up to `SHIFT` of each side; zeros move in."""
    n, c, height, width = x.shape
    padded = F.pad(x, (1, 1, 1, 1))

    def sources(uniform: Tensor, side: int) -> Tensor:
        most = int(side * SHIFT + 0.5)
        shift = (uniform * (2 * most + 1)).floor().long() - most
        # Indices in the padded image: 0 and side + 1 are the zeros around it.
        return (torch.arange(1, side + 1, device=x.device) + shift[:, None]).clamp(0, side + 1)

    rows, columns = sources(u[:, 0], height), sources(u[:, 1], width)
    x = padded.gather(2, rows[:, None, :, None].expand(n, c, height, width + 2))
    return x.gather(3, columns[:, None, None, :].expand(n, c, height, width))


def _cutout(x: Tensor, u: Tensor) -> Tensor:
    """Set a rectangle of `CUT` of each side to 0; its centre may be anywhere, so that a part may lie outside."""
    inside = []
    for axis, side in enumerate(x.shape[2:]):
        half = int(side * CUT + 0.5) / 2
        centre = (u[:, axis] * (side + 1)).floor()
        position = torch.arange(side, device=x.device) + 0.5
        inside.append((position - centre[:, None]).abs() < half)
    cut = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return x.masked_fill(cut, 0.0)


def _augmentation(about: str, transform: Callable[[Tensor, Tensor], Tensor], parameters: int) -> Augmentation:
    def apply(images: Tensor, random: Tensor, probability: Tensor) -> Tensor:
        chosen = random[:, 0, None, None, None] < probability
        return torch.where(chosen, transform(images, random[:, 1:].to(images.dtype)), images)

    def draw(generator: torch.Generator, count: int) -> Tensor:
        return torch.rand(count, 1 + parameters, generator=generator)

    return Augmentation(about, apply, draw)


COLOR = _augmentation("random brightness, saturation and contrast; Zhao et al. 2020, DiffAugment", _color, 3)
TRANSLATION = _augmentation("random translation by up to 1/8; Zhao et al. 2020, DiffAugment", _translation, 2)
CUTOUT = _augmentation("a random rectangle of half the sides is 0; Zhao et al. 2020, DiffAugment", _cutout, 2)
