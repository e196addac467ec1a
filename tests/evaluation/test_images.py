"""Images that are scored as they are: what is accepted, order, pixels, batches, digests, and what is refused."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import image_files as make
from support.scored_images import opened, refused, together

from sagan_cli.data.sources.folders import FolderDataset
from sagan_cli.errors import DataError, PluginError, SaganError, UsageError
from sagan_cli.evaluation.images.opening import DatasetImages
from sagan_cli.evaluation.images.source import read_ahead


@pytest.fixture
def cubes() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (7, 6, 5, 3), np.uint8)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not [t.name for t in threading.enumerate() if t.name.startswith("sagan-ahead")]


# Folders, archives, IDX files, names.


def test_a_flat_folder_has_the_order_and_pixels_of_torch_fidelity(tmp_path: Path) -> None:
    """Against its own directory input: file listing and decoding; names that sort differently by case and number."""
    from torch_fidelity.datasets import ImagesPathDataset
    from torch_fidelity.utils import glob_samples_paths

    root = tmp_path / "a"
    for i, name in enumerate(["10.png", "9.png", "B.png", "a.png", "_.png", "é.png", "a b.PNG"]):
        make.save(root / name, make.noise(i))
    make.save(root / "photo.jpg", make.noise(20), quality=80)
    make.save(root / "photo.jpeg", make.noise(21), quality=95, subsampling=0)
    make.save(root / "gray.png", make.noise(22, channels=1))
    make.save(root / "gray.jpg", make.noise(23, channels=1))
    Image.fromarray(make.noise(24)).quantize(17).save(root / "palette.png")
    Image.fromarray(make.noise(25)).convert("CMYK").save(root / "cmyk.jpg")
    Image.fromarray(make.noise(26)).convert("1").save(root / "bits.png")
    (root / "notes.txt").write_text("not an image")

    paths = glob_samples_paths(str(root), False, "png,jpg,jpeg", "jpg,jpeg", verbose=False)
    files = ImagesPathDataset(paths)
    theirs = np.stack([np.asarray(files[i]).transpose(1, 2, 0) for i in range(len(paths))])
    ours = opened(root)
    assert ours.kind == "folder"
    assert len(ours) == len(paths) == 14
    assert np.array_equal(together(ours), theirs)


def test_where_pixels_differ_from_torch_fidelity_on_purpose(tmp_path: Path) -> None:
    """As the module says: transparency on white, 16 bits scaled, a camera's rotation undone."""
    clear = np.zeros((4, 6, 4), np.uint8)
    clear[:2] = (10, 20, 30, 255)
    make.save(tmp_path / "a" / "clear.png", clear)
    pixels = together(opened(tmp_path / "a"))[0]
    assert (pixels[:2] == (10, 20, 30)).all()
    assert (pixels[2:] == 255).all()

    deep = np.full((4, 6), 257 * 100, np.uint16)
    make.save(tmp_path / "b" / "deep.png", deep)
    assert (together(opened(tmp_path / "b")) == 100).all()

    tags = Image.Exif()
    tags[0x0112] = 6
    make.save(tmp_path / "c" / "turned.jpg", make.noise(0, 8, 16), exif=tags)
    assert opened(tmp_path / "c").first_size() == (16, 8)


@pytest.mark.parametrize("count", [1, 6, 7])
def test_batches_are_cut_like_those_of_a_data_loader(tmp_path: Path, count: int) -> None:
    from torch.utils.data import DataLoader

    pictures = opened(make.fill(tmp_path / "a", {"": count}))
    batches = list(pictures.batches(3))
    assert [len(b) for b in batches] == [len(b) for b in DataLoader(range(count), batch_size=3)]
    assert all(b.dtype == np.uint8 and b.shape[1:] == (24, 20, 3) for b in batches)
    assert not pictures.sizes_vary


def test_gray_pictures_of_a_folder_become_colour_everywhere(tmp_path: Path) -> None:
    root = make.fill(tmp_path / "a", {"": 3})
    make.save(root / "x.png", make.noise(9, channels=1))
    pictures = together(opened(root), 1)
    assert opened(root).channels == pictures.shape[3] == 3
    assert np.array_equal(pictures[3], make.noise(9, channels=1)[..., None].repeat(3, 2))


