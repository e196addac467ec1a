"""A folder of IDX files, plain or .gz (MNIST, Fashion-MNIST, EMNIST, ...), as a data set."""

from __future__ import annotations

import gzip
import hashlib
import math
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from sagan_cli.data.decode import MAX_PIXELS, Pixels, needs_border
from sagan_cli.data.packing.fingerprint import FileBacked, Hints
from sagan_cli.errors import BadImage, DataError

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
"""sha256 of its label values: the file names and sizes are MNIST's own, so only the content tells the two apart."""


class IdxDataset(FileBacked):
    """Pictures of one IDX file, streamed in order, with the labels of another."""

    _stream: IO[bytes] | None = None

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
        """Which picture of which file, for messages."""
        return f"{self.images.path.name}[{index}]"

    def read(self, index: int) -> tuple[Pixels, int]:
        count, height, width = self.images.shape
        size = height * width
        if self._stream is None:
            self._stream = self.images.open()
        try:
            self._stream.seek(self.images.start + index * size)  # in order this is free, also for .gz
            values = self._stream.read(size)
            if index == count - 1:
                self._stream.read(1)  # the end of a .gz is where its checksum is compared
        except (OSError, EOFError, zlib.error) as e:
            raise DataError(f"{self.images.path}: damaged or cut short ({e}): fetch it again") from e
        if len(values) != size:
            raise BadImage("cut short")
        return np.frombuffer(values, np.uint8).reshape(height, width), self._labels[index] if self._labels else 0

    def __del__(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stream": None}


def is_idx_folder(folder: Path) -> bool:
    """Whether any file directly in `folder` is named like an IDX file."""
    return any(_NAME.fullmatch(p.name) for p in folder.iterdir())


def idx_side(folder: Path, split: str) -> int:
    """The side in pixels at which the pictures are trained on: the next power of two, 32 for 28."""
    images, _ = _find(folder, split, where=str(folder))
    shape = read_header(images)
    return max(32, 1 << math.ceil(math.log2(max(shape[1:]))))


def open_idx(folder: Path, *, split: str, height: int, width: int, where: str, unconditional: bool) -> IdxDataset:
    """The split "train" or "test" of the IDX files in `folder`.

    Raises:
        DataError: files that are missing, ambiguous, cut short, or of another kind than their name says.
    """
    image_path, label_path = _find(folder, split, where=where)
    images = open_idx_file(image_path, 3)
    framed = needs_border(images.shape[1], images.shape[2], height, width)
    hints = Hints(fit="pad" if framed else "crop", channels=1, in_process=True)
    if unconditional:
        return IdxDataset(images, hints, None, (), ())
    if label_path is None:
        raise DataError(
            f"--data {where}: {image_path.name} has no labels file beside it: add it or pass --unconditional"
        )
    labels = open_idx_file(label_path, 1)
    if labels.shape[0] != images.shape[0]:
        raise DataError(
            f"--data {where}: {images.shape[0]:,} pictures in {image_path.name}, but {labels.shape[0]:,} labels in "
            f"{label_path.name}: these files do not belong together"
        )
    values = labels.values()
    # Digits count from 0, EMNIST's letters from 1.
    low = min(int(values.min()), 1)
    names: Sequence[str] = [str(v) for v in range(low, int(values.max()) + 1)]
    if hashlib.sha256(values.tobytes()).hexdigest() in _FASHION_LABELS or (len(names) == 10 and _says_fashion(folder)):
        names = FASHION
    return IdxDataset(images, hints, labels, (values - low).tolist(), tuple(names))


def _says_fashion(folder: Path) -> bool:
    return any("fashion" in part.lower() for part in folder.resolve().parts[-2:])


def _find(folder: Path, split: str, *, where: str) -> tuple[Path, Path | None]:
    """The images file of the split and the labels file that goes with it; a plain file wins over its .gz."""
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
            f"--data {where}: no pictures of the split '{split}' (there: {there}): add {example}, plain or .gz"
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
    """One IDX file of unsigned bytes, checked to hold what its header says."""

    path: Path
    shape: tuple[int, ...]

    @property
    def start(self) -> int:
        """Bytes of header before the values."""
        return 4 + 4 * len(self.shape)

    def open(self) -> IO[bytes]:
        """The unpacked bytes, header first."""
        return _open(self.path)

    def values(self) -> NDArray[np.uint8]:
        """All values, flat.

        Raises:
            DataError: the file is damaged behind its header.
        """
        try:
            with self.open() as f:
                f.seek(self.start)
                return np.frombuffer(f.read(), np.uint8)
        except (OSError, EOFError, zlib.error) as e:
            raise DataError(f"{self.path}: damaged or cut short ({e}): fetch it again") from e


def _open(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")


def read_header(path: Path) -> tuple[int, ...]:
    """The dimensions that an IDX file of unsigned bytes declares.

    Raises:
        DataError: not such a file.
    """
    try:
        with _open(path) as f:
            zero, kind, dims = struct.unpack(">HBB", f.read(4))
            shape = struct.unpack(f">{dims}I", f.read(4 * dims))
    except struct.error as e:
        raise DataError(f"{path}: too short for an IDX file: fetch it again") from e
    except (OSError, EOFError, zlib.error) as e:
        raise DataError(f"{path}: cannot be read ({getattr(e, 'strerror', None) or e}): fetch it again") from e
    if zero != 0 or kind != _UNSIGNED_BYTE:
        raise DataError(f"{path}: not an IDX file of unsigned bytes (it starts with {zero:04x} {kind:02x})")
    return shape


def open_idx_file(path: Path, dims: int) -> IdxFile:
    """A file of `dims` dimensions, its header compared with what it holds.

    Raises:
        DataError: cut short, too long, or of another kind.
    """
    shape = read_header(path)
    if len(shape) != dims:
        raise DataError(
            f"{path}: {len(shape)} dimensions where {dims} belong: images are idx3 files, labels idx1 files"
        )
    if 0 in shape or math.prod(shape[1:]) > MAX_PIXELS:
        raise DataError(f"{path}: dimensions {'x'.join(map(str, shape))} are no data set: fetch it again")
    expected, actual = 4 + 4 * dims + math.prod(shape), _length(path)
    if path.suffix.lower() == ".gz" and actual != expected % 2**32:
        actual = _unpacked_length(path, expected)
    elif path.suffix.lower() == ".gz":
        actual = expected
    if actual != expected:
        word = "cut short" if actual < expected else "longer than its header says"
        raise DataError(f"{path}: {word}: {actual:,} bytes where {expected:,} belong: fetch it again")
    return IdxFile(path, shape)


def _length(path: Path) -> int:
    """Return the file's size; for a .gz the unpacked size modulo 2^32, from its last four bytes (RFC 1952, ISIZE)."""
    if path.suffix.lower() != ".gz":
        return path.stat().st_size
    with path.open("rb") as f:
        f.seek(-4, 2)
        return int(struct.unpack("<I", f.read(4))[0])


def _unpacked_length(path: Path, expected: int) -> int:
    """The true length of a .gz whose last bytes disagree: it may have been packed in several members."""
    length = 0
    try:
        with _open(path) as f:
            while length <= expected and (chunk := f.read(1 << 20)):
                length += len(chunk)
    except (OSError, EOFError, zlib.error) as e:
        raise DataError(f"{path}: cut short or damaged ({e}): fetch it again") from e
    return length
