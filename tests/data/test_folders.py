"""Folders and archives: which files count, what the classes are, and what each wrong arrangement says."""

from __future__ import annotations

import os
import pickle
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support import image_files as make

from sagan_cli.data.sources.archives import MAX_ENTRY, open_zip
from sagan_cli.data.sources.folders import FolderDataset, arrange, open_folder
from sagan_cli.errors import BadImage, DataError


def opened(root: Path, unconditional: bool = False) -> FolderDataset:
    return open_folder(root, where=str(root), unconditional=unconditional)


def refusal(root: Path, *parts: str) -> str:
    """The one line that refuses `root`, checked to hold `parts`."""
    with pytest.raises(DataError) as caught:
        opened(root)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"--data {root}")
    for part in parts:
        assert part in line, line
    return line


def test_a_flat_folder_has_no_classes_and_a_fixed_order(tmp_path: Path) -> None:
    make.fill(tmp_path, {"": 3})
    (tmp_path / "notes.txt").write_text("not an image")
    data = opened(tmp_path)
    assert (len(data), data.class_names) == (3, ())
    assert data.listing.names == ("0000.png", "0001.png", "0002.png")
    pixels, label = data.read(2)
    assert label == 0
    np.testing.assert_array_equal(pixels, make.noise(2))


def test_class_folders_are_sorted_and_searched_to_any_depth(tmp_path: Path) -> None:
    make.fill(tmp_path, {"dog": 2, "cat/indoors": 1, "cat/outdoors/garden": 1, "Ant": 1})
    data = opened(tmp_path)
    assert data.class_names == ("Ant", "cat", "dog")
    assert [data.read(i)[1] for i in range(5)] == [0, 1, 1, 2, 2]
    assert data.name_of(1) == "cat/indoors/0000.png"


def test_case_of_suffixes_and_files_of_other_systems_do_not_matter(tmp_path: Path) -> None:
    make.save(tmp_path / "a.PNG", make.noise(1))
    make.save(tmp_path / "b.JpEg", make.noise(2))
    for litter in (
        ".hidden.png",
        "._a.png",
        "__MACOSX/a.png",
        "Thumbs.db",
        "desktop.ini",
        ".git/x.png",
        "@eaDir/t.jpg",
    ):
        (tmp_path / litter).parent.mkdir(exist_ok=True)
        (tmp_path / litter).write_bytes(b"litter")
    assert opened(tmp_path).listing.names == ("a.PNG", "b.JpEg")


def test_unconditional_takes_every_picture_at_any_depth(tmp_path: Path) -> None:
    make.fill(tmp_path, {"": 1, "train/cat": 2, "train/dog": 1, "val/cat": 1})
    data = opened(tmp_path, unconditional=True)
    assert (len(data), data.class_names) == (5, ())
    assert {data.read(i)[1] for i in range(5)} == {0}


def test_empty_folders_say_so(tmp_path: Path) -> None:
    refusal(tmp_path, "empty", "put images")
    (tmp_path / "cat").mkdir()
    refusal(tmp_path, "empty")
    (tmp_path / "readme.txt").write_text("x")
    refusal(tmp_path, "no images", "1 other file", "readme.txt")
    (tmp_path / "faces.zip").write_bytes(b"x")
    refusal(tmp_path, "2 other files", f"pass --data {tmp_path}/faces.zip")
    with pytest.raises(DataError, match="no images"):
        opened(tmp_path, unconditional=True)


def test_a_single_class_folder_names_both_ways_out(tmp_path: Path) -> None:
    make.fill(tmp_path, {"cats": 2})
    refusal(tmp_path, "one class folder only, 'cats'", "pass --unconditional", f"or --data {tmp_path}/cats")
    (tmp_path / "dogs").mkdir()  # an empty folder is no class
    refusal(tmp_path, "one class folder only, 'cats'")


