"""Images and statistics in an .npz, from a file or on stdin: layouts, streaming, damage; nothing is unpickled."""

from __future__ import annotations

import io
import os
import pickle
import struct
import threading
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import image_files as make
from support.scored_images import opened, refused, together

from sagan_cli.engine.sample import write_npz
from sagan_cli.errors import DataError, SaganError, UsageError
from sagan_cli.evaluation.images.npz import Npz, read_statistics


@pytest.fixture
def cubes() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (7, 6, 5, 3), np.uint8)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not [t.name for t in threading.enumerate() if t.name.startswith("sagan-ahead")]


# An .npz.


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_layouts(tmp_path: Path, cubes: np.ndarray, save: Callable[..., None]) -> None:
    path = tmp_path / "a.npz"
    for arrays, expected, labels in (
        ({"arr_0": cubes, "arr_1": np.arange(7, dtype=np.int32)}, cubes, list(range(7))),
        ({"arr_0": cubes, "arr_1": np.full(7, -1)}, cubes, None),
        ({"images": cubes[..., 0], "labels": np.zeros(7, np.uint8)}, cubes[..., :1], [0] * 7),
        ({"x": cubes[..., :1], "arr_1": np.ones(3)}, cubes[..., :1], None),
        ({"arr_0": cubes, "mu": np.zeros(4), "sigma": np.eye(4)}, cubes, None),
    ):
        save(path, **arrays)
        with opened(path) as pictures:
            assert (pictures.kind, pictures.channels) == ("npz", expected.shape[3])
            assert (len(pictures), *pictures.first_size()) == expected.shape[:3]
            assert np.array_equal(together(pictures), expected)
            assert (pictures.labels is not None and pictures.labels.tolist()) == (labels or False)
            assert pictures.notes == ()


def test_channels_first_is_read_and_said(tmp_path: Path, cubes: np.ndarray) -> None:
    np.savez(tmp_path / "a.npz", cubes.transpose(0, 3, 1, 2).copy())
    with opened(tmp_path / "a.npz") as pictures:
        assert np.array_equal(together(pictures), cubes)
        assert np.array_equal(together(pictures, order=[3, 1]), cubes[[3, 1]])
        assert "(7, 3, 6, 5)" in pictures.notes[0]


def test_alpha_in_an_npz_is_laid_on_white_as_in_a_folder(tmp_path: Path) -> None:
    clear = np.random.default_rng(2).integers(0, 256, (5, 6, 7, 4), np.uint8)
    np.savez(tmp_path / "a.npz", clear)
    for i, picture in enumerate(clear):
        make.save(tmp_path / "a" / f"{i}.png", picture)
    assert np.array_equal(together(opened(tmp_path / "a.npz")), together(opened(tmp_path / "a")))


def test_what_sagan_sample_writes_comes_in_by_a_pipe(cubes: np.ndarray) -> None:
    out = io.BytesIO()
    write_npz(out, iter([(cubes[:4], np.arange(4)), (cubes[4:], np.arange(3))]), 7, list(range(7)))

    class Pipe(io.RawIOBase):
        """Read once, in small pieces, without seeking."""

        data = out.getvalue()

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            part, self.data = self.data[: min(100, len(buffer))], self.data[min(100, len(buffer)) :]
            buffer[: len(part)] = part
            return len(part)

    with opened("-", stdin=io.BufferedReader(Pipe())) as pictures:
        assert (pictures.kind, pictures.name) == ("stdin", "-")
        assert np.array_equal(together(pictures), cubes)
        assert pictures.labels is not None
        assert pictures.labels.tolist() == [0, 1, 2, 3, 0, 1, 2]
        assert np.array_equal(together(pictures, order=[6, 0]), cubes[[6, 0]])


@pytest.mark.parametrize("form", ["stored", "packed"])
def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path: Path, form: str) -> None:
    path, rows = tmp_path / "a.npz", np.zeros((64, 64, 64, 3), np.uint8)
    compression = zipfile.ZIP_STORED if form == "stored" else zipfile.ZIP_DEFLATED
    count = 64 * 100  # 79 MB
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive, archive.open("arr_0.npy", "w") as f:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, *rows.shape[1:])}
        np.lib.format.write_array_header_1_0(f, header)
        for _ in range(100):
            f.write(rows.tobytes())
    tracemalloc.start()
    try:
        with opened(path) as pictures:
            assert sum(map(len, pictures.batches(64))) == count
            assert sum(map(len, pictures.batches(64, np.arange(count)[::-997]))) == 7
            pictures.digest()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 16e6


