"""Writes a .npy file row by row, its length known only at the end."""

from __future__ import annotations

import io
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class NpyWriter:
    """Appends rows of one shape; on leaving the `with` block the header says how many there are.

    NumPy pads the header so that the first dimension can grow in place (format version 1.0, "growth axis").
    """

    def __init__(self, path: Path, dtype: DTypeLike, row: tuple[int, ...]) -> None:
        self._dtype, self._row, self._count = np.dtype(dtype), row, 0
        self._file = path.open("wb")
        self._file.write(self._header())

    def append(self, rows: NDArray[Any]) -> None:
        """Rows of shape (n, *row), C order."""
        if rows.shape[1:] != self._row or rows.dtype != self._dtype:
            raise ValueError(f"{rows.dtype} {rows.shape[1:]} in a file of {self._dtype} {self._row}")
        self._file.write(np.ascontiguousarray(rows).data)
        self._count += len(rows)

    def _header(self) -> bytes:
        out = io.BytesIO()
        fields = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._count, *self._row)}
        np.lib.format.write_array_header_1_0(out, fields)
        return out.getvalue()

    def __enter__(self) -> NpyWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if error is None:
                self._file.seek(0)
                self._file.write(self._header())
