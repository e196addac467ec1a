"""Images in an .npz file, read with NumPy and never unpickled.

`arr_0` uint8 (N, H, W, C) or (N, H, W), C in 1, 3, 4, with `arr_1` int (N,) if there are labels: the layout of
guided-diffusion's evaluation suite and of `sagan sample`. The names images/labels and x/y are accepted as well. An
array is copied to a temporary file and mapped, so that memory does not grow with the number of images.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from sagan_cli.contracts import Fingerprinted
from sagan_cli.data.decode import MAX_PIXELS, Pixels, fit
from sagan_cli.data.sources.folders import FileBacked
from sagan_cli.errors import DataError, SaganError
from sagan_cli.evaluation.images.source import MAX_BATCH_BYTES, ImageSource, Indices
from sagan_cli.evaluation.metrics.bootstrap import take_rows

KEYS = (("arr_0", "arr_1"), ("images", "labels"), ("x", "y"))
"""Accepted names of images and labels; the first pair found is used."""
MAGIC = b"PK\x03\x04"
"""The first bytes of every .npz that holds an array."""
_CHUNK = 1 << 20
_HASHED_BYTES = 4 << 20
_ASYMMETRY = 1e-6
"""Largest difference between sigma and its transpose, relative to its largest entry: more than rounding causes."""
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError)


@dataclass(frozen=True)
class ArrayHeader:
    """The declaration of one array of an .npz."""

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
    """An open .npz file. Close it, or use it in a `with` block."""

    def __init__(self, source: Path | IO[bytes], where: str) -> None:
        """Read the table of contents.

        Args:
            source: a path, or a seekable file, which is closed with this object.
            where: the name of the file in messages.

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
        found = [info for info in self._archive.infolist() if info.filename.endswith(".npy")]
        self._entries = {info.filename.removesuffix(".npy"): info for info in found}

    @property
    def keys(self) -> list[str]:
        """Names of the arrays, in the order of the file."""
        return list(self._entries)

    def header(self, key: str) -> ArrayHeader:
        """Read the header of array `key` and compare it with the size of its data.

        Raises:
            DataError: damaged, truncated, encrypted, or an array of Python objects.
        """
        entry = self._entries[key]
        if entry.flag_bits & 0x1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(
                f"{self.where}: {key} is encrypted or compressed in a way that NumPy does not use: save it again"
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
        # NumPy evaluates the header as a Python literal, so a damaged one can raise nearly anything.
        except Exception as e:
            raise self._damaged(key, e) from e
        if dtype.hasobject:
            raise DataError(f"{self.where}: {key} holds Python objects, which are never unpickled: save a plain array")
        expected = start + math.prod(shape) * dtype.itemsize
        if entry.file_size != expected:
            raise DataError(
                f"{self.where}: {key} has {entry.file_size:,} bytes where {expected:,} belong: make or fetch it again"
            )
        return ArrayHeader(key, dtype, shape, fortran, start, entry)

    def array(self, header: ArrayHeader) -> NDArray[Any]:
        """Return an array, mapped from a temporary copy; the archive's checksum is verified.

        Raises:
            DataError: damaged.
            SaganError: no room for the copy.
        """
        order = "F" if header.fortran else "C"
        with temporary_file(self._chunks(header)) as f:
            if f.seek(0, os.SEEK_END) != header.entry.file_size:
                raise self._damaged(header.key, EOFError("the data end too early"))
            return np.memmap(f, header.dtype, "r", header.start, header.shape, order)  # type: ignore[call-overload]

    def _chunks(self, header: ArrayHeader) -> Iterator[bytes]:
        try:
            with self._archive.open(header.entry) as f:
                yield from iter(lambda: f.read(_CHUNK), b"")
        except _DAMAGE as e:
            raise self._damaged(header.key, e) from e

    def _damaged(self, key: str, error: Exception) -> DataError:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return DataError(f"{self.where}: {key} is damaged or cut short ({reason}): make or fetch it again")

    def lies_at(self, path: Path) -> bool:
        """Return whether `path` is still the open file, not a file that replaced it."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), path.stat())
        except OSError:
            return False

    def close(self) -> None:
        """Close the file."""
        for held in ("_archive", "_file"):  # either may be missing after a failed start
            if held in self.__dict__:
                getattr(self, held).close()

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> Npz:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class NpzImages(ImageSource):
    """The images of an .npz."""

    def __init__(self, npz: Npz, name: str, path: Path | None) -> None:
        """Check the arrays' headers and read the labels.

        Args:
            npz: closed with this object.
            path: its path; None for standard input.

        Raises:
            DataError: it has no images, or not as uint8.
        """
        self.name, self.kind, self._npz, self._path = name, "npz" if path else "stdin", npz, path
        key, label_key = _keys(npz)
        self._header = npz.header(key)
        self._channels_first, (self._count, self._height, self._width, self._stored) = _layout(self._header, npz.where)
        self.channels = 1 if self._stored == 1 else 3
        if self._channels_first:
            self.notes = (f"{npz.where}: {self._header} has its channels first; read as (N, H, W, C)",)
        self._labels = _labels(npz, label_key, self._count) if label_key in npz.keys else None

    def __len__(self) -> int:
        return self._count

    @property
    def labels(self) -> NDArray[np.int64] | None:
        return self._labels

    def first_size(self) -> tuple[int, int]:
        return self._height, self._width

    def close(self) -> None:
        self._npz.close()

    @cached_property
    def _images(self) -> Pixels:
        """The array as it is stored."""
        return self._npz.array(self._header)

    def _read(self, indices: Indices, size: int, stopped: Callable[[], bool]) -> Generator[Pixels, None, None]:
        most = max(1, MAX_BATCH_BYTES // (self._height * self._width * max(self._stored, self.channels)))
        for start in range(0, len(indices), size):
            end = min(start + size, len(indices))
            for first in range(start, end, most):
                if stopped():
                    return
                block = self._in_layout(indices[first : min(first + most, end)])
                if self._stored == 4:
                    block = np.stack([fit(image, self._height, self._width, 3, "stretch") for image in block])
                yield block

    def _in_layout(self, indices: Indices) -> Pixels:
        """Return a copy of stored images as (n, H, W, C)."""
        block: Pixels = np.asarray(take_rows(self._images, indices))  # type: ignore[arg-type]
        if self._channels_first:
            return np.ascontiguousarray(block.transpose(0, 2, 3, 1))
        return block.reshape(len(block), self._height, self._width, self._stored)

    def _content(self) -> Fingerprinted:
        # If another file has replaced this one, the times at the path do not belong to the open file.
        return _NpzFile(self, self._path) if self._path and self._npz.lies_at(self._path) else self

    def fingerprint(self) -> str:
        """Return the sha256 over shape, images (N, H, W, C) and labels, whatever the compression and layout."""
        shape = (self._count, self._height, self._width, self._stored)
        total = hashlib.sha256(f"pictures 1, {shape}, {'un' * (self._labels is None)}labelled\n".encode())
        step = max(1, _HASHED_BYTES // math.prod(shape[1:]))
        for first in range(0, self._count, step):
            total.update(self._in_layout(np.arange(first, min(first + step, self._count))).data)
        if self._labels is not None:
            total.update(self._labels.astype("<i8").tobytes())
        return total.hexdigest()


class _NpzFile(FileBacked):
    """Caches the fingerprint of an .npz on disk by the file's times."""

    def __init__(self, images: NpzImages, path: Path) -> None:
        self._images, self._path = images, path

    def files(self) -> Sequence[tuple[str, Path]]:
        return [("", self._path)]

    def identity(self) -> str:
        return "npz 1"

    def fingerprint(self) -> str:
        return self._images.fingerprint()


def _keys(npz: Npz) -> tuple[str, str]:
    """Return the names of images and labels; the labels may be missing."""
    for pair in KEYS:
        if pair[0] in npz.keys:
            return pair
    if {"mu", "sigma"} <= set(npz.keys):
        raise DataError(f"{npz.where}: holds statistics (mu, sigma) and no images; they serve only as --data")
    there = ", ".join(npz.keys[:8]) or "nothing"
    raise DataError(f"{npz.where}: no array of images (there: {there}): save them as arr_0, images or x")


def _layout(header: ArrayHeader, where: str) -> tuple[bool, tuple[int, int, int, int]]:
    """Return whether channels come first, and (N, H, W, C)."""
    shape = header.shape
    if header.dtype != np.uint8:
        raise DataError(
            f"{where}: {header} must be uint8, 0 to 255: save e.g. (x * 255).round().astype('uint8') of 0..1 floats"
        )
    if len(shape) == 3 and shape[2] in (1, 3, 4):
        raise DataError(f"{where}: {header} is one image: save an array of images (N, H, W, C)")
    first = len(shape) == 4 and shape[3] not in (1, 3, 4) and shape[1] in (1, 3, 4)
    if len(shape) == 3:
        n, height, width, channels = *shape, 1
    elif first:
        n, channels, height, width = shape
    elif len(shape) == 4 and shape[3] in (1, 3, 4):
        n, height, width, channels = shape
    else:
        raise DataError(f"{where}: {header} is no array of images: save (N, H, W, C) with C of 1, 3 or 4, or (N, H, W)")
    if min(shape) < 1 or height * width > MAX_PIXELS:
        raise DataError(f"{where}: {header} holds no images that can be scored: save at least one, of sensible size")
    if header.fortran:
        raise DataError(f"{where}: {header} is in Fortran order: save np.ascontiguousarray of it")
    return first, (n, height, width, channels)


def _labels(npz: Npz, key: str, count: int) -> NDArray[np.int64] | None:
    header = npz.header(key)
    if header.shape != (count,) or header.dtype.kind not in "iu":
        raise DataError(f"{npz.where}: {header} are no labels: save integers of shape ({count},), or leave {key} out")
    values = np.array(npz.array(header), np.int64)
    if (values == -1).all():  # what `sagan sample` writes for a model without classes
        return None
    if values.min() < 0:
        raise DataError(f"{npz.where}: {key} holds the label {values.min()}: labels count from 0")
    return values


def is_npz(path: Path) -> bool:
    """Return whether a file is an .npz: by its name, or a zip archive of arrays under another name."""
    if path.suffix.lower() in (".npz", ".zip"):
        return path.suffix.lower() == ".npz"
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False  # the caller reports what it is instead


def read_statistics(path: Path, *, where: str | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return mean (D,) and covariance (D, D) of features, as pytorch-fid, EDM and others save them in an .npz.

    None if `path` is no .npz with `mu` and `sigma`, or if it holds images as well. Neither the file nor the arrays tell
    which extractor they were computed with.

    Args:
        where: the name of the file in messages, such as "--data stats.npz"; default the path.

    Raises:
        DataError: damaged, of wrong shapes, not finite, or no covariance.
    """
    where = where or str(path)
    if not path.is_file() or not _has_magic(path):
        return None
    with Npz(path, where) as npz:
        if not {"mu", "sigma"} <= set(npz.keys) or any(pair[0] in npz.keys for pair in KEYS):
            return None
        about_mu, about_sigma = npz.header("mu"), npz.header("sigma")
        for header, dimensions in ((about_mu, 1), (about_sigma, 2)):
            if header.dtype.kind != "f" or header.dtype.itemsize < 4 or len(header.shape) != dimensions:
                raise DataError(f"{where}: {header}: statistics are mu (D,) and sigma (D, D), float32 or float64")
        if about_sigma.shape != about_mu.shape * 2 or not about_mu.shape[0]:
            raise DataError(f"{where}: {about_mu} and {about_sigma} do not belong together: (D,) and (D, D) would")
        mu, sigma = (np.array(npz.array(header), np.float64) for header in (about_mu, about_sigma))
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise DataError(f"{where}: mu or sigma hold values that are not finite numbers: compute them again")
    if np.abs(sigma - sigma.T).max() > _ASYMMETRY * np.abs(sigma).max() or sigma.diagonal().min() < 0:
        raise DataError(f"{where}: sigma is no covariance (not symmetric, or negative variances): compute it again")
    return mu, sigma


def _has_magic(path: Path) -> bool:
    try:
        with path.open("rb") as f:
            return f.read(len(MAGIC)) == MAGIC
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror or e}") from e


def spooled(stream: IO[bytes], where: str) -> IO[bytes]:
    """Copy standard input to a temporary file, which a zip archive needs; the file is deleted when it is closed.

    Raises:
        DataError: no input, or not an .npz; reported after the first bytes.
        SaganError: no room for it.
    """
    start = stream.read(len(MAGIC))
    if start != MAGIC:
        found = f"what comes on stdin is not an .npz (it starts with {start!r})" if start else "nothing comes on stdin"
        raise DataError(f"{where}: {found}: pipe one in, as from `sagan sample --format npz --out -`")
    return temporary_file(itertools.chain([start], iter(lambda: stream.read(_CHUNK), b"")))


def temporary_file(chunks: Iterable[bytes]) -> IO[bytes]:
    """Return a temporary file with these bytes, deleted when it is closed.

    Raises:
        SaganError: no room for it.
    """
    try:
        f = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            f.writelines(chunks)
            f.seek(0)
        except BaseException:
            f.close()
            raise
    except OSError as e:
        raise SaganError(
            f"{tempfile.gettempdir()}: cannot hold the images while they are read ({e.strerror or e}): "
            "set TMPDIR to a folder with room"
        ) from e
    return cast(IO[bytes], f)
