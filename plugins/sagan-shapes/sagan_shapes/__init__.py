"""The data set `shapes`: six kinds of coloured shapes, each picture drawn from its number."""

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
"""Raised with every change to any picture, so that no stale pack is used."""
SPLITS = {"train": (0, 12_000), "test": (1, 2_000)}
"""Split -> (seed, number of pictures)."""


class Shapes:
    """A numbered series of drawn shapes; keeps `sagan_cli.contracts.Dataset`.

    Picture and label are functions of (seed, index, size); labels go round the classes in turn.
    """

    class_names = CLASS_NAMES

    def __init__(self, height: int, width: int, seed: int, count: int) -> None:
        self.height, self.width, self.seed, self.count = height, width, seed, count

    def __len__(self) -> int:
        return self.count

    def fingerprint(self) -> str:
        """Names everything that a picture depends on."""
        return f"shapes-v{VERSION}-seed{self.seed}-count{self.count}-{self.height}x{self.width}"

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Picture `index` as uint8 (height, width, 3), and its label.

        Raises:
            IndexError: index outside 0..len-1.
        """
        from sagan_shapes.draw import draw

        if not 0 <= index < self.count:
            raise IndexError(f"picture {index} of {self.count}")
        label = index % len(CLASS_NAMES)
        return draw(CLASS_NAMES[label], (self.seed, index), self.height, self.width), label


def build(root: Path, *, split: str, height: int, width: int) -> Shapes:
    """The pictures of a split, drawn at height x width; `root` is not used, nothing is read or written.

    Raises:
        UsageError: a split other than "train" and "test".
    """
    if split not in SPLITS:
        raise UsageError(f"--split {split}: shapes has the splits {' and '.join(SPLITS)}")
    seed, count = SPLITS[split]
    return Shapes(height, width, seed, count)


build.native_size = 32  # type: ignore[attr-defined]  # what --size defaults to