def test_a_class_folder_far_down_is_named_with_its_path(tmp_path: Path) -> None:
    make.fill(tmp_path, {"a/b/c": 2})
    refusal(tmp_path, "one class folder only, 'a/b/c'", f"--data {tmp_path}/a/b/c")


def test_classes_one_level_too_deep_name_the_folder_to_pass(tmp_path: Path) -> None:
    make.fill(tmp_path, {"train/cat": 1, "train/dog": 1})
    refusal(tmp_path, "cat, dog", "deeper", f"pass --data {tmp_path}/train")
    assert opened(tmp_path / "train").class_names == ("cat", "dog")


def test_classes_two_levels_too_deep(tmp_path: Path) -> None:
    make.fill(tmp_path, {"data/images/cat": 1, "data/images/dog": 1})
    refusal(tmp_path, "deeper", f"pass --data {tmp_path}/data/images")


def test_splits_are_not_taken_for_classes(tmp_path: Path) -> None:
    make.fill(tmp_path, {"train/cat": 1, "train/dog": 1, "val/cat": 1, "val/dog": 1})
    refusal(tmp_path, "train, val", "not classes", f"pass --data {tmp_path}/train", "--unconditional")


def test_splits_without_classes_are_not_taken_for_classes_either(tmp_path: Path) -> None:
    make.fill(tmp_path, {"Test": 1, "Train": 2})
    refusal(tmp_path, "not classes", f"pass --data {tmp_path}/Train")


def test_folders_that_repeat_the_same_classes_are_parts(tmp_path: Path) -> None:
    make.fill(tmp_path, {"partA/cat": 1, "partA/dog": 1, "partB/cat": 1, "partB/dog": 1})
    refusal(tmp_path, "not classes, each with cat, dog", f"--data {tmp_path}/partA")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    make.fill(tmp_path, {"car": 1, "plane": 1, "train": 1})
    assert opened(tmp_path).class_names == ("car", "plane", "train")


def test_classes_with_different_sub_folders_are_classes(tmp_path: Path) -> None:
    make.fill(tmp_path, {"cat/tabby": 1, "cat/persian": 1, "dog/poodle": 1})
    assert opened(tmp_path).class_names == ("cat", "dog")


def test_pictures_beside_class_folders_name_both_ways_out(tmp_path: Path) -> None:
    make.fill(tmp_path, {"": 1, "cat": 1, "dog": 1})
    refusal(tmp_path, "1 image beside 2 folders of images (cat, dog)", "move", "--unconditional")


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    make.fill(tmp_path / "far", {"": 1})
    root = make.fill(tmp_path / "root", {"cat": 1, "dog": 1})
    (root / "elk").symlink_to(tmp_path / "far")
    (root / "cat" / "back").symlink_to(root)
    data = opened(root)
    assert data.class_names == ("cat", "dog", "elk")
    assert "cat/back" not in " ".join(data.listing.names)


def test_broken_links_count_as_bad_pictures_and_pipes_are_left_out(tmp_path: Path) -> None:
    make.fill(tmp_path, {"": 1})
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    data = opened(tmp_path)
    assert data.listing.names == ("0000.png", "gone.png")
    with pytest.raises(BadImage, match="no such file"):
        data.read(1)


def test_names_that_are_not_utf8_can_be_read_and_printed(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    make.fill(tmp_path, {name: 1, "dog": 1})
    data = opened(tmp_path)
    assert data.class_names == ("caf�", "dog")
    data.name_of(0).encode()
    assert data.read(0)[0].shape == (24, 20, 3)
    assert len(data.fingerprint()) == 64


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refuse)
    refusal(tmp_path, "cannot be listed: Permission denied")


def test_two_hundred_thousand_names_are_sorted_out_in_seconds() -> None:
    names = [f"class{i % 1000:03d}/{i:07d}.jpg" for i in range(200_000)]
    start = time.process_time()
    listing = arrange(names, where="x", unconditional=False)
    assert len(listing.class_names) == 1000
    assert time.process_time() - start < 4


