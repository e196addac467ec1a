"""A folder of pictures, or a folder of class folders, as a data set."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sagan_cli.data.decode import Pixels, decode_image
from sagan_cli.data.packing.fingerprint import FileBacked
from sagan_cli.data.sources.listing import Listing, arrange, is_hidden, printable
from sagan_cli.errors import DataError


class FolderDataset(FileBacked):
    """Pictures under `root`, each decoded when it is read."""

    def __init__(self, root: Path, listing: Listing) -> None:
        self.root, self.listing = root, listing
        self.class_names: Sequence[str] = listing.class_names

    def __len__(self) -> int:
        return len(self.listing.names)

    def files(self) -> Sequence[tuple[str, Path]]:
        return [(name, self.root / name) for name in self.listing.names]

    def identity(self) -> str:
        # Classes follow from the names; only whether they are used has to be said.
        return f"folder 1, {len(self.class_names)} classes"

    def name_of(self, index: int) -> str:
        """Path relative to the root, for messages."""
        return printable(self.listing.names[index])

    def read(self, index: int) -> tuple[Pixels, int]:
        image, label = self.image(index)
        return np.asarray(image), label

    def image(self, index: int) -> tuple[Image.Image, int]:
        """`read` without the copy into an array, which would take as long as decoding a JPEG."""
        return decode_image(self.root / self.listing.names[index]), self.listing.labels[index]


def open_folder(root: Path, *, where: str, unconditional: bool) -> FolderDataset:
    """The pictures under `root`, by the rules of `listing.arrange`; `where` is the folder as the user wrote it.

    Raises:
        DataError: no such arrangement, or a folder that cannot be read.
    """
    try:
        return FolderDataset(root, arrange(_walk(root, ""), where=where, unconditional=unconditional))
    except OSError as e:
        raise DataError(f"--data {where}: {e.filename or root} cannot be listed: {e.strerror}") from e


def _walk(folder: Path, prefix: str, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[str]:
    """Names of all files below, hidden ones left out; links are followed, except back up to a folder above."""
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if entry.is_dir():
                yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", above | {here})
            # A broken link counts as a picture that cannot be read. Pipes and devices would block: left out.
            elif entry.is_file() or entry.is_symlink():
                yield prefix + entry.name
