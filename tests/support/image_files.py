"""Pictures, folders, archives and IDX files for the tests of packing, and data sets that misbehave on purpose."""

from __future__ import annotations

import gzip
import os
import signal
import struct
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sagan_cli.contracts import Dataset
from sagan_cli.data.packing.pack import Pack, PackRequest, open_pack
from sagan_cli.errors import BadImage

OLD = 1_600_000_000_000_000_000
"""A time long ago, ns: files with it are past the clock's tick."""


def noise(seed: int, height: int = 24, width: int = 20, channels: int = 3) -> np.ndarray:
    """uint8 (height, width, channels), or (height, width) for one channel, of blocks of 4 pixels."""
    small = np.random.default_rng(seed).integers(0, 256, (-(-height // 4), -(-width // 4), channels), np.uint8)
    full = small.repeat(4, 0).repeat(4, 1)[:height, :width]
    return full[..., 0] if channels == 1 else full


def save(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    """Write pixels in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def fill(root: Path, counts: dict[str, int], suffix: str = ".png") -> Path:
    """`counts` pictures in each folder below `root`; the key "" is the root itself."""
    root.mkdir(parents=True, exist_ok=True)
    for n, (folder, count) in enumerate(counts.items()):
        for i in range(count):
            save(root / folder / f"{i:04d}{suffix}", noise(1000 * n + i))
    return root


def zip_up(source: Path, target: Path, prefix: str = "") -> Path:
    """Everything below `source` in an archive, names after `prefix`."""
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(source.rglob("*")):
            if path.is_file():
                archive.write(path, prefix + path.relative_to(source).as_posix())
    return target


def write_idx(path: Path, values: np.ndarray) -> Path:
    """An IDX file of unsigned bytes, packed when the name ends in .gz."""
    data = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def write_mnist(folder: Path, count: int = 20, gz: bool = False, split: str = "train", side: int = 28) -> np.ndarray:
    """The two files of one split; returns the pictures. Labels are 0, 1, ... 9, 0, ..."""
    pictures = np.random.default_rng(count).integers(0, 256, (count, side, side), np.uint8)
    end = ".gz" if gz else ""
    write_idx(folder / f"{split}-images-idx3-ubyte{end}", pictures)
    write_idx(folder / f"{split}-labels-idx1-ubyte{end}", np.arange(count) % 10)
    return pictures


def age(root: Path) -> None:
    """Set modification times back; the change time stays now."""
    for path in [root, *root.rglob("*")]:
        os.utime(path, ns=(OLD, OLD))


class Told:
    """Collects what packing says."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: list[tuple[int, int]] = []

    def progress(self, done: int, total: int) -> None:
        self.steps.append((done, total))


def pack(
    dataset: Dataset, cache: Path, size: int | tuple[int, int] = 16, *, told: Told | None = None, **more: Any
) -> Pack:
    """`open_pack` with the arguments that most tests do not care about."""
    told = told or Told()
    height, width = (size, size) if isinstance(size, int) else size
    request = PackRequest(height, width, more.pop("channels", None), more.pop("fit", "auto"))
    arguments = {"max_bad": 0.01, "workers": 1, "progress": told.progress, "notify": told.lines.append} | more
    return open_pack(dataset, request, cache_dir=cache, **arguments)


class Drawn:
    """A data set without files: picture i is filled with i; picklable, as plugins' sets are."""

    def __init__(self, count: int = 600, bad: Sequence[int] = (), classes: int = 3) -> None:
        self.count, self.bad = count, frozenset(bad)
        self.class_names = [f"c{i}" for i in range(classes)]

    def __len__(self) -> int:
        return self.count

    def fingerprint(self) -> str:
        return f"drawn {self.count} {sorted(self.bad)} {self.class_names}"

    def read(self, index: int) -> tuple[np.ndarray, int]:
        if index in self.bad:
            raise BadImage("bad on purpose")
        picture = np.full((16, 16, 3), index % 251, np.uint8)
        picture[..., 0] = index // 251
        return picture, index % max(1, len(self.class_names))


class Deadly(Drawn):
    """One picture kills the process that reads it."""

    def read(self, index: int) -> tuple[np.ndarray, int]:
        if index == 400:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(index)


class Slow(Drawn):
    """Each picture takes a hundredth of a second."""

    def read(self, index: int) -> tuple[np.ndarray, int]:
        time.sleep(0.01)
        return super().read(index)


class LateColour(Drawn):
    """Gray but for the last picture but one, which is not among those that are looked at first."""

    def read(self, index: int) -> tuple[np.ndarray, int]:
        if index == self.count - 2:
            return np.full((16, 16, 3), (1, 2, 3), np.uint8), 0
        return np.full((16, 16), index % 256, np.uint8), 0
