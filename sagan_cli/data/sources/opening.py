"""Open the dataset that `--data` names; it is packed later. No torch."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagan_cli.config.schema import Config
from sagan_cli.contracts import Dataset, Glance, Hints
from sagan_cli.data.decode import Pixels
from sagan_cli.data.sources.archives import open_zip
from sagan_cli.data.sources.folders import is_image_name, open_folder
from sagan_cli.errors import UsageError, closest
from sagan_cli.geometry import Shape, parse_shape


@dataclass(frozen=True)
class Opened:
    """A dataset that is open and not yet packed."""

    dataset: Dataset
    form: Shape


def open_data(config: Config, *, download: bool = False) -> Opened:
    """Open the dataset of a configuration and decide the image size.

    Raises:
        UsageError: no such path, name, size or feature map.
        DataError: the images cannot be used.
    """
    data, root = config.data, Path(config.data.data_root)
    # An invalid size is reported before any folder is searched.
    native = None
    if data.size == "auto":
        native = native_size(data.data, root, data.split)
    form = parse_shape(data.size, config.model.attn_at, native)
    dataset = open_source(
        data.data, data_root=root, split=data.split, height=form.height, width=form.width,
        unconditional=data.unconditional, download=download,
    )  # fmt: skip
    return Opened(dataset, form)


_ACCEPTED = "a folder of images, of class folders or of IDX files, or a .zip"


def open_source(
    data: str,
    *,
    data_root: Path,
    split: str,
    height: int,
    width: int,
    unconditional: bool,
    download: bool = False,
) -> Dataset:
    """Open the dataset that `data` names.

    A registered name is preferred to a folder of the same name; `./name` is the folder. A path into an archive
    (`set.zip/train`) is a folder in it.

    Raises:
        UsageError: neither a path nor a name.
        DataError: it exists and cannot be used.
    """
    path = _path(data)
    if path is None:
        return _named(data, data_root, split, height, width, unconditional, download)
    if download:
        raise UsageError(f"--download fetches named datasets, and --data {data} is a path: leave one of them out")
    archive, inner = _split_archive(path)
    if archive is not None:
        return open_zip(archive, inner, where=data, unconditional=unconditional)
    if path.is_dir():
        if _has_idx_files(path):
            from sagan_cli.data.sources.idx import open_idx

            return open_idx(path, split=split, height=height, width=width, where=data, unconditional=unconditional)
        return open_folder(path, where=data, unconditional=unconditional)
    if is_image_name(path.name):
        raise UsageError(f"--data {data}: one image only: pass the folder that holds it")
    raise UsageError(f"--data {data}: neither a folder nor a .zip: pass {_ACCEPTED}")


def has_parts(data: str) -> bool:
    """Return whether it has splits: a registered dataset, or a folder of IDX files."""
    path = _path(data)
    return path is None or (path.is_dir() and _has_idx_files(path))


def native_size(data: str, data_root: Path, split: str) -> tuple[int, int] | None:
    """Return the default height and width of a dataset; None for folders and archives.

    Raises:
        UsageError, DataError: as `open_source`.
    """
    path = _path(data)
    if path is not None:
        if not path.is_dir() or not _has_idx_files(path):
            return None
        from sagan_cli.data.sources.idx import idx_side

        side = idx_side(path, split)
        return side, side
    from sagan_cli.plugins import registry

    size = getattr(registry.load("datasets", data), "native_size", None)
    if size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def _has_idx_files(folder: Path) -> bool:
    if not any("-ubyte" in p.name.lower() for p in folder.iterdir()):
        return False
    from sagan_cli.data.sources.idx import is_idx_folder

    return is_idx_folder(folder)


def hints_of(dataset: object) -> Hints:
    """Return the dataset's own hints, or the defaults."""
    hints = getattr(dataset, "hints", None)
    return hints if isinstance(hints, Hints) else Hints()


class Unlabelled:
    """A dataset without its classes."""

    class_names: Sequence[str] = ()

    def __init__(self, inner: Dataset) -> None:
        self.inner, self.hints = inner, hints_of(inner)

    def __len__(self) -> int:
        return len(self.inner)

    def fingerprint(self) -> str:
        return f"unlabelled {self.inner.fingerprint()}"

    def glance(self) -> Glance | None:
        look = getattr(self.inner, "glance", None)
        seen: Glance | None = look() if look else None
        return seen and Glance(f"unlabelled {seen.key}", seen.newest)

    def name_of(self, index: int) -> str:
        """Return the name of an image in the inner dataset."""
        named = getattr(self.inner, "name_of", None)
        return named(index) if named else f"image {index}"

    def read(self, index: int) -> tuple[Pixels, int]:
        return self.inner.read(index)[0], 0


def _path(data: str) -> Path | None:
    """Return `data` as an existing path, or None for a registered name.

    Raises:
        UsageError: it is neither.
    """
    from sagan_cli.plugins import registry

    path = Path(data).expanduser()
    if "/" in data or "\\" in data or data in (".", "..") or data.startswith("~"):
        if path.exists() or _split_archive(path)[0] is not None:
            return path
        raise UsageError(f"--data {data}: no such file or folder{_beside(path)}")
    names = registry.names("datasets")
    if data in names:
        return None
    if data and path.exists():
        return path
    raise UsageError(
        f"--data {data}: no such path and no such dataset{closest(data, names)}: "
        f"pass {_ACCEPTED}, or one of {', '.join(sorted(names))}"
    )


def _beside(path: Path) -> str:
    parent = path.parent
    return closest(path.name, [p.name for p in parent.iterdir()]) if parent.is_dir() else ""


def _split_archive(path: Path) -> tuple[Path | None, str]:
    """Return (archive, folder in it) if `path` is a .zip file or a path into one."""
    for candidate in (path, *path.parents):
        if candidate.is_file():
            if candidate.suffix.lower() == ".zip" or (candidate == path and zipfile.is_zipfile(candidate)):
                return candidate, path.relative_to(candidate).as_posix().removeprefix(".")
            break
    return None, ""


def _named(name: str, root: Path, split: str, height: int, width: int, unconditional: bool, download: bool) -> Dataset:
    from sagan_cli.plugins import registry

    factory = registry.load("datasets", name)
    more: dict[str, Any] = {}
    if download:
        if not getattr(factory, "can_download", False):
            raise UsageError(f"--download: the dataset '{name}' has nothing to download: leave the flag out")
        more["download"] = True
    dataset: Dataset = factory(root, split=split, height=height, width=width, **more)
    return Unlabelled(dataset) if unconditional and dataset.class_names else dataset
