"""Pictures in one array of an .npz, as `sagan sample`, guided-diffusion and others write them.

`arr_0` uint8 (N, H, W, C) or (N, H, W), C in 1, 3, 4, with `arr_1` int (N,) if there are labels (the layout of
guided-diffusion's evaluation suite); also under the names images/labels and x/y.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sagan_cli.data.decode import MAX_PIXELS, Pixels, fit
from sagan_cli.data.packing.fingerprint import FileBacked, Fingerprinted
from sagan_cli.errors import DataError
from sagan_cli.evaluation.images.npz import Header, Npz
from sagan_cli.evaluation.images.pictures_base import MAX_BATCH_BYTES, Pictures, Places

KEYS = (("arr_0", "arr_1"), ("images", "labels"), ("x", "y"))
"""Names of pictures and labels that are understood, the first pair found counts."""

_HASHED_BYTES = 4 << 20


class NpzPictures(Pictures):
    """The pictures of an .npz, streamed."""

    def __init__(self, npz: Npz, name: str, path: Path | None) -> None:
        """Look at the arrays' headers, and read the labels.

        Args:
            npz: closed with this object.
            path: where it lies; None for what came on stdin.

        Raises:
            DataError: no pictures in it, or not as uint8.
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

    def _read(self, places: Places, size: int, stopped: Callable[[], bool]) -> Generator[Pixels, None, None]:
        most = max(1, MAX_BATCH_BYTES // (self._height * self._width * max(self._stored, self.channels)))
        cuts = [
            (first, min(first + most, start + size, len(places)))
            for start in range(0, len(places), size)
            for first in range(start, min(start + size, len(places)), most)
        ]
        forwards = bool((np.diff(places) > 0).all())
        rows = self._npz.rows(self._header) if forwards else None
        table = None if forwards else self._npz.mapped(self._header)
        try:
            for first, last in cuts:
                if stopped():
                    return
                part = places[first:last]
                if rows is not None:
                    runs = np.split(part, np.flatnonzero(np.diff(part) > 1) + 1)
                    taken = [rows.take(int(run[0]), len(run)) for run in runs]
                    block = taken[0] if len(taken) == 1 else np.concatenate(taken)
                else:
                    assert table is not None
                    block = table[part]
                yield self._opaque(self._plain(block))
        finally:
            if rows is not None:
                rows.close()

    def _plain(self, block: Pixels) -> Pixels:
        """Rows as they are stored -> (n, H, W, C)."""
        if self._channels_first:
            return np.ascontiguousarray(block.transpose(0, 2, 3, 1))
        return block.reshape(len(block), self._height, self._width, self._stored)

    def _opaque(self, block: Pixels) -> Pixels:
        if self._stored != 4:
            return block
        return np.stack([fit(picture, self._height, self._width, 3, "stretch") for picture in block])

    def _content(self) -> Fingerprinted:
        # Times of another file by now at that path say nothing of what is open here.
        return _NpzFile(self, self._path) if self._path and self._npz.lies_at(self._path) else self

    def fingerprint(self) -> str:
        """sha256 over shape, pictures (N, H, W, C) and labels; how they were packed or laid out does not matter."""
        shape = (self._count, self._height, self._width, self._stored)
        total = hashlib.sha256(f"pictures 1, {shape}, {'un' * (self._labels is None)}labelled\n".encode())
        rows = self._npz.rows(self._header)
        step = max(1, _HASHED_BYTES // math.prod(shape[1:]))
        try:
            for first in range(0, self._count, step):
                total.update(self._plain(rows.take(first, min(step, self._count - first))).data)
        finally:
            rows.close()
        if self._labels is not None:
            total.update(self._labels.astype("<i8").tobytes())
        return total.hexdigest()


class _NpzFile(FileBacked):
    """Lets the fingerprint of an .npz on disk be remembered by its times."""

    def __init__(self, pictures: NpzPictures, path: Path) -> None:
        self._pictures, self._path = pictures, path

    def files(self) -> Sequence[tuple[str, Path]]:
        return [("", self._path)]

    def identity(self) -> str:
        return "npz 1"

    def fingerprint(self) -> str:
        return self._pictures.fingerprint()


def _keys(npz: Npz) -> tuple[str, str]:
    """Which array holds the pictures and which, if it is there, the labels."""
    for pair in KEYS:
        if pair[0] in npz.keys:
            return pair
    if {"mu", "sigma"} <= set(npz.keys):
        raise DataError(f"{npz.where}: holds statistics (mu, sigma) and no pictures; they serve only as --data")
    there = ", ".join(npz.keys[:8]) or "nothing"
    raise DataError(f"{npz.where}: no array of pictures (there: {there}): save them as arr_0, images or x")


def _layout(header: Header, where: str) -> tuple[bool, tuple[int, int, int, int]]:
    """Whether channels come first, and (N, H, W, C)."""
    shape = header.shape
    if header.dtype != np.uint8:
        raise DataError(
            f"{where}: {header} must be uint8, 0 to 255: save e.g. (x * 255).round().astype('uint8') of 0..1 floats"
        )
    if len(shape) == 3 and shape[2] in (1, 3, 4):
        raise DataError(f"{where}: {header} is one picture: save an array of pictures (N, H, W, C)")
    first = len(shape) == 4 and shape[3] not in (1, 3, 4) and shape[1] in (1, 3, 4)
    if len(shape) == 3:
        n, height, width, channels = *shape, 1
    elif first:
        n, channels, height, width = shape
    elif len(shape) == 4 and shape[3] in (1, 3, 4):
        n, height, width, channels = shape
    else:
        raise DataError(
            f"{where}: {header} is no array of pictures: save (N, H, W, C) with C of 1, 3 or 4, or (N, H, W)"
        )
    if min(shape) < 1 or height * width > MAX_PIXELS:
        raise DataError(
            f"{where}: {header} holds no pictures that could be scored: save at least one, of sensible size"
        )
    if header.fortran:
        raise DataError(f"{where}: {header} is in Fortran order: save np.ascontiguousarray of it")
    return first, (n, height, width, channels)


def _labels(npz: Npz, key: str, count: int) -> NDArray[np.int64] | None:
    header = npz.header(key)
    if header.shape != (count,) or header.dtype.kind not in "iu":
        raise DataError(f"{npz.where}: {header} are no labels: save integers of shape ({count},), or leave {key} out")
    values = npz.values(header).astype(np.int64)
    if (values == -1).all():  # what `sagan sample` writes for a model without classes
        return None
    if values.min() < 0:
        raise DataError(f"{npz.where}: {key} holds the label {values.min()}: labels count from 0")
    return values