# Archives.


def archive(tmp_path: Path, counts: dict[str, int], prefix: str = "") -> Path:
    return make.zip_up(make.fill(tmp_path / "source", counts), tmp_path / "set.zip", prefix)


def zipped(path: Path, inner: str = "", unconditional: bool = False):  # type: ignore[no-untyped-def]
    return open_zip(path, inner, where=f"{path}/{inner}".rstrip("/"), unconditional=unconditional)


@pytest.mark.parametrize("prefix", ["", "wrapped/", "./"])
def test_a_zip_follows_the_rules_of_folders(tmp_path: Path, prefix: str) -> None:
    data = zipped(archive(tmp_path, {"cat": 2, "dog": 1}, prefix if prefix != "./" else ""))
    assert data.class_names == ("cat", "dog")
    pixels, label = data.read(1)
    np.testing.assert_array_equal(pixels, make.noise(1))
    assert (label, data.read(2)[1]) == (0, 1)


def test_a_zip_survives_pickling_with_its_handle_open(tmp_path: Path) -> None:
    data = zipped(archive(tmp_path, {"": 2}))
    before = data.read(0)[0]
    again = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(again.read(0)[0], before)


def test_a_wrapped_single_folder_is_a_flat_set(tmp_path: Path) -> None:
    data = zipped(archive(tmp_path, {"cats": 2}))
    assert (len(data), data.class_names) == (2, ())
    assert data.name_of(0) == "cats/0000.png"


def test_litter_in_a_zip_does_not_hide_its_wrapper(tmp_path: Path) -> None:
    source = make.fill(tmp_path / "source", {"set/cat": 1, "set/dog": 1})
    make.save(source / "__MACOSX/set/cat/._0000.png", make.noise(1))
    assert zipped(make.zip_up(source, tmp_path / "set.zip")).class_names == ("cat", "dog")


def test_names_packed_on_windows(tmp_path: Path) -> None:
    source = make.fill(tmp_path / "source", {"cat": 1, "dog": 1})
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as out:
        for name in ("cat", "dog"):
            info = zipfile.ZipInfo("x")
            info.filename = f"{name}\\0000.png"
            out.writestr(info, (source / name / "0000.png").read_bytes())
    data = zipped(path)
    assert data.class_names == ("cat", "dog")
    assert data.read(1)[0].shape == (24, 20, 3)


def test_a_nested_zip_names_the_path_inside_it_and_takes_it(tmp_path: Path) -> None:
    path = archive(tmp_path, {"train/cat": 1, "train/dog": 1, "val/cat": 1, "val/dog": 1}, "set/")
    with pytest.raises(DataError, match="not classes") as caught:
        zipped(path)
    assert f"pass --data {path}/set/train" in str(caught.value)
    assert zipped(path, "set/train").class_names == ("cat", "dog")
    assert len(zipped(path, "set/val", unconditional=True)) == 2
    with pytest.raises(DataError, match="no folder 'set/tset'"):
        zipped(path, "set/tset")


def test_a_zip_without_pictures(tmp_path: Path) -> None:
    path = tmp_path / "empty.zip"
    zipfile.ZipFile(path, "w").close()
    with pytest.raises(DataError, match="empty"):
        zipped(path)


@pytest.mark.parametrize("damage", ["text", "cut", "nothing", "directory"])
def test_a_broken_zip_is_one_line(tmp_path: Path, damage: str) -> None:
    path = archive(tmp_path, {"": 2})
    data = path.read_bytes()
    central = data.rindex(b"PK\1\2")
    path.write_bytes(
        {
            "text": b"hello",
            "cut": data[:-40],
            "nothing": b"",
            "directory": data[:central] + b"XX" + data[central + 2 :],
        }[damage]
    )
    with pytest.raises(
        DataError, match=r"^--data .*set\.zip: not a \.zip that can be read .*: make or fetch it again$"
    ):
        zipped(path)


