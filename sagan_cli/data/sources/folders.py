"""A folder of images, or of class folders, as a dataset; the base of all datasets of files."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from sagan_cli.contracts import Glance
from sagan_cli.data.decode import Pixels, decode_image
from sagan_cli.errors import DataError

SUFFIXES = frozenset({
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
    ".tga", ".jp2", ".avif",
})  # fmt: skip
"""Endings of image files, in lower case; other files in a folder or archive are ignored."""

_THREADS = 8
_BATCH = 256
"""Files hashed per task: sha256 of a small file takes less time than handing it to a thread."""


class FileBacked:
    """Base of datasets of files: `fingerprint` reads all bytes, `glance` reads none."""

    def files(self) -> Sequence[tuple[str, Path]]:
        """Return (name within the dataset, path) of every file, in a fixed order."""
        raise NotImplementedError

    def identity(self) -> str:
        """Return what else the content depends on: the split, the use of labels, the version of the rules."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """Return the sha256 over identity, names and bytes; a copy at another path has the same one."""
        total = hashlib.sha256(self.identity().encode())
        with ThreadPoolExecutor(_THREADS) as pool:
            for digests in pool.map(_digests, _batched(self.files(), _BATCH)):
                for digest in digests:
                    total.update(digest)
        return total.hexdigest()

    def glance(self) -> Glance:
        """Return the digest of stat alone, valid on this machine.

        The change time is included because the modification time can be set back.
        """
        key, newest = hashlib.sha256(self.identity().encode()), 0
        for name, path in self.files():
            try:
                s = path.stat()
                seen = (s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino)
                newest = max(newest, s.st_mtime_ns, s.st_ctime_ns)
            except OSError as e:
                seen = (-1, e.errno or 0, 0, 0)
            # The absolute path distinguishes datasets whose files are hard links to each other.
            key.update(f"{os.fsdecode(name)}\0{path.absolute()}\0{seen}\n".encode(errors="surrogateescape"))
        return Glance(key.hexdigest(), newest)


def _digests(files: Sequence[tuple[str, Path]]) -> list[bytes]:
    return [_digest(name, path) for name, path in files]


def _digest(name: str, path: Path) -> bytes:
    try:
        with path.open("rb") as f:
            content = hashlib.file_digest(f, "sha256").hexdigest()
    except OSError as e:
        # It is skipped as unreadable; repairing it must change the fingerprint.
        content = f"unreadable {e.errno}"
    return hashlib.sha256(f"{name}\0{content}".encode(errors="surrogateescape")).digest()


def _batched(items: Iterable[tuple[str, Path]], size: int) -> Iterator[list[tuple[str, Path]]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


class FolderDataset(FileBacked):
    """Images below `root`, decoded when they are read."""

    def __init__(self, root: Path, listing: Listing) -> None:
        self.root, self.listing = root, listing
        self.class_names: Sequence[str] = listing.class_names

    def __len__(self) -> int:
        return len(self.listing.names)

    def files(self) -> Sequence[tuple[str, Path]]:
        return [(name, self.root / name) for name in self.listing.names]

    def identity(self) -> str:
        # Classes follow from the names; here is whether they are used.
        return f"folder 1, {len(self.class_names)} classes"

    def name_of(self, index: int) -> str:
        """Return the path relative to the root, for messages."""
        return printable(self.listing.names[index])

    def read(self, index: int) -> tuple[Pixels, int]:
        image, label = self.image(index)
        return np.asarray(image), label

    def image(self, index: int) -> tuple[Image.Image, int]:
        """Read without the copy to an array, which takes as long as decoding a JPEG."""
        return decode_image(self.root / self.listing.names[index]), self.listing.labels[index]


def open_folder(root: Path, *, where: str, unconditional: bool) -> FolderDataset:
    """Open the images below `root` by the rules of `arrange`; `where` is the folder as the user wrote it.

    Raises:
        DataError: not arranged by the rules, or a folder cannot be read.
    """
    try:
        return FolderDataset(root, arrange(_walk(root, ""), where=where, unconditional=unconditional))
    except OSError as e:
        raise DataError(f"--data {where}: {e.filename or root} cannot be listed: {e.strerror}") from e


def _walk(root: Path, prefix: str) -> Iterator[str]:
    """Yield the names of all files below, without hidden ones.

    Every folder is visited once, by its own name before any link to it, so that links cannot lead in circles.
    """
    visited: set[tuple[int, int]] = set()
    links: list[tuple[Path, str]] = []
    folders = [(root, prefix)]
    while folders or links:
        folder, prefix = folders.pop() if folders else links.pop(0)
        status = folder.stat()
        if (status.st_dev, status.st_ino) in visited:
            continue
        visited.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if is_hidden(entry.name):
                    continue
                kind = _kind(entry)
                if kind == "folder":
                    (links if entry.is_symlink() else folders).append((folder / entry.name, f"{prefix}{entry.name}/"))
                elif kind == "file":
                    yield prefix + entry.name


def _kind(entry: os.DirEntry[str]) -> str:
    """Return `folder`, `file`, or `other` for pipes and devices, reading which may never end.

    A link that leads nowhere counts as a file, which is then reported as unreadable.
    """
    try:
        mode = entry.stat().st_mode
    except OSError:
        return "file"
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"


_IGNORED = frozenset({"__macosx", "thumbs.db", "desktop.ini", "@eadir"})
"""Files of other systems' file managers, in lower case."""

