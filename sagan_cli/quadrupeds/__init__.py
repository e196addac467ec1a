"""The embedded default dataset `quadrupeds`: drawn animals with four legs, and a counter of their legs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sagan_cli.errors import UsageError
from sagan_cli.quadrupeds.leg_counter import count_legs, count_legs_batch
from sagan_cli.quadrupeds.render import draw
from sagan_cli.quadrupeds.species import CLASS_NAMES

VERSION = 1
"""Part of the fingerprint; raise it with every change of any image, so that no old pack is used."""
SPLITS = {"train": (0, 20_000), "test": (1, 10_000)}
"""Split -> (seed, number of images); different seeds share no image."""


class Quadrupeds:
    """A series of drawn images; implements `sagan_cli.contracts.Dataset`.

    Image and label are pure functions of (seed, index, size). Labels cycle through the classes.
    """

    name, version = "quadrupeds", VERSION
    class_names = CLASS_NAMES

    def __init__(self, height: int, width: int, seed: int = 0, count: int = 20_000) -> None:
        self.height, self.width, self.seed, self.count = height, width, seed, count

    def __len__(self) -> int:
        return self.count

    def fingerprint(self) -> str:
        """Return a text of everything that an image depends on."""
        return f"{self.name}-v{self.version}-seed{self.seed}-count{self.count}-{self.height}x{self.width}"

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Return image `index`, uint8 (height, width, 3), and its label.

        Raises:
            IndexError: index outside 0..len-1.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"image {index} of {self.count}")
        return self.draw(index), index % len(CLASS_NAMES)

    def draw(self, index: int) -> np.ndarray:
        """Draw image `index`: uint8 (height, width, 3)."""
        return draw(self.seed, index, self.height, self.width)


def build(root: Path, *, split: str, height: int, width: int) -> Quadrupeds:
    """Return the images of a split, drawn at height x width; `root` is not used.

    Raises:
        UsageError: unknown split.
    """
    if split not in SPLITS:
        raise UsageError(f"--split {split}: quadrupeds has the splits {' and '.join(SPLITS)}")
    return Quadrupeds(height, width, *SPLITS[split])


def four_legs(images: np.ndarray) -> np.ndarray:
    """Return which images show an animal with exactly four legs: uint8 (N, H, W, 3) -> bool (N,)."""
    return np.asarray(count_legs_batch(images) == 4)


build.native_size = 32  # type: ignore[attr-defined]
build.structure = four_legs  # type: ignore[attr-defined]

__all__ = ["CLASS_NAMES", "Quadrupeds", "build", "count_legs", "count_legs_batch", "draw"]
