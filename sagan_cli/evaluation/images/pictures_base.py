"""What pictures that are scored as they are offer, whatever they lie in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sagan_cli.data.decode import Pixels
from sagan_cli.data.packing.ahead import ahead
from sagan_cli.data.packing.fingerprint import Fingerprinted
from sagan_cli.data.packing.pack import cache_dir, content_of

MAX_BATCH_BYTES = 512 << 20
"""Bytes of pictures in one array: a batch of very large ones comes in several."""

Places = NDArray[np.int64]


class Pictures(ABC):
    """Numbered uint8 pictures, none of them resized. Close it, or use it in a `with` block."""

    name: str
    """As the user gave it."""
    kind: str
    """"folder", "zip", "idx", "npz", "stdin", or "named" for a data set of the registry."""
    channels: int
    """3, or 1 where the source can hold gray pictures only (IDX files, an .npz of gray ones)."""
    class_names: tuple[str, ...] = ()
    """One name per label; empty where there are no labels, or labels without names (.npz)."""
    notes: tuple[str, ...] = ()
    """What was done about an unusual layout, a line each, for the user."""
    sizes_vary: bool = False
    """Whether the pictures read so far differ in size."""
    _digest: str | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def labels(self) -> NDArray[np.int64] | None:
        """(N,), or None where the pictures have none. May read pictures that were not read before."""

    @abstractmethod
    def first_size(self) -> tuple[int, int]:
        """Height and width of picture 0, in pixels.

        Raises:
            DataError: it cannot be read.
        """

    def digest(self, cache: Path | None = None) -> str:
        """sha256 (hex) over pictures, labels and order; equal digests mean equal scores.

        Files are read once and then remembered by their times, in `fingerprints` of `cache` (default: the data cache),
        so that a second call reads none. The place of files does not matter; for folders their names do.

        Raises:
            DataError: damaged, or files that changed while they were read.
        """
        if self._digest is None:
            self._digest = content_of(self._content(), (cache or cache_dir()) / "fingerprints")[0]
        return self._digest

    def batches(self, size: int, order: Places | None = None) -> Iterator[Pixels]:
        """uint8 (n, H, W, `channels`), in order, the next batch being read in the background meanwhile.

        Cut exactly at `size`, 2 `size`, ... pictures; in between also where the size of the pictures changes, and where
        an array would exceed `MAX_BATCH_BYTES`. Memory does not depend on the number of pictures.

        Args:
            order: places of pictures, any of them, in any order; None is all of them in turn.

        Raises:
            ValueError: a size below 1, or a place that is none.
            DataError: while iterating, a picture that cannot be read. Leaving it out would change the score unseen.
        """
        places = np.arange(len(self)) if order is None else np.asarray(order, np.int64)
        if size < 1:
            raise ValueError(f"batches of {size}")
        if places.ndim != 1 or (len(places) and not 0 <= places.min() <= places.max() < len(self)):
            raise ValueError(f"places outside 0..{len(self) - 1}")
        return ahead(lambda stopped: self._read(places, size, stopped))

    @abstractmethod
    def _read(self, places: Places, size: int, stopped: Callable[[], bool]) -> Generator[Pixels, None, None]:
        """`batches`, in the thread that runs ahead; ends early once `stopped()` is true."""

    @abstractmethod
    def _content(self) -> Fingerprinted:
        """What `digest` is taken of; its fingerprint is a sha256 in hex."""

    @abstractmethod
    def close(self) -> None:
        """Give files back."""

    def __enter__(self) -> Pictures:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