def test_batches_split_where_the_size_changes_and_never_across_a_cut(tmp_path: Path) -> None:
    root = tmp_path / "a"
    sizes = [(8, 8), (8, 8), (8, 8), (8, 12), (8, 12), (8, 8), (8, 8), (8, 8)]
    for i, size in enumerate(sizes):
        make.save(root / f"{i}.png", make.noise(i, *size))
    pictures = opened(root)
    assert not pictures.sizes_vary
    batches = list(pictures.batches(4))
    assert [(len(b), b.shape[1:3]) for b in batches] == [(3, (8, 8)), (1, (8, 12)), (1, (8, 12)), (3, (8, 8))]
    assert pictures.sizes_vary
    shown = [picture for batch in batches for picture in batch]
    assert all(np.array_equal(picture, make.noise(i, *sizes[i])) for i, picture in enumerate(shown))


def test_very_large_pictures_come_in_smaller_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sagan_cli.evaluation.images.opening.MAX_BATCH_BYTES", 2 * 24 * 20 * 3)
    monkeypatch.setattr("sagan_cli.evaluation.images.npz.MAX_BATCH_BYTES", 2 * 24 * 20 * 3)
    root = make.fill(tmp_path / "a", {"": 8})
    assert [len(b) for b in opened(root).batches(5)] == [2, 2, 1, 2, 1]
    np.savez(tmp_path / "a.npz", together(opened(root)))
    assert [len(b) for b in opened(tmp_path / "a.npz").batches(5)] == [2, 2, 1, 2, 1]


def test_class_folders_zips_and_parts_of_zips_have_labels(tmp_path: Path) -> None:
    root = make.fill(tmp_path / "a", {"cat": 2, "dog": 3})
    archive = make.zip_up(root, tmp_path / "a.zip", "a/")
    for target, kind in ((root, "folder"), (archive, "zip"), (f"{archive}/a", "zip")):
        pictures = opened(target)
        assert pictures.kind == kind
        assert pictures.name == str(target)
        assert pictures.class_names == ("cat", "dog")
        assert pictures.labels is not None
        assert pictures.labels.tolist() == [0, 0, 1, 1, 1]
        assert np.array_equal(together(pictures), together(opened(root)))
    flat = opened(root, unconditional=True)
    assert (flat.labels, flat.class_names) == (None, ())


@pytest.mark.parametrize("gz", [False, True])
def test_idx_files_are_read_at_their_own_size_in_one_channel(tmp_path: Path, gz: bool) -> None:
    values = make.write_mnist(tmp_path / "m", 20, gz=gz)
    test = make.write_mnist(tmp_path / "m", 12, gz=gz, split="t10k")
    pictures = opened(tmp_path / "m")
    assert (pictures.kind, pictures.channels, pictures.first_size()) == ("idx", 1, (28, 28))
    assert pictures.labels is not None
    assert pictures.labels.tolist() == [*range(10), *range(10)]
    assert np.array_equal(together(pictures)[..., 0], values)
    assert np.array_equal(together(opened(tmp_path / "m", split="test"))[..., 0], test)
    order = np.random.default_rng(0).permutation(20)
    assert np.array_equal(together(pictures, order=order)[..., 0], values[order])


def test_named_data_sets_are_drawn_at_their_own_size_or_the_one_wanted() -> None:
    own, larger = opened("quadrupeds"), opened("quadrupeds", height=64)
    assert (own.kind, own.first_size(), larger.first_size()) == ("named", (32, 32), (64, 64))
    assert next(own.batches(2, np.array([5, 6]))).shape == (2, 32, 32, 3)
    assert own.digest() != larger.digest() != opened("quadrupeds", split="test").digest()
    assert len(own.digest()) == 64


@pytest.mark.parametrize("form", ["folder", "zip", "stored", "packed"])
def test_pictures_come_in_any_order(tmp_path: Path, form: str) -> None:
    root = make.fill(tmp_path / "a", {"": 8})
    every = together(opened(root))
    target = {"folder": root, "zip": tmp_path / "a.zip", "stored": tmp_path / "s.npz", "packed": tmp_path / "p.npz"}
    make.zip_up(root, tmp_path / "a.zip")
    np.savez(tmp_path / "s.npz", seeds=np.arange(5), images=every)
    np.savez_compressed(tmp_path / "p.npz", every)
    with opened(target[form]) as pictures:
        for order in ([0, 2, 3, 7], [7, 0, 0, 5, 2], [6], [], [4, 4]):
            batches = list(pictures.batches(3, np.array(order, np.int64)))
            assert [len(b) for b in batches] == [min(3, len(order) - i) for i in range(0, len(order), 3)]
            if order:
                assert np.array_equal(np.concatenate(batches), every[order])
        # Two readers at once do not disturb each other.
        one, other = pictures.batches(3), pictures.batches(2)
        mixed = [next(one), next(other), next(one), next(other), next(one), *other]
        assert np.array_equal(np.concatenate([mixed[i] for i in (0, 2, 4)]), every)
        assert np.array_equal(np.concatenate([mixed[i] for i in (1, 3, 5, 6)]), every)
        one.close()  # type: ignore[attr-defined]
        for wrong in ([8], [-1], [[0]]):
            with pytest.raises(ValueError, match="indices outside"):
                pictures.batches(3, np.array(wrong))
        with pytest.raises(ValueError, match="batches of 0"):
            pictures.batches(0)


