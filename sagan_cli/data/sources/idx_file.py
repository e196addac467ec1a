"""One IDX file, plain or .gz, checked before anything is believed.

The format (LeCun, Cortes and Burges, "The MNIST database"): two zero bytes, a type code (8: unsigned byte), the number
of dimensions, each dimension as a big-endian 32-bit integer, then the values, last dimension fastest.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from sagan_cli.data.decode import MAX_PIXELS
from sagan_cli.errors import DataError

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
    """Bytes of the file, or what a .gz says of its content, modulo 2^32, in its last four bytes (RFC 1952, ISIZE)."""
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
