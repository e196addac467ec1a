"""Small IDX folders and picture folders for the command tests."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from PIL import Image


def idx_folder(path: Path, count: int = 24, classes: int = 3, side: int = 12) -> Path:
    """Gray pictures whose brightness tells their class, as an MNIST-like folder."""
    path.mkdir(parents=True)
    labels = (np.arange(count) % classes).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 60, (count, side, side))
    images = (noise + labels[:, None, None] * 60).astype(np.uint8)
    with gzip.open(path / "train-images-idx3-ubyte.gz", "wb") as f:
        f.write(struct.pack(">IIII", 0x803, count, side, side) + images.tobytes())
    with gzip.open(path / "train-labels-idx1-ubyte.gz", "wb") as f:
        f.write(struct.pack(">II", 0x801, count) + labels.tobytes())
    return path


def picture_folder(path: Path, count: int = 12, size: tuple[int, int] = (20, 24), kind: str = "jpg") -> Path:
    """A flat folder of colourful pictures."""
    path.mkdir(parents=True)
    for i, noise in enumerate(np.random.default_rng(0).integers(0, 255, (count, *size, 3), dtype=np.uint8)):
        Image.fromarray(noise).save(path / f"{i:03d}.{kind}")
    return path
