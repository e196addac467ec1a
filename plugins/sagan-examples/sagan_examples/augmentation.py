"""The augmentation `brightness`: a random shift of brightness (Zhao et al. 2020, DiffAugment)."""

from __future__ import annotations

import torch
from torch import Tensor

from sagan_cli.contracts import Augmentation


def _apply(images: Tensor, random: Tensor, probability: Tensor) -> Tensor:
    chosen = (random[:, 0] < probability).to(images.dtype)
    shift = (random[:, 1].to(images.dtype) - 0.5) * chosen
    return images + shift[:, None, None, None]


BRIGHTNESS = Augmentation(
    "adds a uniform number in [-0.5, 0.5]; Zhao et al. 2020",
    _apply,
    random=lambda generator, count: torch.rand(count, 2, generator=generator),
)