# Digests.


def test_a_second_digest_reads_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sagan_cli.data.packing.pack._CLOCK_TICK", 0
    )  # or files as new as these would be read once more
    root = make.fill(tmp_path / "a", {"": 3})
    np.savez(tmp_path / "a.npz", together(opened(root)))
    targets = (root, make.zip_up(root, tmp_path / "a.zip"), tmp_path / "a.npz")
    time.sleep(0.02)  # past the file system's own tick
    first = [opened(target).digest(tmp_path / "cache") for target in targets]
    assert [len(digest) for digest in set(first)] == [64] * 3
    assert first[0] == FolderDataset.fingerprint(make_folder(root))

    def never(*_: object) -> Any:
        raise AssertionError("read")

    monkeypatch.setattr("sagan_cli.data.sources.folders._digest", never)
    monkeypatch.setattr("sagan_cli.evaluation.images.npz.Npz.array", never)
    assert [opened(target).digest(tmp_path / "cache") for target in targets] == first
    monkeypatch.undo()
    make.save(root / "0001.png", make.noise(99))
    assert opened(root).digest(tmp_path / "cache") != first[0]


def test_a_cache_that_is_none_only_costs_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sagan_cli.data.packing.pack._CLOCK_TICK", -(10**12))
    root = make.fill(tmp_path / "a", {"": 2})
    (tmp_path / "file").write_text("no folder")
    assert opened(root).digest(tmp_path / "file") == opened(root).digest(tmp_path / "cache")


def make_folder(root: Path) -> FolderDataset:
    from sagan_cli.data.sources.folders import open_folder

    return open_folder(root, where="x", unconditional=False)


def test_the_digest_of_an_npz_is_that_of_its_content(tmp_path: Path, cubes: np.ndarray) -> None:
    labels = np.arange(7)
    np.savez(tmp_path / "a.npz", cubes, labels)
    np.savez_compressed(tmp_path / "b.npz", x=cubes, y=labels.astype(np.uint8))
    np.savez(tmp_path / "c.npz", cubes.transpose(0, 3, 1, 2).copy(), labels)
    stream = io.BytesIO((tmp_path / "a.npz").read_bytes())
    same = {opened(tmp_path / f"{name}.npz").digest() for name in "abc"} | {opened("-", stdin=stream).digest()}
    np.savez(tmp_path / "d.npz", cubes)
    np.savez(tmp_path / "e.npz", cubes, labels[::-1])
    np.savez(tmp_path / "f.npz", cubes.reshape(7, 5, 6, 3), labels)
    other = {opened(tmp_path / f"{name}.npz").digest() for name in "def"}
    assert (len(same), len(other), len(same | other)) == (1, 3, 4)


def test_a_file_replaced_while_open_leaves_no_wrong_memory(
    tmp_path: Path, cubes: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sagan_cli.data.packing.pack._CLOCK_TICK", -(10**12))
    path, new = tmp_path / "a.npz", tmp_path / "new.npz"
    np.savez(path, cubes)
    old = opened(path)
    np.savez(new, cubes[:4])
    expected = opened(new).digest(tmp_path / "other")
    new.replace(path)
    assert old.digest(tmp_path / "cache") != expected
    assert opened(path).digest(tmp_path / "cache") == expected


# What is refused.


def test_paths_that_hold_no_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    make.save(tmp_path / "one.png", make.noise(0))
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "text.zip").write_text("hello")
    make.fill(tmp_path / "deep", {"in/cat": 1, "in/dog": 1})
    assert refused("empty") == "FOLDER empty: empty: put images or folders of images there"
    assert refused("empty", flag="--data").startswith("--data empty: empty")
    assert refused("one.png", UsageError) == "FOLDER one.png: one image only: pass the folder that holds it"
    assert "name a folder of images, a .zip of them" in refused("text.txt", UsageError)
    assert refused("text.npz").startswith("FOLDER text.npz: not an .npz that can be read")
    assert refused("text.zip").startswith("FOLDER text.zip: not a .zip that can be read")
    assert refused("deep").endswith("lie deeper, in in: pass deep/in")
    assert refused("deep", flag="--real").endswith("lie deeper, in in: pass --real deep/in")
    assert refused("gone.npz", UsageError) == "FOLDER gone.npz: no such file"
    assert refused("gone", UsageError).startswith("FOLDER gone: no such path and no such dataset")
    assert refused("./gone", UsageError).startswith("FOLDER ./gone: no such file or folder")


