"""The dataset `quadrupeds-alone`: wide images with exactly one animal, anywhere.

Every part of such an image is plausible by itself, with or without an animal; only the whole image shows that there is
exactly one. The dataset tests whether a network relates positions that are farther apart than its convolutions reach.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sagan_cli.errors import UsageError
from sagan_cli.quadrupeds import Quadrupeds, scenery
from sagan_cli.quadrupeds.animal_counter import count_animals
from sagan_cli.quadrupeds.render import add_animal, to_uint8
from sagan_cli.quadrupeds.shapes import Dice, canvas
from sagan_cli.quadrupeds.species import SPECIES

VERSION = 1
"""Part of the fingerprint; raise it with every change of any image, so that no old pack is used."""
SPLITS = {"train": (2, 20_000), "test": (3, 10_000)}
"""Split -> (seed, number of images); `quadrupeds` uses the seeds 0 and 1."""


def draw_alone(
    seed: int, index: int, height: int, width: int, animals: Literal[0, 1, 2] = 1, apart: float | None = None
) -> NDArray[np.uint8]:
    """Draw image `index` of the series `seed`: uint8 (height, width, 3); its species is `index % len(SPECIES)`.

    Args:
        animals: 0 and 2 exist to test `count_animals` and discriminators, and occur in no dataset.
        apart: distance between two animals in image heights; the largest possible by default.

    Raises:
        ValueError: seed or index outside 0..2^64-1, width < 2 height, `animals` other than 0, 1 or 2, or `apart` too
            large.
    """
    if not (0 <= seed < 1 << 64 and 0 <= index < 1 << 64):
        raise ValueError(f"seed {seed} and index {index} must lie between 0 and 2^64 - 1")
    if height < 1 or width < 2 * height or animals not in (0, 1, 2):
        raise ValueError(f"cannot draw {animals} animals at {height}x{width}: 0, 1 or 2, in at least two squares")
    dice, view = Dice(seed, index), canvas(height, width)
    image = scenery.paint(view, dice)
    species = SPECIES[index % len(SPECIES)]
    # span: from the first animal to the last; shift: from the middle of the image to the middle between them.
    room = width / height - 1
    span = 0.0 if animals < 2 else room if apart is None else apart
    if not 0 <= span <= room:
        raise ValueError(f"two animals cannot stand {span:g} heights apart at {height}x{width}: 0 to {room:g}")
    shift = dice.between(-0.5, 0.5) * (room - span)
    for side in {0: (), 1: (0.0,), 2: (-0.5, 0.5)}[animals]:
        add_animal(image, view, dice, species, middle=shift + side * span)
    return to_uint8(image)


class SingleAnimal(Quadrupeds):
    """A series of wide images with one animal each; labels cycle through the species."""

    name, version = "quadrupeds-alone", VERSION

    def draw(self, index: int) -> np.ndarray:
        """Draw image `index`: uint8 (height, width, 3)."""
        return draw_alone(self.seed, index, self.height, self.width)


def build(root: Path, *, split: str, height: int, width: int) -> SingleAnimal:
    """Return the images of a split, drawn at height x width; `root` is not used.

    Raises:
        UsageError: unknown split, or width < 2 height.
    """
    if split not in SPLITS:
        raise UsageError(f"--split {split}: quadrupeds-alone has the splits {' and '.join(SPLITS)}")
    if width < 2 * height:
        need = f"{height}x{2 * height}, or wider"
        raise UsageError(f"--size {height}x{width}: images must be at least twice as wide as high: {need}")
    return SingleAnimal(height, width, *SPLITS[split])


def one_animal(images: np.ndarray) -> np.ndarray:
    """Return which images show exactly one animal: uint8 (N, H, W, 3) -> bool (N,)."""
    return np.asarray(count_animals(images) == 1)


build.native_size = (16, 64)  # type: ignore[attr-defined]
build.structure = one_animal  # type: ignore[attr-defined]
