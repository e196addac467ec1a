"""Datasets of torchvision by name, in torchvision's files and folders.

CIFAR-10, SVHN and STL-10 are read by torchvision, which checks their md5 sums. The MNIST family and CelebA are read by
`idx` and `folders`. torchvision is imported only to unpack or download, not to open a packed dataset.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sagan_cli.contracts import Dataset, Hints
from sagan_cli.data.decode import Pixels
from sagan_cli.data.sources.folders import FileBacked, FolderDataset, Listing
from sagan_cli.data.sources.idx import is_idx_folder, open_idx
from sagan_cli.errors import DataError, SaganError

_CELEBA_FILES = ("img_align_celeba", "list_eval_partition.txt")
_CELEBA_PARTS = {"train": "0", "test": "2"}


@dataclass(frozen=True)
class TorchvisionFactory:
    """The factory of one dataset (`sagan_cli.contracts.DatasetFactory`), with `download`."""

    name: str
    cls: str
    """Class in torchvision.datasets."""
    native_size: int
    folder: str
    """Folder of its files, relative to the data root."""
    files: Mapping[str, tuple[str, ...]]
    """Split -> required files, relative to `folder`."""
    class_names: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    """Split -> number of images, so that a packed dataset need not be loaded."""
    can_download: bool = True
    """Whether the keyword `download` is accepted."""

    def __call__(self, root: Path, *, split: str, height: int, width: int, download: bool = False) -> Dataset:
        """Open the split below `root`.

        Raises:
            DataError: files are missing.
            SaganError: the download failed.
        """
        if download:
            self._fetch(root, split)
        folder = root / self.folder
        if self.cls in ("MNIST", "FashionMNIST"):
            if not folder.is_dir() or not is_idx_folder(folder):
                raise self._missing(folder, self.files[split])
            return open_idx(folder, split=split, height=height, width=width, where=str(folder), unconditional=False)
        if missing := [name for name in self.files[split] if not (folder / name).exists()]:
            raise self._missing(folder, missing)
        if self.cls == "CelebA":
            return _open_celeba(folder, split)
        return TorchvisionDataset(self, root, split)

    def load(self, root: Path, split: str, *, download: bool = False) -> Any:
        """Return torchvision's dataset, with all images in memory.

        Raises:
            RuntimeError, OSError, ValueError: damaged files.
        """
        from torchvision import datasets

        named = self.cls in ("SVHN", "STL10", "CelebA")
        part: dict[str, Any] = {"split": split} if named else {"train": split == "train"}
        return getattr(datasets, self.cls)(str(root), download=download, **part)

    def _fetch(self, root: Path, split: str) -> None:
        try:
            # stdout is for results; torchvision prints its progress there.
            with contextlib.redirect_stdout(sys.stderr):
                self.load(root, split, download=True)
        except (OSError, RuntimeError, ImportError) as e:
            raise SaganError(f"--download: {self.name} could not be fetched into {root}: {e}") from e

    def _missing(self, folder: Path, names: Sequence[str]) -> DataError:
        return DataError(
            f"--data {self.name}: {folder} lacks {', '.join(names)}: put the files there, name another --data-root, "
            "or pass --download"
        )


class TorchvisionDataset(FileBacked):
    """A dataset that torchvision loads as one array when the first image is read."""

    hints = Hints(in_process=True)

    def __init__(self, factory: TorchvisionFactory, root: Path, split: str) -> None:
        self.factory, self.root, self.split = factory, root, split
        self.class_names: Sequence[str] = factory.class_names
        self._loaded: tuple[Pixels, Sequence[int]] | None = None

    def __len__(self) -> int:
        return self.factory.counts[self.split]

    def files(self) -> Sequence[tuple[str, Path]]:
        return [(name, self.root / self.factory.folder / name) for name in self.factory.files[self.split]]

    def identity(self) -> str:
        return f"torchvision 1, {self.factory.name}, {self.split}"

    def read(self, index: int) -> tuple[Pixels, int]:
        pictures, labels = self._load()
        picture = pictures[index]
        if picture.shape[0] == 3:  # SVHN and STL-10 have channels first
            picture = np.ascontiguousarray(picture.transpose(1, 2, 0))
        return picture, int(labels[index])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}

    def _load(self) -> tuple[Pixels, Sequence[int]]:
        if self._loaded is None:
            try:
                inner = self.factory.load(self.root, self.split)
            except ImportError as e:
                raise DataError(f"--data {self.factory.name}: needs SciPy to be read: pip install scipy ({e})") from e
            except (RuntimeError, OSError, ValueError, EOFError) as e:
                raise DataError(
                    f"--data {self.factory.name}: the files in {self.root / self.factory.folder} are damaged or "
                    f"incomplete: {e}"
                ) from e
            if len(inner.data) != len(self):
                raise DataError(
                    f"--data {self.factory.name}: {len(inner.data):,} images where {len(self):,} belong: fetch it again"
                )
            self._loaded = inner.data, inner.targets if hasattr(inner, "targets") else inner.labels
        return self._loaded


def _open_celeba(folder: Path, split: str) -> FolderDataset:
    """Open the aligned faces of a split; `list_eval_partition.txt` has a line `000001.jpg 0` for each image."""
    partition = folder / "list_eval_partition.txt"
    rows = [line.split() for line in partition.read_text(encoding="utf-8").splitlines() if line.strip()]
    names = [row[0] for row in rows if row[1:] == [_CELEBA_PARTS[split]]]
    if not names:
        raise DataError(f"{partition}: names no image of the split '{split}': fetch it again")
    return FolderDataset(folder / "img_align_celeba", Listing(tuple(names), (0,) * len(names), ()))


_IDX_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}

cifar10 = TorchvisionFactory(
    "cifar10",
    "CIFAR10",
    32,
    "cifar-10-batches-py",
    {"train": (*(f"data_batch_{i}" for i in range(1, 6)), "batches.meta"), "test": ("test_batch", "batches.meta")},
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    {"train": 50_000, "test": 10_000},
)
svhn = TorchvisionFactory(
    "svhn",
    "SVHN",
    32,
    ".",
    {"train": ("train_32x32.mat",), "test": ("test_32x32.mat",)},
    tuple("0123456789"),
    {"train": 73_257, "test": 26_032},
)
stl10 = TorchvisionFactory(
    "stl10",
    "STL10",
    96,
    "stl10_binary",
    {"train": ("train_X.bin", "train_y.bin"), "test": ("test_X.bin", "test_y.bin")},
    ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
    {"train": 5_000, "test": 8_000},
)
mnist = TorchvisionFactory("mnist", "MNIST", 32, "MNIST/raw", _IDX_FILES)
fashion_mnist = TorchvisionFactory("fashion-mnist", "FashionMNIST", 32, "FashionMNIST/raw", _IDX_FILES)
celeba = TorchvisionFactory("celeba", "CelebA", 64, "celeba", dict.fromkeys(("train", "test"), _CELEBA_FILES))
