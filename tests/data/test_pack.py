"""The cache: what makes a new pack, what does not, what is damaged, and what too many bad images say."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from support import image_files as make
from support.image_files import Drawn, Told, pack

from sagan_cli.data.packing import pack as pack_module
from sagan_cli.data.packing.pack import PackRequest, cache_dir, open_pack, require_batch
from sagan_cli.data.sources.folders import FolderDataset, open_folder
from sagan_cli.errors import DataError, PluginError, SaganError, UsageError


def folder(root: Path, unconditional: bool = False) -> FolderDataset:
    return open_folder(root, where=str(root), unconditional=unconditional)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make.fill(tmp_path / "set", {"cat": 3, "dog": 2})


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def packs(cache: Path) -> list[Path]:
    return sorted((cache / "packs").iterdir())


def test_a_pack_holds_pictures_labels_and_what_they_are(root: Path, cache: Path) -> None:
    told = Told()
    got = pack(folder(root), cache, (20, 16), told=told)
    assert (got.images.shape, got.images.dtype) == ((5, 20, 16, 3), np.uint8)
    assert (got.labels.tolist(), got.labels.dtype) == ([0, 0, 0, 1, 1], np.int64)
    assert (got.class_names, got.total, got.skipped, got.from_cache) == (("cat", "dog"), 5, (), False)
    assert isinstance(got.images, np.memmap)
    assert not got.images.flags.writeable
    assert told.steps == [(0, 5), (5, 5)]
    assert told.lines == []
    digest = hashlib.sha256(got.images.tobytes() + got.labels.tobytes() + repr((5, 20, 16, 3)).encode())
    assert got.digest == digest.hexdigest()
    assert [p.name for p in sorted(got.path.iterdir())] == ["images.npy", "labels.npy", "manifest.json"]
    about = json.loads(got.manifest.read_text())
    assert about["transform"] == {"height": 20, "width": 16, "channels": None, "fit": "crop"}


def test_the_second_opening_packs_nothing_and_reads_no_picture(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pack(folder(root), cache)
    time.sleep(0.05)
    monkeypatch.setattr(pack_module, "_CLOCK_TICK", 0)  # or files as new as these would be read once more
    pack(folder(root), cache)
    monkeypatch.setattr(FolderDataset, "fingerprint", lambda self: pytest.fail("read the files"))
    told = Told()
    second = pack(folder(root), cache, told=told)
    assert second.from_cache
    assert told.steps == []
    assert second.digest == first.digest
    np.testing.assert_array_equal(second.images, first.images)


def test_new_files_are_read_again_until_their_times_can_be_trusted(root: Path, cache: Path) -> None:
    pack(folder(root), cache)
    assert not list((cache / "fingerprints").iterdir())
    assert pack(folder(root), cache).from_cache  # by content all the same


@pytest.mark.parametrize("change", ["copy", "touch", "rename the root"])
def test_the_same_content_elsewhere_or_later_is_the_same_pack(root: Path, cache: Path, change: str) -> None:
    first = pack(folder(root), cache)
    if change == "touch":
        for path in root.rglob("*.png"):
            path.touch()
    elif change == "copy":
        root = Path(shutil.copytree(root, root.parent / "copy"))
    else:
        root = root.rename(root.parent / "renamed")
    second = pack(folder(root), cache)
    assert second.from_cache
    assert second.path == first.path


@pytest.mark.parametrize(
    "change", ["content", "added", "removed", "renamed", "moved to another class", "class renamed"]
)
def test_any_change_is_a_new_pack(root: Path, cache: Path, change: str) -> None:
    first = pack(folder(root), cache)
    if change == "content":
        make.save(root / "cat/0000.png", make.noise(99))
    elif change == "added":
        make.save(root / "cat/9999.png", make.noise(99))
    elif change == "removed":
        (root / "cat/0000.png").unlink()
    elif change == "renamed":
        (root / "cat/0000.png").rename(root / "cat/5555.png")
    elif change == "moved to another class":
        (root / "cat/0000.png").rename(root / "dog/5555.png")
    else:
        (root / "cat").rename(root / "ant")
    second = pack(folder(root), cache)
    assert not second.from_cache
    assert second.path != first.path


def test_a_change_with_the_old_size_and_time_is_noticed(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_module, "_CLOCK_TICK", 0)
    path = root / "cat/0000.bmp"
    make.save(path, make.noise(1))
    make.age(root)
    time.sleep(0.05)
    first = pack(folder(root), cache)
    assert list((cache / "fingerprints").iterdir())
    before = path.stat()
    make.save(path, make.noise(2))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    second = pack(folder(root), cache)
    assert not second.from_cache
    assert second.digest != first.digest


def test_a_damaged_memory_of_a_fingerprint_is_not_believed(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_module, "_CLOCK_TICK", 0)
    time.sleep(0.05)
    pack(folder(root), cache)
    (memo,) = (cache / "fingerprints").iterdir()
    for damage in (b"", b"abc", b"\xff" * 64):
        memo.write_bytes(damage)
        assert pack(folder(root), cache).from_cache


def test_renamed_classes_of_a_plugin_are_a_new_pack(cache: Path) -> None:
    class Renamed(Drawn):
        def fingerprint(self) -> str:
            return "the same"

    first, second = Renamed(3), Renamed(3)
    second.class_names = ["x", "y", "z"]
    assert pack(first, cache).class_names == ("c0", "c1", "c2")
    assert pack(second, cache).class_names == ("x", "y", "z")


def test_every_part_of_the_transform_is_in_the_key(root: Path, cache: Path) -> None:
    requests = [(16, {}), ((16, 32), {}), (16, {"channels": 1}), (16, {"fit": "stretch"}), (16, {"channels": 4})]
    paths = {pack(folder(root), cache, size, **more).path for size, more in requests}
    assert len(paths) == len(requests)
    assert len({pack(folder(root, True), cache).path, pack(folder(root), cache).path}) == 2
    assert pack(folder(root), cache, max_bad=0.9).from_cache
    assert pack(folder(root), cache, fit="crop").from_cache  # what auto means for it


@pytest.mark.parametrize(("channels", "asked"), [(1, 1), (3, 3), (4, 4), (3, None)])
def test_channels(root: Path, cache: Path, channels: int, asked: int | None) -> None:
    assert pack(folder(root), cache, channels=asked).images.shape == (5, 16, 16, channels)


def test_channels_auto_is_1_only_if_no_picture_has_a_colour(tmp_path: Path, cache: Path) -> None:
    for i in range(40):
        make.save(tmp_path / f"set/{i:02d}.png", make.noise(i, channels=1))
    assert pack(folder(tmp_path / "set"), cache).images.shape[3] == 1
    coloured = make.noise(1, channels=1)[..., None].repeat(3, 2)
    coloured[0, 0, 0] ^= 0xFF
    make.save(tmp_path / "set/17.png", coloured)  # not among those looked at first
    told = Told()
    got = pack(folder(tmp_path / "set"), cache, told=told, size=(24, 20))
    assert got.images.shape == (40, 24, 20, 3)
    np.testing.assert_array_equal(got.images[17], coloured)
    assert told.steps[-1] == (40, 40)


def test_alpha_is_kept_only_when_asked_for(tmp_path: Path, cache: Path) -> None:
    clear = np.zeros((16, 16, 4), np.uint8)
    clear[:8] = (255, 0, 0, 255)
    make.save(tmp_path / "set/a.png", clear)
    assert pack(folder(tmp_path / "set"), cache).images[0, 12, 3].tolist() == [255, 255, 255]
    assert pack(folder(tmp_path / "set"), cache, channels=4).images[0, 12, 3].tolist() == [0, 0, 0, 0]


# Damage to the cache.


@pytest.mark.parametrize(
    "damage", ["images cut", "labels cut", "images gone", "manifest gone", "manifest cut", "header"]
)
def test_a_damaged_pack_is_named_and_made_again(root: Path, cache: Path, damage: str) -> None:
    first = pack(folder(root), cache)
    kept = np.array(first.images)
    name = {"images": "images.npy", "labels": "labels.npy", "manifest": "manifest.json", "header": "images.npy"}
    file = first.path / name[damage.split()[0]]
    if damage.endswith("gone"):
        file.unlink()
    elif damage == "header":
        file.write_bytes(file.read_bytes().replace(b"(5,", b"(4,"))
    else:
        file.write_bytes(file.read_bytes()[:-7])
    told = Told()
    second = pack(folder(root), cache, told=told)
    assert not second.from_cache
    np.testing.assert_array_equal(second.images, kept)
    (line,) = told.lines
    assert line.startswith(f"{first.path}: damaged pack (")
    assert "packing again" in line
    assert packs(cache) == [first.path]
    assert pack(folder(root), cache).from_cache


def test_leftovers_of_killed_processes_are_ignored_and_removed_when_old(root: Path, cache: Path) -> None:
    old, young = cache / "packs/.tmp-old", cache / "packs/.tmp-young"
    for left in (old, young):
        left.mkdir(parents=True)
        (left / "images.npy").write_bytes(b"half")
    make.age(old)
    got = pack(folder(root), cache)
    assert packs(cache) == [young, got.path]


def test_a_stop_from_the_progress_bar_leaves_nothing(cache: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(Drawn(200), cache, progress=stop)
    assert packs(cache) == []
    assert not pack(Drawn(200), cache).from_cache


def test_a_pack_made_meanwhile_by_another_process_is_used(cache: Path) -> None:
    inner = Told()

    def meanwhile(done: int, total: int) -> None:
        if done == total:
            pack(Drawn(70), cache, told=inner)

    outer = pack(Drawn(70), cache, progress=meanwhile)
    assert inner.steps[-1] == (70, 70)
    assert packs(cache) == [outer.path]


def test_files_that_change_while_they_are_packed(root: Path, cache: Path) -> None:
    def meddle(done: int, total: int) -> None:
        make.save(root / "cat/0000.png", make.noise(99))

    with pytest.raises(DataError, match="changed while they were packed: run the same command again"):
        pack(folder(root), cache, progress=meddle)
    assert packs(cache) == []


def test_files_that_change_while_they_are_read(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = FolderDataset.fingerprint

    def meddled(self: FolderDataset) -> str:
        make.save(root / "cat/0000.png", make.noise(99))
        return true(self)

    monkeypatch.setattr(FolderDataset, "fingerprint", meddled)
    with pytest.raises(DataError, match="changed while they were read"):
        pack(folder(root), cache)


def test_a_cache_that_cannot_be_written_names_the_variable(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SaganError, match=r"file/cache: the cache cannot be written .*set SAGAN_CACHE"):
        pack(folder(root), tmp_path / "file/cache")


def test_a_read_only_cache_serves_its_packs(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(folder(root), cache)

    def refuse(*args: object) -> None:
        raise SaganError("read-only")

    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere, so it is acted
    monkeypatch.setattr(pack_module, "write_atomic", refuse)
    monkeypatch.setattr(pack_module, "_CLOCK_TICK", -(10**12))
    assert pack(folder(root), cache).from_cache
    with pytest.raises(SaganError, match=r"permission denied.*SAGAN_CACHE"):
        pack(folder(root), cache, 32)


def test_a_disk_too_small_is_found_before_packing(cache: Path) -> None:
    class Huge(Drawn):
        def __len__(self) -> int:
            return 10**9

    told = Told()
    with pytest.raises(SaganError, match=r"packing needs 12288\.0 GB where .* are free: .*SAGAN_CACHE"):
        pack(Huge(), cache, 64, told=told)
    assert told.steps == []


# Bad images.


def spoil(root: Path, names: list[str]) -> None:
    for name in names:
        (root / name).write_bytes(b"")


def test_bad_pictures_are_skipped_counted_and_listed(root: Path, cache: Path) -> None:
    spoil(root, ["cat/0001.png"])
    (root / "dog/0000.png").write_bytes((root / "dog/0000.png").read_bytes()[:60])
    told = Told()
    got = pack(folder(root), cache, (24, 20), max_bad=0.5, told=told)
    assert got.images.shape[0] == 3
    assert got.labels.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(got.images[1], make.noise(2))  # rows close up
    assert got.total == 5
    assert [s["file"] for s in got.skipped] == ["cat/0001.png", "dog/0000.png"]
    assert got.skipped[0]["reason"] == "empty file"
    (line,) = told.lines
    assert line.startswith("skipped 2 of 5 images (40 %) cannot be read (cat/0001.png: empty file; dog/0000.png: ")
    assert line.endswith(f"all are listed in {got.manifest}")
    assert json.loads(got.manifest.read_text())["skipped"] == list(got.skipped)
    again = Told()
    assert pack(folder(root), cache, (24, 20), max_bad=0.5, told=again).from_cache
    assert again.lines == told.lines


def test_too_many_bad_pictures_stop_and_name_the_flag(root: Path, cache: Path) -> None:
    spoil(root, ["cat/0001.png"])
    for _ in range(2):  # when packing, and again from the cache
        with pytest.raises(DataError, match=r"^1 of 5 .*more than --max-bad 0\.01 allows: .*or raise --max-bad$"):
            pack(folder(root), cache)
    assert pack(folder(root), cache, max_bad=0.2).from_cache


def test_mending_a_picture_is_a_new_pack(root: Path, cache: Path) -> None:
    spoil(root, ["cat/0001.png"])
    (root / "gone.png").symlink_to(root / "nowhere.png")
    assert len(pack(folder(root, True), cache, max_bad=0.5).images) == 4
    make.save(root / "cat/0001.png", make.noise(1))
    make.save(root / "nowhere.png", make.noise(2))
    (root / "nowhere.png").rename(root / ".nowhere")
    (root / "gone.png").unlink()
    (root / "gone.png").symlink_to(root / ".nowhere")
    assert len(pack(folder(root, True), cache).images) == 6


def test_a_class_without_a_readable_picture_is_refused(root: Path, cache: Path) -> None:
    spoil(root, ["dog/0000.png", "dog/0001.png"])
    with pytest.raises(DataError, match="no image of class 'dog' can be read"):
        pack(folder(root), cache, max_bad=0.9)


def test_nothing_readable_at_all(root: Path, cache: Path) -> None:
    spoil(root, [p.relative_to(root).as_posix() for p in root.rglob("*.png")])
    with pytest.raises(DataError, match=r"none of the 5 images can be read \(first: cat/0000.png: empty file\)"):
        pack(folder(root), cache, max_bad=1.0)
    assert packs(cache) == []


def test_fewer_pictures_than_a_batch(root: Path, cache: Path) -> None:
    got = pack(folder(root), cache)
    require_batch(len(got.images), 5)
    with pytest.raises(DataError, match=r"^--batch 6: there are only 5 images to train on: pass --batch 5 or fewer"):
        require_batch(len(got.images), 6)


def test_a_set_without_pictures(cache: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        pack(Drawn(0), cache)


def test_an_unknown_fit(root: Path, cache: Path) -> None:
    with pytest.raises(UsageError, match="--fit squeeze: choose auto, crop, pad, stretch"):
        pack(folder(root), cache, fit="squeeze")


def test_a_plugin_that_fails_is_said_to(cache: Path) -> None:
    class Broken(Drawn):
        def read(self, index: int) -> tuple[np.ndarray, int]:
            return {}["colour"]

    with pytest.raises(PluginError, match="the dataset failed at image 0: KeyError: 'colour'"):
        pack(Broken(3), cache, channels=3)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((np.zeros((4, 4), np.float32), 0), r"image 0 is float32 \(4, 4\); it must be uint8"),
        ((np.zeros((4, 4, 2), np.uint8), 0), r"is uint8 \(4, 4, 2\)"),
        ((np.zeros((0, 4, 3), np.uint8), 0), r"is uint8 \(0, 4, 3\)"),
        (([[1]], 0), "is list"),
        ((np.zeros((4, 4), np.uint8), 3), "has label 3; it names 3 classes"),
        ((np.zeros((4, 4), np.uint8), -1), "has label -1"),
        (OSError(5, "Input/output error"), "cannot be read at image 0: Input/output error"),
    ],
)
def test_answers_against_the_contract_are_named(answer: object, says: str, cache: Path) -> None:
    class Odd(Drawn):
        def read(self, index: int):  # type: ignore[no-untyped-def]
            if isinstance(answer, OSError):
                raise answer
            return answer

    with pytest.raises(DataError, match=says):
        pack(Odd(3), cache, channels=3)


def test_where_the_cache_is() -> None:
    assert cache_dir({"SAGAN_CACHE": "/a/b", "XDG_CACHE_HOME": "/x"}) == Path("/a/b")
    assert cache_dir({"SAGAN_CACHE": "", "XDG_CACHE_HOME": "/x"}) == Path("/x/sagan")
    assert cache_dir({}) == Path.home() / ".cache/sagan"


def test_a_request_says_what_it_wants_by_default(cache: Path) -> None:
    got = open_pack(
        Drawn(3), PackRequest(16, 16), cache_dir=cache, max_bad=0, workers=1, progress=Told().progress, notify=print
    )
    np.testing.assert_array_equal(got.images[2], Drawn(3).read(2)[0])
