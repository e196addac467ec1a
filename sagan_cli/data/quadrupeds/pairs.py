"""quadrupeds-pairs: two animals of one kind, one at either end of a wide picture, and nothing else that joins them.

Each end alone is an ordinary picture; that both agree is seen only by what looks at both. So the set asks what
`quadrupeds` cannot: whether a network relates places that lie farther apart than its convolutions reach.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sagan_cli.data.quadrupeds import scenery
from sagan_cli.data.quadrupeds.draw import as_bytes, place
from sagan_cli.data.quadrupeds.kinds import of_one_kind
from sagan_cli.data.quadrupeds.shapes import Dice, canvas
from sagan_cli.data.quadrupeds.species import SPECIES
from sagan_cli.errors import UsageError

VERSION = 1
"""Raised with every change to any picture, so that no stale pack is used."""
SPLITS = {"train": (2, 20_000), "test": (3, 10_000)}
"""Split -> (seed, number of pictures); `quadrupeds` has the seeds 0 and 1."""


def draw_pair(seed: int, index: int, height: int, width: int, *, alike: bool = True) -> NDArray[np.uint8]:
    """Picture `index` of the series `seed`: uint8 (height, width, 3), an animal in its first and its last square.

    Both are of the species `index % len(SPECIES)` and of one coat, each in a pose of its own. With `alike` False the
    second one is of another species, everything else being equal: for tests of `of_one_kind`, in no data set.

    Raises:
        ValueError: seed or index outside 0..2^64-1, or narrower than two squares.
    """
    if not (0 <= seed < 1 << 64 and 0 <= index < 1 << 64):
        raise ValueError(f"seed {seed} and index {index} must lie between 0 and 2^64 - 1")
    if height < 1 or width < 2 * height:
        raise ValueError(f"a pair needs room for two squares, not {height}x{width}")
    dice, view = Dice(seed, index), canvas(height, width)
    picture = scenery.paint(view, dice)
    species = SPECIES[index % len(SPECIES)]
    coat, stranger = dice.pick(len(species.coats)), dice.pick(len(SPECIES) - 1)
    kind = replace(species, coats=(species.coats[coat],))
    apart = 0.5 * (width / height - 1)
    place(picture, view, dice, kind, middle=-apart)
    other = kind if alike else SPECIES[(index + 1 + stranger) % len(SPECIES)]
    place(picture, view, dice, other, middle=apart)
    return as_bytes(picture)


class Pairs:
    """A numbered series of pairs; keeps `sagan_cli.contracts.Dataset`.

    There are no labels: told the species, a discriminator would need to look at no more than one end at a time.
    """

    class_names: tuple[str, ...] = ()

    def __init__(self, height: int, width: int, seed: int, count: int) -> None:
        self.height, self.width, self.seed, self.count = height, width, seed, count

    def __len__(self) -> int:
        return self.count

    def fingerprint(self) -> str:
        """Names everything a picture depends on."""
        return f"quadrupeds-pairs-v{VERSION}-seed{self.seed}-count{self.count}-{self.height}x{self.width}"

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Picture `index` as uint8 (height, width, 3), and 0.

        Raises:
            IndexError: index outside 0..len-1.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"picture {index} of {self.count}")
        return draw_pair(self.seed, index, self.height, self.width), 0


class _Factory:
    """A `sagan_cli.contracts.DatasetFactory`."""

    native_size = (16, 64)
    structure = staticmethod(of_one_kind)

    def __call__(self, root: Path, *, split: str, height: int, width: int) -> Pairs:
        """The pictures of a split, drawn at height x width; `root` is not used, nothing is read or written.

        Raises:
            UsageError: a split other than "train" and "test", or a size without room for two.
        """
        if split not in SPLITS:
            raise UsageError(f"--split {split}: quadrupeds-pairs has the splits {' and '.join(SPLITS)}")
        if width < 2 * height:
            raise UsageError(
                f"--size {height}x{width}: two animals need a picture twice as wide as high: {height}x{2 * height}, "
                "or wider"
            )
        seed, count = SPLITS[split]
        return Pairs(height, width, seed, count)


build = _Factory()