def test_statistics_are_read_and_are_no_pictures(tmp_path: Path, cubes: np.ndarray) -> None:
    features = np.random.default_rng(3).normal(size=(50, 8))
    mu, sigma = features.mean(0), np.cov(features, rowvar=False)
    path = tmp_path / "stats.npz"
    np.savez(path, mu=mu.astype(np.float32), sigma=sigma)
    found = read_statistics(path)
    assert found is not None
    assert found[0].dtype == found[1].dtype == np.float64
    assert np.array_equal(found[0], mu.astype(np.float32))
    assert np.array_equal(found[1], sigma)
    assert "statistics (mu, sigma) and no images" in refused(path)
    for arrays in ({"arr_0": cubes, "mu": mu, "sigma": sigma}, {"mu": mu}, {"arr_0": cubes}):
        np.savez(path, **arrays)
        assert read_statistics(path) is None
    path.write_text("text")
    assert read_statistics(path) is None
    assert read_statistics(tmp_path / "none.npz") is None


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"mu": np.zeros(3), "sigma": np.eye(4)}, "do not belong together"),
        ({"mu": np.zeros((1, 3)), "sigma": np.eye(3)}, "statistics are mu (D,)"),
        ({"mu": np.zeros(3, int), "sigma": np.eye(3)}, "statistics are mu (D,)"),
        ({"mu": np.zeros(3), "sigma": np.eye(3) * np.nan}, "not finite"),
        ({"mu": np.zeros(3), "sigma": np.triu(np.ones((3, 3)))}, "not symmetric"),
        ({"mu": np.zeros(3), "sigma": -np.eye(3)}, "negative variances"),
        ({"mu": np.zeros(3), "sigma": np.array([[None] * 3] * 3)}, "never unpickled"),
    ],
)
def test_statistics_that_are_none(tmp_path: Path, arrays: dict[str, np.ndarray], words: str) -> None:
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(DataError) as caught:
        read_statistics(tmp_path / "s.npz", where="--data s.npz")
    assert str(caught.value).startswith("--data s.npz: ")
    assert words in str(caught.value)


# What is refused.


