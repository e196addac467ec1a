"""A folder of IDX files, plain or .gz (MNIST, Fashion-MNIST, EMNIST, ...), as a dataset."""

from __future__ import annotations

import errno
import gzip
import hashlib
import math
import re
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from sagan_cli.contracts import Hints
from sagan_cli.data.decode import MAX_PIXELS, Pixels, needs_border
from sagan_cli.data.sources.folders import FileBacked
from sagan_cli.errors import DataError

_NAME = re.compile(
    r"(?P<prefix>.*?)[-_.]?(?P<part>images|labels)[-.]idx(?P<dims>[13])-ubyte(?P<gz>\.gz)?", re.IGNORECASE
)
_TEST = re.compile(r"(^|[-_.])(t10k|test)$", re.IGNORECASE)

FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
"""Class names of Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, table 1), by label."""

_FASHION_LABELS = frozenset(
    {
        "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",  # train
        "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",  # test
    }
)
"""sha256 of its label values; file names and sizes are those of MNIST."""


class IdxDataset(FileBacked):
    """The images of one IDX file with the labels of another."""

    def __init__(
        self, images: IdxFile, hints: Hints, labels: IdxFile | None, values: Sequence[int], class_names: Sequence[str]
    ) -> None:
        self.images, self.hints, self._label_file, self._labels = images, hints, labels, values
        self.class_names = class_names

    def __len__(self) -> int:
        return self.images.shape[0]

    def files(self) -> Sequence[tuple[str, Path]]:
        parts = [("images", self.images.path)]
        return parts if self._label_file is None else [*parts, ("labels", self._label_file.path)]

    def identity(self) -> str:
        return f"idx 1, classes {'/'.join(self.class_names)}"

    def name_of(self, index: int) -> str:
        """Return file and index, for messages."""
        return f"{self.images.path.name}[{index}]"

    def read(self, index: int) -> tuple[Pixels, int]:
        return self.images.values[index], self._labels[index] if self._labels else 0


def is_idx_folder(folder: Path) -> bool:
    """Return whether a file in `folder` has the name of an IDX file."""
    return any(_NAME.fullmatch(p.name) for p in folder.iterdir())


def idx_side(folder: Path, split: str) -> int:
    """Return the default side in pixels for training: the next power of two, 32 for 28."""
    images, _ = _find(folder, split, where=str(folder))
    shape = read_header(images)
    return max(32, 1 << math.ceil(math.log2(max(shape[1:]))))


def open_idx(folder: Path, *, split: str, height: int, width: int, where: str, unconditional: bool) -> IdxDataset:
    """Open the split "train" or "test" of the IDX files in `folder`.

    Raises:
        DataError: files are missing, ambiguous, truncated or of another kind than their name.
    """
    image_path, label_path = _find(folder, split, where=where)
    images = open_idx_file(image_path, 3)
    framed = needs_border(images.shape[1], images.shape[2], height, width)
    hints = Hints(fit="pad" if framed else "crop", channels=1, in_process=True)
    if unconditional:
        return IdxDataset(images, hints, None, (), ())
    if label_path is None:
        raise DataError(f"--data {where}: {image_path.name} has no labels file: add it or pass --unconditional")
    labels = open_idx_file(label_path, 1)
    if labels.shape[0] != images.shape[0]:
        raise DataError(
            f"--data {where}: {images.shape[0]:,} images in {image_path.name}, but {labels.shape[0]:,} labels in "
            f"{label_path.name}: these files do not belong together"
        )
    values = labels.values
    # Labels of digits begin at 0, those of EMNIST's letters at 1.
    low = min(int(values.min()), 1)
    names: Sequence[str] = [str(v) for v in range(low, int(values.max()) + 1)]
    if hashlib.sha256(values.tobytes()).hexdigest() in _FASHION_LABELS or (len(names) == 10 and _says_fashion(folder)):
        names = FASHION
    return IdxDataset(images, hints, labels, (values - low).tolist(), tuple(names))


def _says_fashion(folder: Path) -> bool:
    return any("fashion" in part.lower() for part in folder.resolve().parts[-2:])


