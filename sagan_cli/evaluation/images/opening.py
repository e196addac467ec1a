"""Open images that are scored as they are: a folder, archive, IDX files, an .npz, standard input or a named dataset.

Order and pixels are those of torch-fidelity's directory input: files sorted by name, first frame, RGB. There are four
differences, each as in training: the camera's rotation is applied, transparency is blended with white instead of
dropped, 16 bits are scaled instead of clipped, and class folders are read.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import zipfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sagan_cli.contracts import Dataset, Glance
from sagan_cli.data.decode import Pixels, fit
from sagan_cli.data.packing.build import name_of
from sagan_cli.data.sources import opening as sources
from sagan_cli.data.sources.archives import ZipDataset
from sagan_cli.data.sources.folders import FileBacked, FolderDataset, is_image_name
from sagan_cli.data.sources.idx import IdxDataset
from sagan_cli.errors import BadImage, DataError, PluginError, SaganError, UsageError
from sagan_cli.evaluation.images.npz import Npz, NpzImages, is_npz, spooled
from sagan_cli.evaluation.images.source import MAX_BATCH_BYTES, ImageSource, Indices
from sagan_cli.geometry import DEFAULT_SIZE
from sagan_cli.plugins import registry

ACCEPTED = "a folder of images, a .zip of them, IDX files, an .npz, or - for an .npz on stdin"


def open_images(
    target: str,
    *,
    flag: str,
    stdin: IO[bytes] | None = None,
    data_root: Path = Path("data"),
    split: str = "train",
    height: int | None = None,
    width: int | None = None,
    unconditional: bool = False,
) -> ImageSource:
    """Open the images that `target` names: whatever `--data` accepts, an .npz, or "-" for an .npz on standard input.

    Args:
        flag: its name in messages: "--data", or an argument's name such as "FOLDER".
        stdin: standard input; None if there is none.
        data_root, split: for named datasets; `split` for IDX files too.
        height, width: size of a drawn dataset; None is its own size.
        unconditional: use all images at any depth, without classes.

    Raises:
        UsageError: no such path or name.
        DataError: it exists and cannot be scored.
    """
    where = f"{flag} {target}".strip()
    if target == "-":
        if stdin is None or stdin.isatty():
            raise UsageError(f"{where}: nothing comes on stdin: pipe an .npz in, or name {ACCEPTED}")
        return _npz(spooled(stdin, where), target, where, None)
    path = Path(target).expanduser()
    named = target in registry.names("datasets")
    if path.suffix.lower() == ".npz" and not path.exists():
        raise UsageError(f"{where}: no such file")
    if path.is_file() and not named:
        if is_npz(path):
            return _npz(path, target, where, path)
        if path.suffix.lower() != ".zip" and not is_image_name(path.name) and not zipfile.is_zipfile(path):
            raise UsageError(f"{where}: holds no images that can be scored: name {ACCEPTED}")
    with _named_by(flag):
        own = sources.native_size(target, data_root, split) or (DEFAULT_SIZE, DEFAULT_SIZE)
        height, width = (height, width or height) if height else own
        dataset = sources.open_source(
            target, data_root=data_root, split=split, height=height, width=width, unconditional=unconditional
        )
    return DatasetImages(dataset, target, where)


class DatasetImages(ImageSource):
    """The images of a dataset, each at its own size."""

    def __init__(self, dataset: Dataset, name: str, where: str) -> None:
        if len(dataset) == 0:
            raise DataError(f"{where}: holds no images: put some there")
        self.name, self.kind, self._where, self._dataset = name, _kind(dataset, name), where, dataset
        self.channels = 1 if sources.hints_of(dataset).channels == 1 else 3
        self.class_names = tuple(dataset.class_names)
        self._labels = np.full(len(dataset), -1, np.int64)
        self._size: tuple[int, ...] | None = None
        self._one_at_a_time = threading.Lock()  # a dataset need not be thread-safe

    def __len__(self) -> int:
        return len(self._dataset)

    @property
    def labels(self) -> NDArray[np.int64] | None:
        if not self.class_names:
            return None
        listing = getattr(self._dataset, "listing", None)
        if listing is not None:
            return np.array(listing.labels, np.int64)
        for index in np.flatnonzero(self._labels < 0):
            self._picture(int(index))
        return self._labels.copy()

    def first_size(self) -> tuple[int, int]:
        height, width, _ = self._picture(0).shape
        return height, width

    def close(self) -> None:
        """Do nothing: datasets close their own files."""

    def _read(self, indices: Indices, size: int, stopped: Callable[[], bool]) -> Generator[Pixels, None, None]:
        for start in range(0, len(indices), size):
            left = indices[start : start + size].tolist()
            block, filled = np.empty(0, np.uint8), 0
            while left:
                if stopped():
                    return
                picture = self._picture(left[0])
                if filled and (picture.shape != block.shape[1:] or filled == len(block)):
                    yield block[:filled]
                    filled = 0
                if not filled:
                    room = max(1, min(len(left), MAX_BATCH_BYTES // picture.nbytes))
                    block = np.empty((room, *picture.shape), np.uint8)
                block[filled] = picture
                filled += 1
                del left[0]
            yield block[:filled]

    def _picture(self, index: int) -> Pixels:
        """uint8 (H, W, channels)."""
        # `image` saves a copy.
        read: Callable[[int], tuple[Any, int]] = getattr(self._dataset, "image", self._dataset.read)
        name = name_of(self._dataset, index)
        try:
            with self._one_at_a_time:
                picture, label = read(index)
        except BadImage as e:
            raise DataError(
                f"{self._where}: {name} cannot be read ({e}): fix or remove it: no image is left out of a score"
            ) from e
        except OSError as e:
            raise DataError(f"{self._where}: {name} cannot be read: {e.strerror or e}") from e
        except Exception as e:
            if isinstance(self._dataset, FileBacked) or isinstance(e, SaganError):
                raise  # reported already, or a bug whose traceback is kept
            raise PluginError(f"{self._where}: the dataset failed at {name}: {type(e).__name__}: {e}") from e
        pixels = self._plain(picture, name)
        if self.class_names:
            if not 0 <= label < len(self.class_names):
                raise DataError(f"{self._where}: {name} has label {label} of {len(self.class_names)} classes")
            self._labels[index] = label
        self._size = self._size or pixels.shape
        self.sizes_vary = self.sizes_vary or pixels.shape != self._size
        return pixels

    def _plain(self, picture: Any, name: str) -> Pixels:
        if isinstance(picture, Image.Image):
            if picture.mode == "RGB" and self.channels == 3:
                return np.asarray(picture)
            return fit(picture, picture.height, picture.width, self.channels, "stretch")
        pixels: Pixels = picture
        legal = isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.size > 0
        if not legal or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
            raise DataError(f"{self._where}: the dataset's {name} is no uint8 (H, W) or (H, W, 1|3|4)")
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        height, width, channels = pixels.shape
        return pixels if channels == self.channels else fit(pixels, height, width, self.channels, "stretch")

    def _content(self) -> _Hexed:
        return _Hexed(self._dataset)


class _Hexed:
    """A dataset whose fingerprint is a sha256: its own, or that of its text."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def fingerprint(self) -> str:
        text = self._dataset.fingerprint()
        if isinstance(self._dataset, FileBacked):
            return text
        # A plugin may rename its classes and keep its fingerprint.
        return hashlib.sha256(f"{text}\0{list(self._dataset.class_names)}".encode()).hexdigest()

    def glance(self) -> Glance | None:
        look = getattr(self._dataset, "glance", None)
        seen: Glance | None = look() if look else None
        return seen


def _kind(dataset: Dataset, name: str) -> str:
    if name in registry.names("datasets"):
        return "named"
    kinds = {ZipDataset: "zip", IdxDataset: "idx", FolderDataset: "folder"}
    return next(kind for cls, kind in kinds.items() if isinstance(dataset, cls))


def _npz(source: Path | IO[bytes], name: str, where: str, path: Path | None) -> NpzImages:
    npz = Npz(source, where)
    try:
        return NpzImages(npz, name, path)
    except BaseException:
        npz.close()
        raise


@contextlib.contextmanager
def _named_by(flag: str) -> Iterator[None]:
    """Replace --data in messages of `sources` by the flag or argument that was used."""
    try:
        yield
    except SaganError as e:
        said = str(e)
        if flag != "--data":
            said = f"{flag} {said.removeprefix('--data ')}" if said.startswith("--data ") else said
            said = said.replace("--data ", f"{flag} " if flag.startswith("--") else "")
        raise type(e)(said) from e