def test_an_entry_of_bomb_size_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path, {"": 2})
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\1\2")  # the first entry of the central directory; its unpacked size is at offset 24
    data[entry + 24 : entry + 28] = struct.pack("<I", MAX_ENTRY + 1)
    path.write_bytes(bytes(data))
    opened_zip = zipped(path)
    with pytest.raises(BadImage, match="unpacks to 268,435,457 bytes"):
        opened_zip.read(0)
    assert opened_zip.read(1)[0].shape == (24, 20, 3)


def test_an_entry_with_a_wrong_checksum_or_cipher_is_bad(tmp_path: Path) -> None:
    path = archive(tmp_path, {"": 3})
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 20] ^= 0xFF
    second = data.index(b"PK\1\2", data.index(b"PK\1\2") + 4)
    data[second + 8] |= 1  # flag bit 0: encrypted
    path.write_bytes(bytes(data))
    damaged = zipped(path)
    with pytest.raises(BadImage, match="damaged in the archive"):
        damaged.read(0)
    with pytest.raises(BadImage, match="encrypted"):
        damaged.read(1)
    assert damaged.read(2)[0].shape == (24, 20, 3)


def test_an_encrypted_archive_is_refused_at_once(tmp_path: Path) -> None:
    path = archive(tmp_path, {"": 1})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="encrypted: unpack it"):
        zipped(path)


def test_links_to_devices_and_pipes_are_never_opened(tmp_path: Path) -> None:
    make.fill(tmp_path, {"": 3})
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "piped.png").symlink_to(tmp_path / "pipe")
    (tmp_path / "itself.png").symlink_to(tmp_path / "itself.png")
    found = open_folder(tmp_path, where="x", unconditional=False)
    assert [found.name_of(i) for i in range(len(found))] == ["0000.png", "0001.png", "0002.png", "itself.png"]
    with pytest.raises(BadImage):
        found.read(3)


def test_every_folder_is_visited_once_by_its_own_name(tmp_path: Path) -> None:
    make.fill(tmp_path / "data", {"cat": 2, "dog": 2})
    for name in ("cat", "dog"):
        (tmp_path / "data" / name / "other").symlink_to(tmp_path / "data" / ("dog" if name == "cat" else "cat"))
    (tmp_path / "data" / "ape").symlink_to(tmp_path / "data" / "cat")  # sorts before it, and adds nothing
    found = open_folder(tmp_path / "data", where="x", unconditional=False)
    names = [found.name_of(i) for i in range(len(found))]
    assert names == ["cat/0000.png", "cat/0001.png", "dog/0000.png", "dog/0001.png"]


def test_a_damaged_entry_of_any_compression_is_one_bad_image(tmp_path: Path) -> None:
    make.fill(tmp_path / "data", {"": 6})
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path = tmp_path / f"{method}.zip"
        with zipfile.ZipFile(path, "w", method) as archive:
            for file in sorted((tmp_path / "data").iterdir()):
                archive.write(file, file.name)
            third = archive.infolist()[2]
        whole = path.read_bytes()
        start = third.header_offset + 30 + len(third.filename)
        damages = [(start, b"\xff" * 40), (third.header_offset + 31, b"?"), (third.header_offset, b"none")]
        for place, change in damages:
            path.write_bytes(whole[:place] + change + whole[place + len(change) :])
            found = open_zip(path, where="x", unconditional=False)
            for i in range(6):
                if i == 2:
                    with pytest.raises(BadImage):
                        found.read(i)
                else:
                    found.read(i)


def test_numbers_in_class_names_are_sorted_by_value(tmp_path: Path) -> None:
    make.fill(tmp_path, dict.fromkeys(("10", "2", "1", "img12", "img3", "b", "01"), 1))
    data = opened(tmp_path)
    assert data.class_names == ("01", "1", "2", "10", "b", "img3", "img12")
    assert [data.class_names[data.read(i)[1]] for i in range(7)] == [name.split("/")[0] for name in data.listing.names]