def _find(folder: Path, split: str, *, where: str) -> tuple[Path, Path | None]:
    """Return the images and labels files of the split; a plain file is preferred to its .gz."""
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.iterdir(), key=lambda p: (p.suffix.lower() == ".gz", p.name)):
        if match := _NAME.fullmatch(path.name):
            found.setdefault((match["prefix"].lower(), match["part"].lower()), path)
    images = {prefix: p for (prefix, part), p in found.items() if part == "images"}
    wanted = {prefix: p for prefix, p in images.items() if bool(_TEST.search(prefix)) == (split == "test")}
    if not wanted:
        there = ", ".join(p.name for p in images.values()) or "labels only"
        example = "t10k-images-idx3-ubyte" if split == "test" else "train-images-idx3-ubyte"
        raise DataError(
            f"--data {where}: no images of the split '{split}' (there: {there}): add {example}, plain or .gz"
        )
    if len(wanted) > 1:
        several = ", ".join(p.name for p in wanted.values())
        raise DataError(
            f"--data {where}: several IDX sets ({several}): move the files of one into a folder of their own"
        )
    ((prefix, path),) = wanted.items()
    return path, found.get((prefix, "labels"))


_UNSIGNED_BYTE = 8


@dataclass(frozen=True)
class IdxFile:
    """One IDX file of unsigned bytes; its length agrees with its header."""

    path: Path
    shape: tuple[int, ...]

    @cached_property
    def values(self) -> NDArray[np.uint8]:
        """The array, mapped from the file, or from an unpacked temporary copy of a .gz.

        Raises:
            DataError: the file is damaged.
        """
        start = _header_size(len(self.shape))
        if self.path.suffix.lower() != ".gz":
            return np.memmap(self.path, np.uint8, "r", start, self.shape)
        with tempfile.TemporaryFile() as unpacked, gzip.open(self.path) as packed:
            with _damage(self.path, "damaged or cut short"):
                shutil.copyfileobj(packed, unpacked, 1 << 20)  # compares the checksum at the end
            return np.memmap(unpacked, np.uint8, "r", start, self.shape)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "shape": self.shape}


def _header_size(dims: int) -> int:
    return 4 + 4 * dims


@contextmanager
def _damage(path: Path, what: str) -> Iterator[None]:
    """Report errors of reading and unpacking as DataError; a full disk stays an OSError."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as e:
        if isinstance(e, OSError) and e.errno == errno.ENOSPC:
            raise
        raise DataError(f"{path}: {what} ({getattr(e, 'strerror', None) or e}): fetch it again") from e


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix.lower() == ".gz" else path.open("rb")


def read_header(path: Path) -> tuple[int, ...]:
    """Return the dimensions that an IDX file of unsigned bytes declares.

    Raises:
        DataError: not such a file.
    """
    try:
        with _damage(path, "cannot be read"), _open(path) as f:
            zero, kind, dims = struct.unpack(">HBB", f.read(4))
            shape = struct.unpack(f">{dims}I", f.read(4 * dims))
    except struct.error as e:
        raise DataError(f"{path}: too short for an IDX file: fetch it again") from e
    if zero != 0 or kind != _UNSIGNED_BYTE:
        raise DataError(f"{path}: not an IDX file of unsigned bytes (it starts with {zero:04x} {kind:02x})")
    return shape


def open_idx_file(path: Path, dims: int) -> IdxFile:
    """Open a file of `dims` dimensions and compare its length with its header.

    Raises:
        DataError: truncated, too long, or of another kind.
    """
    shape = read_header(path)
    if len(shape) != dims:
        raise DataError(f"{path}: {len(shape)} dimensions instead of {dims}: images are idx3 files, labels idx1 files")
    if 0 in shape or math.prod(shape[1:]) > MAX_PIXELS:
        raise DataError(f"{path}: dimensions {'x'.join(map(str, shape))} are no dataset: fetch it again")
    expected = _header_size(dims) + math.prod(shape)
    actual = _length(path, expected)
    if actual != expected:
        word = "cut short" if actual < expected else "longer than its header says"
        raise DataError(f"{path}: {word}: {actual:,} bytes where {expected:,} belong: fetch it again")
    return IdxFile(path, shape)


def _length(path: Path, expected: int) -> int:
    """Return the length of a file, unpacked if it is a .gz."""
    if path.suffix.lower() != ".gz":
        return path.stat().st_size
    with path.open("rb") as f:
        f.seek(-4, 2)
        if f.read(4) == struct.pack("<I", expected % 2**32):  # the unpacked length modulo 2^32 (RFC 1952, ISIZE)
            return expected
    length = 0  # truncated, or packed in several members
    with _damage(path, "cut short or damaged"), _open(path) as f:
        while length <= expected and (chunk := f.read(1 << 20)):
            length += len(chunk)
    return length
