"""The interface of images that are scored as they are."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sagan_cli.contracts import Fingerprinted
from sagan_cli.data.decode import Pixels
from sagan_cli.data.packing.pack import cache_dir, content_of

MAX_BATCH_BYTES = 512 << 20
"""Bytes of images in one array; a larger batch is divided."""

Indices = NDArray[np.int64]
T = TypeVar("T")


class ImageSource(ABC):
    """Numbered uint8 images, not resized. Close it, or use it in a `with` block."""

    name: str
    """As the user gave it."""
    kind: str
    """"folder", "zip", "idx", "npz", "stdin", or "named" for a registered dataset."""
    channels: int
    """3, or 1 if the source can hold gray images only (IDX files, an .npz of gray images)."""
    class_names: tuple[str, ...] = ()
    """One name per label; empty without labels, or for labels without names (.npz)."""
    notes: tuple[str, ...] = ()
    """Lines for the user about an unusual layout."""
    sizes_vary: bool = False
    """Whether the images read so far differ in size."""
    _digest: str | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def labels(self) -> NDArray[np.int64] | None:
        """(N,), or None without labels. May read all images."""

    @abstractmethod
    def first_size(self) -> tuple[int, int]:
        """Return height and width of image 0, in pixels.

        Raises:
            DataError: it cannot be read.
        """

    def digest(self, cache: Path | None = None) -> str:
        """Return the sha256 (hex) over images, labels and order; equal digests mean equal scores.

        The digest of files is cached by their times, in `fingerprints` of `cache` (default: the data cache), so that a
        second call reads no image. The path of files does not matter; their names in a folder do.

        Raises:
            DataError: damaged, or files that changed while they were read.
        """
        if self._digest is None:
            self._digest = content_of(self._content(), (cache or cache_dir()) / "fingerprints")[0]
        return self._digest

    def batches(self, size: int, order: Indices | None = None) -> Iterator[Pixels]:
        """Yield uint8 (n, H, W, `channels`); the next batch is read in a background thread.

        A batch ends after `size` images, where the size of the images changes, and at `MAX_BATCH_BYTES`. Memory does
        not depend on the number of images.

        Args:
            order: indices of images, any of them, in any order; None is all of them in turn.

        Raises:
            ValueError: a size below 1, or an index out of range.
            DataError: while iterating, an image cannot be read. Leaving it out would change the score silently.
        """
        indices = np.arange(len(self)) if order is None else np.asarray(order, np.int64)
        if size < 1:
            raise ValueError(f"batches of {size}")
        if indices.ndim != 1 or (len(indices) and not 0 <= indices.min() <= indices.max() < len(self)):
            raise ValueError(f"indices outside 0..{len(self) - 1}")
        return read_ahead(lambda stopped: self._read(indices, size, stopped))

    @abstractmethod
    def _read(self, indices: Indices, size: int, stopped: Callable[[], bool]) -> Generator[Pixels, None, None]:
        """Yield `batches` in the background thread; end early once `stopped()` is true."""

    @abstractmethod
    def _content(self) -> Fingerprinted:
        """Return the object whose fingerprint, a sha256 in hex, is the digest."""

    @abstractmethod
    def close(self) -> None:
        """Close files."""

    def __enter__(self) -> ImageSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_ahead(make: Callable[[Callable[[], bool]], Generator[T, None, None]]) -> Generator[T, None, None]:
    """Yield the items of `make(stopped)`, computing the next one in a background thread.

    At most two items exist besides the consumer's. An exception in `make` reaches the consumer in its place. Closing
    the generator early makes `stopped()` true and waits for the thread.
    """
    stop = threading.Event()
    items = make(stop.is_set)
    pool = ThreadPoolExecutor(1, thread_name_prefix="sagan-ahead")
    try:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item
            del item  # otherwise it is kept while the next one is computed
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        items.close()
