"""The dataset `shapes`: six kinds of coloured shapes, each image drawn from its index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sagan_cli.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

SAGAN_PLUGIN_API = 1
"""The version of sagan's plugin contract that this package was written for."""

CLASS_NAMES = ("circle", "ring", "square", "cross", "triangle", "star")
VERSION = 1
"""Raise it with every change of an image, so that no outdated pack is used."""
SPLITS = {"train": (0, 12_000), "test": (1, 2_000)}
"""Split -> (seed, number of images)."""


class Shapes:
    """Drawn shapes; implements `sagan_cli.contracts.Dataset`.

    Image and label are functions of (seed, index, size); the label is the index modulo the number of classes.
    """

    class_names = CLASS_NAMES

    def __init__(self, height: int, width: int, seed: int, count: int) -> None:
        self.height, self.width, self.seed, self.count = height, width, seed, count

    def __len__(self) -> int:
        return self.count

    def fingerprint(self) -> str:
        """Return a string of everything that an image depends on."""
        return f"shapes-v{VERSION}-seed{self.seed}-count{self.count}-{self.height}x{self.width}"

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Return image `index` as uint8 (height, width, 3), and its label.

        Raises:
            IndexError: index outside 0..len-1.
        """
        from sagan_shapes.draw import draw

        if not 0 <= index < self.count:
            raise IndexError(f"image {index} of {self.count}")
        label = index % len(CLASS_NAMES)
        return draw(CLASS_NAMES[label], (self.seed, index), self.height, self.width), label


def build(root: Path, *, split: str, height: int, width: int) -> Shapes:
    """Return the images of a split, drawn at height x width; `root` is not used.

    Raises:
        UsageError: a split other than "train" and "test".
    """
    if split not in SPLITS:
        raise UsageError(f"--split {split}: shapes has the splits {' and '.join(SPLITS)}")
    seed, count = SPLITS[split]
    return Shapes(height, width, seed, count)


build.native_size = 32  # type: ignore[attr-defined]  # the default of --size
