"""Which dataset a `--data` means, and the sets that torchvision knows by name."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support import image_files as make

from sagan_cli.data.sources import torchvision_sets
from sagan_cli.data.sources.archives import ZipDataset
from sagan_cli.data.sources.folders import FolderDataset
from sagan_cli.data.sources.idx import FASHION, IdxDataset
from sagan_cli.data.sources.opening import Unlabelled, native_size, open_source
from sagan_cli.errors import DataError, SaganError, UsageError
from sagan_cli.plugins import registry


def opened(data: str, root: Path = Path("data"), unconditional: bool = False, **more: Any):  # type: ignore[no-untyped-def]
    arguments: dict[str, Any] = {"split": "train", "height": 32, "width": 32} | more
    return open_source(data, data_root=root, unconditional=unconditional, **arguments)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A registered dataset called `shapes`; returns the calls to its factory."""
    calls: list[dict[str, Any]] = []

    class Factory:
        native_size = 48

        def __call__(self, root: Path, **arguments: Any) -> make.Drawn:
            calls.append({"root": root, **arguments})
            return make.Drawn()

    monkeypatch.setattr(registry, "names", lambda kind: ["quadrupeds", "shapes"])
    monkeypatch.setattr(registry, "load", lambda kind, name: {"shapes": Factory()}[name])
    return calls


def test_folders_archives_and_idx_are_recognised_by_what_lies_there(tmp_path: Path) -> None:
    make.fill(tmp_path / "pictures", {"": 1})
    make.write_mnist(tmp_path / "idx")
    make.zip_up(tmp_path / "pictures", tmp_path / "set.zip")
    (tmp_path / "set.zip").rename(tmp_path / "SET.ZIP")
    make.zip_up(tmp_path / "pictures", tmp_path / "named-otherwise")
    assert isinstance(opened(f"{tmp_path}/pictures"), FolderDataset)
    assert isinstance(opened(f"{tmp_path}/pictures/"), FolderDataset)
    assert isinstance(opened(f"{tmp_path}/idx"), IdxDataset)
    assert isinstance(opened(f"{tmp_path}/SET.ZIP"), ZipDataset)
    assert isinstance(opened(f"{tmp_path}/named-otherwise"), ZipDataset)


def test_paths_into_an_archive(tmp_path: Path) -> None:
    make.zip_up(make.fill(tmp_path / "x", {"a/cat": 1, "a/dog": 1, "b/cat": 1}), tmp_path / "set.zip")
    assert opened(f"{tmp_path}/set.zip/a").class_names == ("cat", "dog")


def test_a_registered_name_wins_over_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: list[dict[str, Any]]
) -> None:
    monkeypatch.chdir(tmp_path)
    make.fill(tmp_path / "shapes", {"": 1})
    make.fill(tmp_path / "mine", {"": 1})
    assert isinstance(opened("shapes"), make.Drawn)
    assert isinstance(opened("./shapes"), FolderDataset)
    assert isinstance(opened("mine"), FolderDataset)
    assert plugin == [{"root": Path("data"), "split": "train", "height": 32, "width": 32}]


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    make.fill(tmp_path / "pictures", {"": 1})
    assert len(opened("~/pictures")) == 1


def test_neither_path_nor_name_lists_what_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: list[dict[str, Any]]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"^--data shaeps: no such path .*did you mean 'shapes'.*quadrupeds, shapes$"):
        opened("shaeps")
    with pytest.raises(UsageError, match=r"^--data : no such path"):
        opened("")


def test_a_path_that_does_not_exist_names_its_neighbour(tmp_path: Path) -> None:
    make.fill(tmp_path / "celeba", {"": 1})
    with pytest.raises(UsageError, match=r"/celebA: no such file or folder \(did you mean 'celeba'\?\)$"):
        opened(f"{tmp_path}/celebA")
    with pytest.raises(UsageError, match=r"no such file or folder$"):
        opened(f"{tmp_path}/far/away")


def test_files_that_are_no_data_set(tmp_path: Path) -> None:
    make.save(tmp_path / "one.png", make.noise(1))
    (tmp_path / "set.tar").write_bytes(b"x")
    with pytest.raises(UsageError, match="one image only: pass the folder"):
        opened(f"{tmp_path}/one.png")
    with pytest.raises(UsageError, match=r"neither a folder nor a \.zip: pass a folder of images"):
        opened(f"{tmp_path}/set.tar")


def test_unconditional_takes_the_classes_off_a_named_set(plugin: list[dict[str, Any]], tmp_path: Path) -> None:
    data = opened("shapes", unconditional=True)
    assert isinstance(data, Unlabelled)
    assert (data.class_names, data.read(5)[1], len(data)) == ((), 0, 600)
    assert data.fingerprint() != opened("shapes").fingerprint()
    assert data.glance() is None
    assert pickle.loads(pickle.dumps(data)).name_of(3) == "image 3"
    with_classes = make.pack(opened("shapes"), tmp_path)
    without = make.pack(data, tmp_path)
    assert with_classes.path != without.path
    assert without.labels.max() == 0


