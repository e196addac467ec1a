"""Features of many pictures in bounded memory: small sets as an array, large ones in a temporary file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
from numpy.typing import NDArray

IN_MEMORY = 128 << 20
"""Bytes up to which features stay in memory: 16,384 pictures of 2,048 features."""
CHUNK = 4096


class Rows:
    """float32 (N, D), put in any order and read in order.

    A context manager: the temporary file of a large set has no name and goes when it is closed.
    """

    def __init__(self, count: int, width: int, folder: Path | None = None) -> None:
        """`folder` is where the temporary file of a large set is made; default the system's own place."""
        self.shape = (count, width)
        self._memory: NDArray[np.float32] | None = None
        self._file: IO[bytes] | None = None
        if self.small:
            self._memory = np.empty(self.shape, dtype=np.float32)
        else:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
            self._file.truncate(4 * count * width)

    @staticmethod
    def fits(count: int, width: int) -> bool:
        """Whether so many features stay in memory, where library functions may take them at once."""
        return 4 * count * width <= IN_MEMORY

    @property
    def small(self) -> bool:
        """`fits` for these."""
        return self.fits(*self.shape)

    def put(self, start: int, rows: NDArray[np.float32]) -> None:
        """Rows start, start + 1, ..."""
        if self._memory is not None:
            self._memory[start : start + len(rows)] = rows
            return
        assert self._file is not None
        # Written, not mapped: a mapping would count as this process's memory.
        self._file.seek(4 * start * self.shape[1])
        self._file.write(np.ascontiguousarray(rows, dtype=np.float32).data)

    def array(self) -> NDArray[np.float32]:
        """All rows: the array itself, or a read-only map of the file."""
        if self._memory is not None:
            return self._memory
        assert self._file is not None
        self._file.flush()
        return np.memmap(self._file, dtype=np.float32, mode="r", shape=self.shape)

    def chunks(self) -> Iterator[NDArray[np.float32]]:
        """The rows in order, a few thousand at a time."""
        for start in range(0, self.shape[0], CHUNK):
            count = min(CHUNK, self.shape[0] - start)
            if self._memory is not None:
                yield self._memory[start : start + count]
                continue
            assert self._file is not None
            self._file.seek(4 * start * self.shape[1])
            data = self._file.read(4 * count * self.shape[1])
            yield np.frombuffer(data, dtype=np.float32).reshape(count, self.shape[1])

    def __enter__(self) -> Rows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