_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval", "evaluation"})
"""Folder names that divide a dataset into parts rather than classes, in lower case."""

_SHOWN = 4
"""Number of names given as examples in a message."""


@dataclass(frozen=True)
class Listing:
    """Image names in a fixed order, with labels; `class_names` is empty without classes."""

    names: tuple[str, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class _Folder:
    """Contents of one folder: number of images, and sub-folders that contain images at any depth."""

    path: PurePosixPath
    direct: int
    subs: tuple[str, ...]


def is_hidden(part: str) -> bool:
    """Return whether files and folders of this name are ignored."""
    return part.startswith(".") or part.lower() in _IGNORED


def arrange(files: Iterable[str], *, where: str, unconditional: bool) -> Listing:
    """Find images and classes among file names relative to a root, with "/" between the parts.

    Images directly in the root are a dataset without classes. Images in two or more folders, at any depth below them,
    have one class per folder, labelled in the order of the folder names (2 before 10). `unconditional` uses all images
    at any depth, without classes. `where` is the root as the user wrote it.

    Raises:
        DataError: no images; only one class; classes one level deeper; images next to class folders.
    """
    ours: list[str] = []
    others: list[str] = []
    for name in files:
        if not any(is_hidden(part) for part in name.split("/")):
            (ours if is_image_name(name) else others).append(name)
    names = sorted(ours)
    if not names:
        raise DataError(_nothing(where, sorted(others)))
    if unconditional:
        return Listing(tuple(names), (0,) * len(names), ())
    tree = _tree(names)
    root = tree[PurePosixPath()]
    if not root.subs:
        return Listing(tuple(names), (0,) * len(names), ())
    if root.direct:
        raise DataError(
            f"--data {where}: {_count(root.direct, 'image')} beside {_count(len(root.subs), 'folder')} of images "
            f"({_some(root.subs)}): move the loose ones into a class folder or out of here, or pass --unconditional "
            "to take all of them without classes"
        )
    _check_depth(tree, where)
    classes = sorted(root.subs, key=natural)
    label = {name: i for i, name in enumerate(classes)}
    return Listing(tuple(names), tuple(label[n.split("/", 1)[0]] for n in names), tuple(map(printable, classes)))


def natural(name: str) -> tuple[list[int | str], str]:
    """Return a sort key that orders numbers within names by value: img2 before img10."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", name))], name


def is_image_name(name: str) -> bool:
    """Return whether a file name has the ending of an image file, in any letter case."""
    return name[name.rfind(".") :].lower() in SUFFIXES


def printable(name: str) -> str:
    """Return a file name as valid text; bytes that are not UTF-8 become replacement characters."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _check_depth(tree: Mapping[PurePosixPath, _Folder], where: str) -> None:
    """Refuse a root whose folders are not classes; the message names the probable root."""
    root = tree[PurePosixPath()]
    folders = [tree[PurePosixPath(sub)] for sub in root.subs]
    if len(folders) == 1:
        inner = folders[0]
        while not inner.direct and len(inner.subs) == 1:
            inner = tree[inner.path / inner.subs[0]]
        if inner.subs and not inner.direct:
            raise DataError(
                f"--data {where}: the class folders ({_some(inner.subs)}) lie deeper, in {inner.path}: "
                f"pass --data {_join(where, inner.path)}"
            )
        raise DataError(
            f"--data {where}: one class folder only, '{inner.path}': pass --unconditional, "
            f"or --data {_join(where, inner.path)}"
        )
    # Splits, and folders that all have the same sub-folders, are not classes.
    splits = all(f.path.name.lower() in _SPLITS for f in folders)
    repeated = not any(f.direct for f in folders) and len({f.subs for f in folders}) == 1 and len(folders[0].subs) > 1
    if splits or repeated:
        within = f", each with {_some(folders[0].subs)}" if folders[0].subs else ""
        best = next((f for f in folders if f.path.name.lower().startswith("train")), folders[0])
        raise DataError(
            f"--data {where}: its folders ({_some(root.subs)}) are parts of the dataset and not classes{within}: "
            f"pass --data {_join(where, best.path)}, or --unconditional to take all of them without classes"
        )


def _tree(names: Iterable[str]) -> dict[PurePosixPath, _Folder]:
    """Return all folders that contain images at any depth, including the root."""
    # Strings first, because path objects for a million images take seconds.
    direct = {PurePosixPath(f): n for f, n in Counter(name.rpartition("/")[0] for name in names).items()}
    subs: dict[PurePosixPath, set[str]] = {PurePosixPath(): set()}
    for folder in direct:
        for path in (folder, *folder.parents):
            subs.setdefault(path, set())
            if path.name:
                subs.setdefault(path.parent, set()).add(path.name)
    return {path: _Folder(path, direct.get(path, 0), tuple(sorted(below))) for path, below in subs.items()}


def _nothing(where: str, others: Sequence[str]) -> str:
    if not others:
        return f"--data {where}: empty: put images or folders of images there"
    archive = next((name for name in others if name.lower().endswith(".zip")), None)
    out = f"pass --data {_join(where, archive)}" if archive else "put .png, .jpg or .webp images there"
    return f"--data {where}: no images, only {_count(len(others), 'other file')} ({_some(others)}): {out}"


def _join(where: str, inner: PurePosixPath | str) -> str:
    return f"{where.rstrip('/')}/{inner}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
