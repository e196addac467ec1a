"""What a data set made of files is, as a text: by its bytes, and (to avoid reading those each time) by its times."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

_THREADS = 8
_BATCH = 256
"""Files hashed per task: sha256 of a small file takes less time than handing it to a thread."""


@dataclass(frozen=True)
class Glance:
    """What stat says of a data set's files; equal glances mean equal bytes, except within a clock's tick."""

    key: str
    newest: int
    """The latest change of any file, ns since the epoch."""


class Fingerprinted(Protocol):
    """Anything whose content has a fingerprint; a method `glance`, if it has one, says when that need not be redone."""

    def fingerprint(self) -> str:
        """A text that differs whenever the content differs."""
        ...


class FileBacked:
    """A data set whose pictures lie in files: gives it `fingerprint` (reads all bytes) and `glance` (reads none)."""

    def files(self) -> Sequence[tuple[str, Path]]:
        """(name that belongs to the data set, place on this machine) of every file, in a fixed order."""
        raise NotImplementedError

    def identity(self) -> str:
        """What else decides pictures, labels and order: the split, whether labels are used, the rules' version."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """sha256 over identity, names and bytes; places and times do not matter, so a copy has the same one."""
        total = hashlib.sha256(self.identity().encode())
        with ThreadPoolExecutor(_THREADS) as pool:
            for digests in pool.map(_digests, _batched(self.files(), _BATCH)):
                for digest in digests:
                    total.update(digest)
        return total.hexdigest()

    def glance(self) -> Glance:
        """The same question answered from stat alone, for this machine only.

        The change time is included because a file's modification time can be set back by hand.
        """
        key, newest = hashlib.sha256(self.identity().encode()), 0
        for name, path in self.files():
            try:
                s = path.stat()
                seen = (s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino)
                newest = max(newest, s.st_mtime_ns, s.st_ctime_ns)
            except OSError as e:
                seen = (-1, e.errno or 0, 0, 0)
            # The absolute place keeps apart two data sets whose files are hard links to each other.
            key.update(f"{os.fsdecode(name)}\0{path.absolute()}\0{seen}\n".encode(errors="surrogateescape"))
        return Glance(key.hexdigest(), newest)


def _digests(files: Sequence[tuple[str, Path]]) -> list[bytes]:
    return [_digest(name, path) for name, path in files]


def _digest(name: str, path: Path) -> bytes:
    try:
        with path.open("rb") as f:
            content = hashlib.file_digest(f, "sha256").hexdigest()
    except OSError as e:
        # It will be skipped as unreadable; mending it must then change the fingerprint.
        content = f"unreadable {e.errno}"
    return hashlib.sha256(f"{name}\0{content}".encode(errors="surrogateescape")).digest()


def _batched(items: Iterable[tuple[str, Path]], size: int) -> Iterator[list[tuple[str, Path]]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


@dataclass(frozen=True)
class Hints:
    """Carried as the attribute `hints`; a data set without it gets these defaults."""

    fit: str = "crop"
    """What `--fit auto` means for it."""
    channels: int | None = None
    """What `--channels auto` means for it; None looks at the pictures."""
    in_process: bool = False
    """Reading a picture costs less than sending it to another process."""


def hints_of(dataset: object) -> Hints:
    """The data set's own hints, or the defaults."""
    hints = getattr(dataset, "hints", None)
    return hints if isinstance(hints, Hints) else Hints()