def test_an_npz_by_another_name_is_one_and_a_damaged_zip_is_none(tmp_path: Path, cubes: np.ndarray) -> None:
    np.savez(tmp_path / "a.npz", cubes)
    (tmp_path / "a.npz").rename(tmp_path / "samples")
    assert np.array_equal(together(opened(tmp_path / "samples")), cubes)
    archive = make.zip_up(make.fill(tmp_path / "a", {"": 3}), tmp_path / "a.zip")
    data = bytearray(archive.read_bytes())
    data[200] ^= 255
    archive.write_bytes(data)
    said = refused(archive)
    assert said.startswith(f"FOLDER {archive}: 0000.png cannot be read (damaged in the archive")
    assert "fix or remove it" in said


def test_a_picture_that_cannot_be_read_ends_the_score(tmp_path: Path) -> None:
    root = make.fill(tmp_path / "a", {"": 5})
    (root / "0003.png").write_bytes((root / "0003.png").read_bytes()[:60])
    batches = opened(root).batches(2)
    assert len(next(batches)) == 2
    with pytest.raises(DataError) as caught:
        next(batches)
    assert f"FOLDER {root}: 0003.png cannot be read" in str(caught.value)
    assert "fix or remove it" in str(caught.value)


def test_plugins_that_break_the_contract_are_named() -> None:
    def said(kind: type[SaganError], picture: Any, label: int = 0) -> str:
        class Odd(make.Drawn):
            def read(self, index: int) -> tuple[Any, int]:
                if isinstance(picture, Exception):
                    raise picture
                return picture, label

        with pytest.raises(kind) as caught:
            list(plugin(Odd(3)).batches(2))
        return str(caught.value)

    fine = np.zeros((4, 4), np.uint8)
    assert "image 0 is no uint8 (H, W)" in said(DataError, fine.astype(float))
    assert "image 0 is no uint8 (H, W)" in said(DataError, [1])
    assert "image 0 has label 3 of 3 classes" in said(DataError, fine, 3)
    assert "failed at image 0: KeyError: 1" in said(PluginError, KeyError(1))
    assert "image 0 cannot be read: disk gone" in said(DataError, OSError(5, "disk gone"))


def plugin(dataset: Any) -> DatasetImages:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sagan_cli.plugins.registry.names", lambda kind: ["odd"])
        return DatasetImages(dataset, "odd", "--data odd")


def test_labels_met_while_reading_are_not_read_again() -> None:
    class Counted(make.Drawn):
        reads = 0

        def read(self, index: int) -> tuple[np.ndarray, int]:
            self.reads += 1
            return super().read(index)

    source = Counted(10)
    pictures = plugin(source)
    assert together(pictures, order=[1, 2, 3]).shape == (3, 16, 16, 3)
    assert pictures.labels is not None
    assert pictures.labels.tolist() == [i % 3 for i in range(10)]
    assert source.reads == 10


# Reading ahead.


def test_the_next_batch_is_read_while_the_last_one_is_looked_at() -> None:
    made: list[int] = []
    second = threading.Event()

    def make_items(stopped: Callable[[], bool]) -> Iterator[int]:
        for i in range(1, 6):
            made.append(i)
            if i == 2:
                second.set()
            yield i

    items = read_ahead(make_items)  # type: ignore[arg-type]
    assert not made
    assert next(items) == 1
    assert second.wait(10)  # without another next()
    assert max(made) == 2
    assert list(items) == [2, 3, 4, 5]


def test_leaving_early_stops_the_thread_within_a_picture() -> None:
    begun = threading.Event()

    class Slow(make.Drawn):
        def read(self, index: int) -> tuple[np.ndarray, int]:
            if index >= 100:
                begun.set()
                time.sleep(0.1)
            return super().read(index)

    batches = plugin(Slow(1000)).batches(100)
    next(batches)
    assert begun.wait(10)
    started = time.monotonic()
    batches.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 5  # the batch at work would have taken ten seconds
    with pytest.raises(StopIteration):
        next(batches)


def test_a_data_set_is_read_by_one_thread_at_a_time() -> None:
    class Jealous(make.Drawn):
        inside = 0

        def read(self, index: int) -> tuple[np.ndarray, int]:
            self.inside += 1
            time.sleep(0.002)
            assert self.inside == 1
            self.inside -= 1
            return super().read(index)

    pictures = plugin(Jealous(20))
    for one, other in zip(pictures.batches(2), pictures.batches(2), strict=True):
        assert np.array_equal(one, other)
