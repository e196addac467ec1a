"""quadrupeds-alone: one animal anywhere in a wide picture, and nowhere a second one.

Every part of such a picture is right by itself, with the animal or without; that there is one and no other is seen only
by what looks at all of it. So the set asks what `quadrupeds` cannot: whether a network relates places that lie farther
apart than its convolutions reach.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sagan_cli.errors import UsageError
from sagan_cli.quadrupeds import Quadrupeds, scenery
from sagan_cli.quadrupeds.animals import count_animals
from sagan_cli.quadrupeds.draw import as_bytes, place
from sagan_cli.quadrupeds.shapes import Dice, canvas
from sagan_cli.quadrupeds.species import SPECIES

VERSION = 1
"""Raised with every change to any picture, so that no stale pack is used."""
SPLITS = {"train": (2, 20_000), "test": (3, 10_000)}
"""Split -> (seed, number of pictures); `quadrupeds` has the seeds 0 and 1."""


def draw_alone(
    seed: int, index: int, height: int, width: int, animals: Literal[0, 1, 2] = 1, apart: float | None = None
) -> NDArray[np.uint8]:
    """Picture `index` of the series `seed`: uint8 (height, width, 3); its species is `index % len(SPECIES)`.

    `animals` 0 leaves the animal out and 2 draws two of the species, `apart` times the height from each other, as far
    as can be by default; they exist to test `count_animals` and discriminators, and occur in no data set.

    Raises:
        ValueError: seed or index outside 0..2^64-1, narrower than two squares, `animals` other than 0, 1 or 2, or
            farther apart than there is room.
    """
    if not (0 <= seed < 1 << 64 and 0 <= index < 1 << 64):
        raise ValueError(f"seed {seed} and index {index} must lie between 0 and 2^64 - 1")
    if height < 1 or width < 2 * height or animals not in (0, 1, 2):
        raise ValueError(f"cannot draw {animals} animals at {height}x{width}: 0, 1 or 2, in at least two squares")
    dice, view = Dice(seed, index), canvas(height, width)
    picture = scenery.paint(view, dice)
    species = SPECIES[index % len(SPECIES)]
    # From the first animal to the last, and from the middle of the picture to the middle between them.
    room = width / height - 1
    span = 0.0 if animals < 2 else room if apart is None else apart
    if not 0 <= span <= room:
        raise ValueError(f"two animals cannot stand {span:g} heights apart at {height}x{width}: 0 to {room:g}")
    shift = dice.between(-0.5, 0.5) * (room - span)
    for side in {0: (), 1: (0.0,), 2: (-0.5, 0.5)}[animals]:
        place(picture, view, dice, species, middle=shift + side * span)
    return as_bytes(picture)


class Alone(Quadrupeds):
    """A numbered series of wide pictures; keeps `sagan_cli.contracts.Dataset`. Labels go round the species in turn."""

    name, version = "quadrupeds-alone", VERSION

    def picture(self, index: int) -> np.ndarray:
        """Picture `index`, drawn."""
        return draw_alone(self.seed, index, self.height, self.width)


class _Factory:
    """A `sagan_cli.contracts.DatasetFactory`."""

    native_size = (16, 64)

    def __call__(self, root: Path, *, split: str, height: int, width: int) -> Alone:
        """The pictures of a split, drawn at height x width; `root` is not used, nothing is read or written.

        Raises:
            UsageError: a split other than "train" and "test", or a size in which no second animal would have room.
        """
        if split not in SPLITS:
            raise UsageError(f"--split {split}: quadrupeds-alone has the splits {' and '.join(SPLITS)}")
        if width < 2 * height:
            raise UsageError(
                f"--size {height}x{width}: an animal is alone where a second one had room: {height}x{2 * height}, "
                "or wider"
            )
        seed, count = SPLITS[split]
        return Alone(height, width, seed, count)

    @staticmethod
    def structure(pictures: np.ndarray) -> np.ndarray:
        """Which pictures show one animal and no second: uint8 (N, H, W, 3) -> bool (N,)."""
        return np.asarray(count_animals(pictures) == 1)


build = _Factory()
