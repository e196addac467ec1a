"""A .zip of images or class folders as a dataset, read without extracting it."""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sagan_cli.data.decode import Pixels, decode_image
from sagan_cli.data.sources.folders import FileBacked, Listing, arrange, is_hidden, printable
from sagan_cli.errors import BadImage, DataError

MAX_ENTRY = 256 << 20
"""Largest unpacked size of an image in bytes, far above the pixel limit of `decode`."""

DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, NotImplementedError, RuntimeError,
    ValueError, LookupError, MemoryError,
)  # fmt: skip
"""What Python's reader raises for damaged archives, depending on the place of the damage."""
_ENCRYPTED = 0x1


class ZipDataset(FileBacked):
    """Images inside `path`; every process opens the archive for itself."""

    def __init__(self, path: Path, listing: Listing, inner: str, unconditional: bool) -> None:
        self.path, self.listing, self.inner, self.unconditional = path, listing, inner, unconditional
        self.class_names: Sequence[str] = listing.class_names
        self._archive: zipfile.ZipFile | None = None
        self._entries: dict[str, zipfile.ZipInfo] = {}

    def __len__(self) -> int:
        return len(self.listing.names)

    def files(self) -> Sequence[tuple[str, Path]]:
        return [("", self.path)]  # without its name: a renamed archive is the same dataset

    def identity(self) -> str:
        return f"zip 1, under '{self.inner}', {'un' * self.unconditional}conditional"

    def name_of(self, index: int) -> str:
        """Return the path within the archive, for messages."""
        return printable(self.inner + self.listing.names[index])

    def read(self, index: int) -> tuple[Pixels, int]:
        image, label = self.image(index)
        return np.asarray(image), label

    def image(self, index: int) -> tuple[Image.Image, int]:
        """Read without the copy to an array."""
        if self._archive is None:
            self._archive = zipfile.ZipFile(self.path)
            self._entries = _entries(self._archive)
        entry = self._entries.get(self.inner + self.listing.names[index])
        if entry is None:
            raise BadImage("no longer in the archive")
        if entry.flag_bits & _ENCRYPTED:
            raise BadImage("encrypted")
        if entry.file_size > MAX_ENTRY:
            raise BadImage(f"too large: unpacks to {entry.file_size:,} bytes")
        try:
            data = self._archive.read(entry)  # at most the size checked above
        except DAMAGED as e:
            raise BadImage(f"damaged in the archive: {e}") from e
        return decode_image(io.BytesIO(data)), self.listing.labels[index]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_archive": None, "_entries": {}}


def open_zip(path: Path, inner: str = "", *, where: str, unconditional: bool) -> ZipDataset:
    """Open the images in the archive `path` below the folder `inner`, by the rules of `folders.arrange`.

    A single folder that contains everything is skipped.

    Raises:
        DataError: not a readable .zip, encrypted, or not arranged by the rules.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _entries(archive)
    except DAMAGED as e:
        reason = getattr(e, "strerror", None) or e
        raise DataError(f"--data {where}: not a .zip that can be read ({reason}): make or fetch it again") from e
    if entries and all(entry.flag_bits & _ENCRYPTED for entry in entries.values()):
        raise DataError(f"--data {where}: the archive is encrypted: unpack it and pass the folder")
    if inner:
        inner = inner.rstrip("/") + "/"
        if not any(name.startswith(inner) for name in entries):
            raise DataError(f"--data {where}: no folder '{inner.rstrip('/')}' in {path.name}")
    elif inner := _wrapper(entries):
        where = f"{where}/{inner.rstrip('/')}"
    names = (name[len(inner) :] for name in entries if name.startswith(inner))
    listing = arrange(names, where=where, unconditional=unconditional)
    return ZipDataset(path, listing, inner, unconditional)


def _entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the files by name, with "/" between the parts; the last of equal names is used."""
    return {info.filename.replace("\\", "/").lstrip("/"): info for info in archive.infolist() if not info.is_dir()}


def _wrapper(entries: dict[str, zipfile.ZipInfo]) -> str:
    shown = [name for name in entries if not any(is_hidden(part) for part in name.split("/"))]
    tops = {name.split("/", 1)[0] if "/" in name else "" for name in shown}
    return f"{tops.pop()}/" if len(tops) == 1 and "" not in tops else ""