def test_native_sizes(plugin: list[dict[str, Any]], tmp_path: Path) -> None:
    make.write_mnist(tmp_path / "idx")
    make.fill(tmp_path / "pictures", {"": 1})
    assert native_size("shapes", tmp_path, "train") == (48, 48)
    assert native_size(f"{tmp_path}/idx", tmp_path, "train") == (32, 32)
    assert native_size(f"{tmp_path}/pictures", tmp_path, "train") is None


def test_download_where_there_is_nothing_to_download(plugin: list[dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--download: the dataset 'shapes' has nothing to download"):
        opened("shapes", download=True)
    make.fill(tmp_path, {"": 1})
    with pytest.raises(UsageError, match="--download fetches named datasets"):
        opened(f"{tmp_path}/", download=True)


# torchvision's sets.


@pytest.mark.parametrize("name", ["cifar10", "mnist", "fashion-mnist", "svhn", "stl10", "celeba"])
def test_missing_files_are_named_with_their_place(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"^--data {name}: {tmp_path}.* lacks .*--data-root.*--download$"):
        opened(name, tmp_path)
    side = {"stl10": 96, "celeba": 64}.get(name, 32)
    assert native_size(name, tmp_path, "train") == (side, side)


def test_mnist_and_fashion_are_read_from_torchvisions_folders(tmp_path: Path) -> None:
    make.write_mnist(tmp_path / "MNIST/raw")
    make.write_mnist(tmp_path / "FashionMNIST/raw", gz=True)
    assert opened("mnist", tmp_path).class_names == tuple("0123456789")
    assert opened("fashion-mnist", tmp_path).class_names == FASHION
    assert opened("mnist", tmp_path, unconditional=True).class_names == ()


def test_celeba_is_its_folder_and_its_partition(tmp_path: Path) -> None:
    make.fill(tmp_path / "celeba/img_align_celeba", {"": 4}, ".jpg")
    lines = [f"{i:04d}.jpg {part}" for i, part in enumerate("0021")]
    (tmp_path / "celeba/list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    data = opened("celeba", tmp_path)
    assert [data.name_of(i) for i in range(len(data))] == ["0000.jpg", "0001.jpg"]
    assert data.class_names == ()
    assert len(opened("celeba", tmp_path, split="test")) == 1
    (tmp_path / "celeba/list_eval_partition.txt").write_text("<html>\n")
    with pytest.raises(DataError, match="names no image of the split 'train'"):
        opened("celeba", tmp_path)


def cifar(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    files = [folder / name for name in (*(f"data_batch_{i}" for i in range(1, 6)), "batches.meta")]
    for file in files:
        file.write_bytes(file.name.encode())
    make.age(tmp_path)
    return files


@pytest.mark.parametrize("first", [False, True])
def test_arrays_of_torchvision_are_packed_and_then_left_alone(
    first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cifar(tmp_path)
    small = dataclasses.replace(torchvision_sets.cifar10, counts={"train": 12})
    monkeypatch.setattr(torchvision_sets, "cifar10", small)
    pixels = np.stack([make.noise(i, 32, 32) for i in range(12)])
    loads = []

    def load(self: object, root: Path, split: str, *, download: bool = False) -> SimpleNamespace:
        loads.append((root, split))
        data = pixels.transpose(0, 3, 1, 2) if first else pixels  # SVHN and STL-10 keep channels first
        labels = {"labels": np.arange(12) % 10} if first else {"targets": [i % 10 for i in range(12)]}
        return SimpleNamespace(data=data, **labels)

    monkeypatch.setattr(torchvision_sets.TorchvisionFactory, "load", load)
    pack = make.pack(opened("cifar10", tmp_path), tmp_path / "cache", 32)
    np.testing.assert_array_equal(pack.images, pixels)
    assert pack.labels.tolist() == [i % 10 for i in range(12)]
    assert pack.class_names[3] == "cat"
    assert loads == [(tmp_path, "train")]
    again = make.pack(pickle.loads(pickle.dumps(opened("cifar10", tmp_path))), tmp_path / "cache", 32)
    assert again.from_cache
    assert len(loads) == 1


@pytest.mark.filterwarnings("ignore")
def test_files_that_torchvision_refuses_are_one_line(tmp_path: Path) -> None:
    cifar(tmp_path)
    with pytest.raises(
        DataError, match=r"^--data cifar10: the files in .*cifar-10-batches-py are damaged or incomplete"
    ):
        make.pack(opened("cifar10", tmp_path), tmp_path / "cache", 32)


def test_a_failed_download_is_one_line_and_prints_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(*args: object, download: bool, **more: object) -> None:
        print("Downloading ...")
        raise OSError("Name or service not known")

    monkeypatch.setattr(torchvision_sets.TorchvisionFactory, "load", load)
    with pytest.raises(SaganError, match=r"--download: svhn could not be fetched .* Name or service not known"):
        opened("svhn", tmp_path, download=True)
    assert capsys.readouterr().out == ""


def test_data_imports_no_torch() -> None:
    code = (
        "import sys, sagan_cli.data.packing.pack\n"
        "from sagan_cli.data.sources import opening, torchvision_sets\n"
        "sys.exit(any(name.split('.')[0] in ('torch', 'torchvision') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
