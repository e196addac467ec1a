"""Arrays inside an .npz (a .zip of .npy files), read in blocks and never unpickled.

The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. `numpy.load` would read an array
whole; pictures are streamed instead, so that memory does not grow with their number.
"""

from __future__ import annotations

import math
import mmap
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sagan_cli.errors import DataError
from sagan_cli.evaluation.images.spool import poured

_CHUNK = 1 << 20
_LOCAL_HEADER = 30
"""Bytes before the name in a local file header (PKWARE APPNOTE 4.3.7)."""

_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError)


@dataclass(frozen=True)
class Header:
    """What one array of an .npz declares."""

    key: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    start: int
    """Bytes before the values."""
    entry: zipfile.ZipInfo

    def __str__(self) -> str:
        return f"{self.key} {self.dtype} {self.shape}"


class Npz:
    """An .npz that is open for reading; `where` is what messages call it. Close it, or use it in a `with` block."""

    def __init__(self, source: Path | IO[bytes], where: str) -> None:
        """Read the table of contents, no array.

        Args:
            source: a path, or a seekable file, which is closed with this object.

        Raises:
            DataError: not an .npz.
        """
        self.where = where
        try:
            self._file: IO[bytes] = source.open("rb") if isinstance(source, Path) else source
            self._archive = zipfile.ZipFile(self._file)
        except _DAMAGE as e:
            self.close()
            reason = getattr(e, "strerror", None) or e
            raise DataError(f"{where}: not an .npz that can be read ({reason}): make or fetch it again") from e
        self._entries = {
            info.filename.removesuffix(".npy"): info
            for info in self._archive.infolist()
            if info.filename.endswith(".npy")
        }

    @property
    def keys(self) -> list[str]:
        """Names of the arrays, in the order of the file."""
        return list(self._entries)

    def header(self, key: str) -> Header:
        """What array `key` declares, checked against the bytes that there are.

        Raises:
            DataError: damaged, cut short, encrypted, or an array of Python objects.
        """
        entry = self._entries[key]
        if entry.flag_bits & 0x1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(
                f"{self.where}: {key} is encrypted or packed in a way that NumPy does not use: save it anew"
            )
        try:
            with self._archive.open(entry) as f:
                version = np.lib.format.read_magic(f)
                if version not in ((1, 0), (2, 0)):
                    raise ValueError(f"format {version[0]}.{version[1]} is for structured arrays")
                old = version == (1, 0)
                read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
                shape, fortran, dtype = read(f)
                start = f.tell()
        # NumPy evaluates the header as a Python literal: a damaged one can raise nearly anything.
        except Exception as e:
            raise self._damaged(key, e) from e
        if dtype.hasobject:
            raise DataError(
                f"{self.where}: {key} holds Python objects, which are never unpickled here: save a plain array"
            )
        expected = start + math.prod(shape) * dtype.itemsize
        if entry.file_size != expected:
            raise DataError(
                f"{self.where}: {key} has {entry.file_size:,} bytes where {expected:,} belong: make or fetch it again"
            )
        return Header(key, dtype, shape, fortran, start, entry)

    def values(self, header: Header) -> NDArray[Any]:
        """The whole array, for small ones.

        Raises:
            DataError: damaged.
        """
        try:
            with self._archive.open(header.entry) as f:
                found: NDArray[Any] = np.lib.format.read_array(f, allow_pickle=False)
                return found
        except _DAMAGE as e:
            raise self._damaged(header.key, e) from e

    def rows(self, header: Header) -> Rows:
        """A reader of the uint8 array's rows, front to back."""
        return Rows(self, header, self._archive.open(header.entry))

    def mapped(self, header: Header) -> NDArray[np.uint8]:
        """The uint8 array in any order, mapped into memory rather than read; a packed one is unpacked to disk first.

        Of one that is not packed no checksum is compared.

        Raises:
            DataError: damaged.
            SaganError: no room to unpack it.
        """
        if header.entry.compress_type == zipfile.ZIP_STORED:
            return _map(self._file, self._place(header.entry) + header.start, header.shape)
        with poured(self._bytes(header)) as f:
            return _map(f, header.start, header.shape)

    def _bytes(self, header: Header) -> Iterator[bytes]:
        try:
            with self._archive.open(header.entry) as f:
                while chunk := f.read(_CHUNK):
                    yield chunk
        except _DAMAGE as e:
            raise self._damaged(header.key, e) from e

    def _place(self, entry: zipfile.ZipInfo) -> int:
        """Where the bytes of a stored entry begin: name and extra field may be longer here than in the directory."""
        with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as bytes_:
            at = entry.header_offset
            name, extra = (int.from_bytes(bytes_[at + i : at + i + 2], "little") for i in (26, 28))
        return at + _LOCAL_HEADER + name + extra

    def _damaged(self, key: str, error: Exception) -> DataError:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return DataError(f"{self.where}: {key} is damaged or cut short ({reason}): make or fetch it again")

    def lies_at(self, path: Path) -> bool:
        """Whether what is open here is still the file of that name, and was not replaced by another one."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), path.stat())
        except OSError:
            return False

    def close(self) -> None:
        """Give the file back."""
        for held in ("_archive", "_file"):  # neither may be there after a failed start
            if held in self.__dict__:
                getattr(self, held).close()

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> Npz:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Rows:
    """The rows of a uint8 array, front to back."""

    def __init__(self, npz: Npz, header: Header, member: IO[bytes]) -> None:
        self._npz, self._header, self._member, self._next = npz, header, member, 0
        self._row = math.prod(header.shape[1:])
        self._skip(header.start)

    def take(self, first: int, count: int) -> NDArray[np.uint8]:
        """Rows first..first+count-1, which must not lie before those taken last; uint8 (count, ...), writable.

        Raises:
            DataError: damaged; the sum over all bytes is checked when the last row is taken.
        """
        self._skip((first - self._next) * self._row)
        block = np.empty((count, *self._header.shape[1:]), np.uint8)
        flat, filled = block.reshape(-1), 0
        while filled < len(flat):
            part = self._read(len(flat) - filled)
            flat[filled : filled + len(part)] = np.frombuffer(part, np.uint8)
            filled += len(part)
        self._next = first + count
        return block

    def close(self) -> None:
        """Give the member back."""
        self._member.close()

    def _skip(self, count: int) -> None:
        while count:
            count -= len(self._read(min(count, _CHUNK)))

    def _read(self, count: int) -> bytes:
        try:
            if part := self._member.read(min(count, _CHUNK)):
                return part
            raise EOFError("the bytes end too early")
        except _DAMAGE as e:
            raise self._npz._damaged(self._header.key, e) from e


def _map(f: IO[bytes], start: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    pages = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(pages, np.uint8, math.prod(shape), start).reshape(shape)


def is_npz(path: Path) -> bool:
    """By its name, or an archive with arrays in it that is called neither .npz nor .zip."""
    if path.suffix.lower() in (".npz", ".zip"):
        return path.suffix.lower() == ".npz"
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False  # for others to say
