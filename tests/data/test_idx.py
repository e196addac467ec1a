"""IDX files: the real Fashion-MNIST where it is installed, written ones everywhere, and every way to be damaged."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from support import image_files as make

from sagan_cli.data.sources.idx import FASHION, IdxDataset, idx_side, is_idx_folder, open_idx
from sagan_cli.errors import DataError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def opened(folder: Path, split: str = "train", size: int = 32, unconditional: bool = False) -> IdxDataset:
    return open_idx(folder, split=split, height=size, width=size, where=str(folder), unconditional=unconditional)


def refusal(folder: Path, *parts: str, split: str = "train") -> None:
    with pytest.raises(DataError) as caught:
        opened(folder, split)
    for part in parts:
        assert part in str(caught.value), caught.value
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("split", ["train", "t10k"])
def test_written_files_come_back(tmp_path: Path, gz: bool, split: str) -> None:
    pictures = make.write_mnist(tmp_path, 25, gz, split)
    assert is_idx_folder(tmp_path)
    data = opened(tmp_path, "test" if split == "t10k" else "train")
    assert (len(data), data.class_names) == (25, tuple("0123456789"))
    for i in (0, 24, 3, 4, 0):  # backwards too
        picture, label = data.read(i)
        np.testing.assert_array_equal(picture, pictures[i])
        assert label == i % 10
    assert data.name_of(3).endswith("[3]")
    again = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(again.read(7)[0], pictures[7])


@pytest.mark.parametrize(
    "prefix",
    ["emnist-letters-train-", "train-", "qmnist-train-", "TRAIN-"],
)
def test_prefixes_of_the_family(tmp_path: Path, prefix: str) -> None:
    make.write_idx(tmp_path / f"{prefix}images-idx3-ubyte", np.zeros((3, 28, 28)))
    make.write_idx(tmp_path / f"{prefix}labels-idx1-ubyte", np.array([1, 2, 26]))
    data = opened(tmp_path)
    assert data.class_names == tuple(str(i) for i in range(1, 27))  # letters count from 1
    assert [data.read(i)[1] for i in range(3)] == [0, 1, 25]


def test_names_with_a_dot_before_idx(tmp_path: Path) -> None:
    make.write_idx(tmp_path / "train-images.idx3-ubyte", np.zeros((3, 28, 28)))
    make.write_idx(tmp_path / "train-labels.idx1-ubyte", np.arange(3))
    assert len(opened(tmp_path)) == 3


def test_a_plain_file_wins_over_its_gz(tmp_path: Path) -> None:
    make.write_mnist(tmp_path, 8, gz=True)
    make.write_mnist(tmp_path, 5)
    assert len(opened(tmp_path)) == 5


def test_fashion_is_known_by_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "FashionMNIST" / "raw"
    make.write_mnist(folder)
    assert opened(folder).class_names == FASHION
    make.write_mnist(tmp_path / "MNIST" / "raw")
    assert opened(tmp_path / "MNIST" / "raw").class_names == tuple("0123456789")


def test_hints_pad_to_32_and_crop_to_64(tmp_path: Path) -> None:
    make.write_mnist(tmp_path)
    assert opened(tmp_path, size=32).hints.fit == "pad"
    assert opened(tmp_path, size=64).hints.fit == "crop"
    assert opened(tmp_path, size=16).hints.fit == "crop"
    assert idx_side(tmp_path, "train") == 32
    make.write_mnist(tmp_path / "big", side=64)
    assert idx_side(tmp_path / "big", "train") == 64


def test_unconditional_needs_no_labels(tmp_path: Path) -> None:
    make.write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((3, 28, 28)))
    refusal(tmp_path, "train-images-idx3-ubyte has no labels file", "--unconditional")
    data = opened(tmp_path, unconditional=True)
    assert (data.class_names, data.read(2)[1]) == ((), 0)


def test_the_fingerprint_follows_pictures_labels_and_classes(tmp_path: Path) -> None:
    make.write_mnist(tmp_path / "a")
    make.write_mnist(tmp_path / "b")
    make.write_mnist(tmp_path / "c", 21)
    assert opened(tmp_path / "a").fingerprint() == opened(tmp_path / "b").fingerprint()
    assert opened(tmp_path / "a").fingerprint() != opened(tmp_path / "c").fingerprint()
    assert opened(tmp_path / "a").fingerprint() != opened(tmp_path / "a", unconditional=True).fingerprint()
    make.write_idx(tmp_path / "b" / "train-labels-idx1-ubyte", np.arange(20) % 9)
    assert opened(tmp_path / "a").fingerprint() != opened(tmp_path / "b").fingerprint()


def test_a_missing_split_says_what_is_there(tmp_path: Path) -> None:
    make.write_mnist(tmp_path)
    refusal(tmp_path, "'test'", "train-images-idx3-ubyte", "add t10k-images-idx3-ubyte", split="test")
    (tmp_path / "train-images-idx3-ubyte").unlink()
    refusal(tmp_path, "labels only", "add train-images-idx3-ubyte")


def test_several_sets_in_one_folder_are_ambiguous(tmp_path: Path) -> None:
    for name in ("emnist-letters", "emnist-digits"):
        make.write_idx(tmp_path / f"{name}-train-images-idx3-ubyte", np.zeros((3, 28, 28)))
    refusal(tmp_path, "several IDX sets", "emnist-digits-train", "emnist-letters-train", "a folder of their own")


def test_labels_of_another_set(tmp_path: Path) -> None:
    make.write_mnist(tmp_path, 20)
    make.write_idx(tmp_path / "train-labels-idx1-ubyte", np.arange(19))
    refusal(tmp_path, "20 images", "19 labels", "do not belong together")


IMAGES = "train-images-idx3-ubyte"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "too short for an IDX file"),
        (b"\0\0\x08", "too short for an IDX file"),
        (b"\0\0\x08\x03\0\0\0\x05", "too short for an IDX file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(2000), "not an IDX file of unsigned bytes"),
        (struct.pack(">HBBIII", 0, 13, 3, 5, 28, 28) + bytes(5 * 784 * 4), "not an IDX file of unsigned bytes"),
        (struct.pack(">HBBI", 0, 8, 1, 20) + bytes(20), "1 dimensions instead of 3"),
        (struct.pack(">HBBIII", 0, 8, 3, 0, 28, 28), "0x28x28 are no dataset"),
        (struct.pack(">HBBIII", 0, 8, 3, 1, 2**31, 2**31), "are no dataset"),
        (struct.pack(">HBBIII", 0, 8, 3, 5, 28, 28) + bytes(4 * 784), "cut short: 3,152 bytes where 3,936 belong"),
        (struct.pack(">HBBIII", 0, 8, 3, 5, 28, 28) + bytes(6 * 784), "longer than its header says"),
    ],
)
def test_damaged_files(tmp_path: Path, data: bytes, says: str) -> None:
    make.write_idx(tmp_path / "train-labels-idx1-ubyte", np.arange(5))
    (tmp_path / IMAGES).write_bytes(data)
    refusal(tmp_path, str(tmp_path / IMAGES), says)
    (tmp_path / IMAGES).unlink()
    (tmp_path / f"{IMAGES}.gz").write_bytes(gzip.compress(data))
    refusal(tmp_path, IMAGES + ".gz", says)


@pytest.mark.parametrize("kept", [0, 4, 12, 100, -5, -9])
def test_a_gz_that_was_not_fetched_whole(tmp_path: Path, kept: int) -> None:
    make.write_mnist(tmp_path, 20, gz=True)
    path = tmp_path / f"{IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:kept])
    refusal(tmp_path, str(path), "fetch it again")


def test_a_gz_that_is_none(tmp_path: Path) -> None:
    make.write_mnist(tmp_path, 20, gz=True)
    (tmp_path / f"{IMAGES}.gz").write_bytes(b"<html>404 not found</html>" * 9)
    refusal(tmp_path, "cannot be read", "fetch it again")


def test_a_gz_in_two_members_is_whole(tmp_path: Path) -> None:
    pictures = make.write_mnist(tmp_path, 20)
    data = (tmp_path / IMAGES).read_bytes()
    (tmp_path / IMAGES).unlink()
    (tmp_path / f"{IMAGES}.gz").write_bytes(gzip.compress(data[:5000]) + gzip.compress(data[5000:]))
    np.testing.assert_array_equal(opened(tmp_path).read(19)[0], pictures[19])


def test_a_wrong_checksum_is_found_while_packing(tmp_path: Path) -> None:
    make.write_mnist(tmp_path / "set", 20, gz=True)
    path = tmp_path / "set" / f"{IMAGES}.gz"
    data = bytearray(path.read_bytes())
    data[-8] ^= 1  # CRC32; the length behind it stays right
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="damaged or cut short"):
        make.pack(opened(tmp_path / "set"), tmp_path / "cache", 32)
    assert not list((tmp_path / "cache" / "packs").iterdir())


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_real_fashion_mnist_packs_in_seconds(tmp_path: Path) -> None:
    data = opened(DEBIAN)
    assert (len(data), data.class_names) == (60_000, FASHION)
    assert len(opened(DEBIAN, "test")) == 10_000
    pack = make.pack(data, tmp_path, 32)
    assert pack.images.shape == (60_000, 32, 32, 1)
    assert np.bincount(pack.labels).tolist() == [6000] * 10
    with gzip.open(DEBIAN / "train-images-idx3-ubyte.gz") as f:
        raw = np.frombuffer(f.read()[16:], np.uint8).reshape(-1, 28, 28)
    np.testing.assert_array_equal(pack.images[:, 2:30, 2:30, 0], raw)
    assert int(pack.images.sum(dtype=np.int64)) == int(raw.sum(dtype=np.int64))  # the border is black
    assert make.pack(opened(DEBIAN), tmp_path, 32).from_cache


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_real_labels_name_the_classes_wherever_the_files_lie(tmp_path: Path) -> None:
    for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        (tmp_path / name).symlink_to(DEBIAN / name)
    assert opened(tmp_path, "test").class_names == FASHION