class Trap:
    """Unpickling it makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_object_arrays_are_refused_without_unpickling(tmp_path: Path, cubes: np.ndarray) -> None:
    sprung, trap = tmp_path / "sprung", np.empty(7, object)
    trap[:] = [Trap(sprung)] * 7
    for name, arrays in (("a", {"arr_0": trap}), ("b", {"arr_0": cubes, "arr_1": trap})):
        np.savez(tmp_path / f"{name}.npz", allow_pickle=True, **arrays)
        assert "Python objects, which are never unpickled" in refused(tmp_path / f"{name}.npz")
    assert not sprung.exists()
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists()  # or the trap proves nothing


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"arr_0": np.zeros((2, 4, 4, 3), np.float32)}, "must be uint8, 0 to 255: save"),
        ({"arr_0": np.zeros((2, 4, 4, 3), np.int64)}, "must be uint8"),
        ({"arr_0": np.zeros((4, 4, 3), np.uint8)}, "is one image"),
        ({"arr_0": np.zeros((2, 5, 4, 2), np.uint8)}, "is no array of images: save (N, H, W, C)"),
        ({"arr_0": np.zeros((4, 4), np.uint8)}, "is no array of images"),
        ({"arr_0": np.zeros(4, np.uint8)}, "is no array of images"),
        ({"arr_0": np.zeros((0, 4, 4, 3), np.uint8)}, "save at least one"),
        ({"arr_0": np.zeros((2, 0, 4, 3), np.uint8)}, "save at least one"),
        ({"arr_0": np.asfortranarray(np.zeros((2, 4, 4, 3), np.uint8))}, "np.ascontiguousarray"),
        ({"arr_0": np.zeros((2, 4, 4, 3), np.uint8), "arr_1": np.zeros(3, int)}, "are no labels"),
        ({"arr_0": np.zeros((2, 4, 4, 3), np.uint8), "arr_1": np.zeros(2)}, "are no labels"),
        ({"arr_0": np.zeros((2, 4, 4, 3), np.uint8), "arr_1": np.array([0, -1])}, "labels count from 0"),
        ({"faces": np.zeros((2, 4, 4, 3), np.uint8)}, "no array of images (there: faces)"),
        ({}, "no array of images (there: nothing)"),
    ],
)
def test_arrays_that_are_no_pictures(tmp_path: Path, arrays: dict[str, np.ndarray], words: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    said = refused(tmp_path / "a.npz", flag="--data")
    assert said.startswith(f"--data {tmp_path / 'a.npz'}: ")
    assert words in said


def test_damaged_npz(tmp_path: Path, cubes: np.ndarray) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, cubes)
    small = path.read_bytes()
    for data in (small[: len(small) // 2], b""):
        path.write_bytes(data)
        assert "not an .npz that can be read" in refused(path)
    # Sums that agree with damaged bytes: a writer's fault rather than a disk's.
    out = io.BytesIO()
    np.lib.format.write_array(out, cubes)
    for old, new, words in (
        (b"(7, 6, 5, 3), ", b"(9, 6, 5, 3), ", "arr_0 has 758 bytes where 938 belong"),
        (b"{'descr': '|u1'", b"{'descr': (((((", "arr_0 is damaged"),
        (b"\x93NUMPY\x01", b"\x93NUMPY\x03", "arr_0 is damaged"),
        (b"\x93NUMPY", b"PUMPKIN"[:6], "arr_0 is damaged"),
    ):
        assert old in out.getvalue()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("arr_0.npy", out.getvalue().replace(old, new))
        assert words in refused(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_damaged_among_its_pictures(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / "a.npz"
    save(path, np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), np.uint8))
    whole = path.read_bytes()
    path.write_bytes(whole[:15000] + bytes(100) + whole[15100:])
    assert "arr_0 is damaged or cut short (" in refused(path)  # at the latest when the last row is read
    with opened(path) as pictures, pytest.raises(DataError, match="arr_0 is damaged"):
        pictures.digest()
    if save is np.savez_compressed:
        with opened(path) as pictures, pytest.raises(DataError, match="arr_0 is damaged"):
            list(pictures.batches(3, np.array([2, 1])))


def test_an_archive_that_promises_less_or_more_than_it_holds(tmp_path: Path, cubes: np.ndarray) -> None:
    """The directory at the end and the header of the array agree; the packed stream ends early."""
    out, path = io.BytesIO(), tmp_path / "a.npz"
    np.lib.format.write_array(out, cubes)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", out.getvalue()[:-50])
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    struct.pack_into("<I", data, entry + 24, len(out.getvalue()))
    path.write_bytes(data)
    assert "damaged or cut short" in refused(path)


@pytest.mark.parametrize(
    ("sent", "kind", "words"),
    [
        (None, UsageError, "nothing comes on stdin"),
        (b"", DataError, "nothing comes on stdin"),
        (b"hello there", DataError, "not an .npz (it starts with b'hell')"),
        (b"PK\x03\x04 and no more", DataError, "not an .npz that can be read"),
    ],
)
def test_stdin_without_an_npz(sent: bytes | None, kind: type[SaganError], words: str) -> None:
    said = refused("-", kind, stdin=None if sent is None else io.BytesIO(sent))
    assert said.startswith("FOLDER -: ")
    assert words in said


def test_no_room_for_what_comes_on_stdin(cubes: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    np.savez(out, cubes)
    monkeypatch.setattr("tempfile.TemporaryFile", Full)
    assert "No space left on device): set TMPDIR" in refused("-", SaganError, stdin=io.BytesIO(out.getvalue()))


class Full(io.BytesIO):
    def writelines(self, lines: Any) -> None:
        raise OSError(28, "No space left on device")


def test_an_open_npz_gives_its_file_back(tmp_path: Path, cubes: np.ndarray) -> None:
    np.savez(tmp_path / "a.npz", cubes)
    with Npz(tmp_path / "a.npz", "x") as npz:
        assert npz.lies_at(tmp_path / "a.npz")
        assert not npz.lies_at(tmp_path)
    assert npz._file.closed
    pictures = opened(tmp_path / "a.npz")
    next(pictures.batches(2))
    del pictures  # no ResourceWarning, which would be an error here
