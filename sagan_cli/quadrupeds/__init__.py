"""quadrupeds, the embedded default data set: drawn animals on four legs, and a checker that counts the legs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sagan_cli.errors import UsageError
from sagan_cli.quadrupeds.draw import draw
from sagan_cli.quadrupeds.legs import count_legs, count_legs_batch
from sagan_cli.quadrupeds.species import CLASS_NAMES

VERSION = 1
"""Raised with every change to any picture, so that no stale pack is used."""
SPLITS = {"train": (0, 20_000), "test": (1, 10_000)}
"""Split -> (seed, number of pictures): different seeds share no picture."""


class Quadrupeds:
    """A numbered series of drawn animals; keeps `sagan_cli.contracts.Dataset`.

    Picture and label are pure functions of (seed, index, size); labels go round the classes in turn.
    """

    name, version = "quadrupeds", VERSION
    class_names = CLASS_NAMES

    def __init__(self, height: int, width: int, seed: int = 0, count: int = 20_000) -> None:
        self.height, self.width, self.seed, self.count = height, width, seed, count

    def __len__(self) -> int:
        return self.count

    def fingerprint(self) -> str:
        """Names everything a picture depends on."""
        return f"{self.name}-v{self.version}-seed{self.seed}-count{self.count}-{self.height}x{self.width}"

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Picture `index` as uint8 (height, width, 3), and its label.

        Raises:
            IndexError: index outside 0..len-1.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"picture {index} of {self.count}")
        return self.picture(index), index % len(CLASS_NAMES)

    def picture(self, index: int) -> np.ndarray:
        """Picture `index`, drawn."""
        return draw(self.seed, index, self.height, self.width)


class _Factory:
    """A `sagan_cli.contracts.DatasetFactory`: a callable that carries the size these pictures are made for."""

    native_size = 32

    def __call__(self, root: Path, *, split: str, height: int, width: int) -> Quadrupeds:
        """The pictures of a split, drawn at height x width; `root` is not used, nothing is read or written.

        Raises:
            UsageError: a split other than "train" and "test".
        """
        if split not in SPLITS:
            raise UsageError(f"--split {split}: quadrupeds has the splits {' and '.join(SPLITS)}")
        seed, count = SPLITS[split]
        return Quadrupeds(height, width, seed, count)

    @staticmethod
    def structure(pictures: np.ndarray) -> np.ndarray:
        """Which pictures show an animal on exactly four legs: uint8 (N, H, W, 3) -> bool (N,)."""
        return np.asarray(count_legs_batch(pictures) == 4)


build = _Factory()

__all__ = ["CLASS_NAMES", "Quadrupeds", "build", "count_legs", "count_legs_batch", "draw"]
