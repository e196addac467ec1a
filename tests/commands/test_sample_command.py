"""`sagan sample`: every kind of output, seeds that mean one picture, classes, and what it refuses."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.cli import TINY, fails, ok, process, sagan
from support.idx_files import idx_folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs: 001 conditional on three classes, 002 (the newest) without classes."""
    home = tmp_path_factory.mktemp("home")
    data = idx_folder(home / "idx")
    args = ("train", "--data", data, "--size", 16, *TINY, "--set", "train.g_lr=0.01", "--steps", 8)
    ok(*args, cwd=home)
    ok(*args, "--unconditional", cwd=home)
    return home


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def loaded(data: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return dict(archive)


def test_the_newest_run_is_the_default_and_is_named(home: Path, tmp_path: Path) -> None:
    done = sagan("sample", "-n", 9, "--out", tmp_path / "grid.png", cwd=home)
    assert done.returncode == 0
    assert done.stdout == f"{tmp_path / 'grid.png'}\n".encode()
    assert b"002-idx-sagan16, step 8" in done.stderr
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size == (3 * 18 - 2, 3 * 18 - 2)
        about = json.loads(picture.text["sagan"])
    assert about["seeds"] == list(range(9))
    assert about["step"] == 8


@pytest.mark.parametrize("batch", [1, 3, 7, 64])
def test_a_picture_depends_on_its_seed_alone(batch: int, home: Path, tmp_path: Path) -> None:
    run = "runs/001-idx-sagan16"
    ok("sample", run, "--seeds", "0-9", "--batch", batch, "--out", tmp_path / "ten", cwd=home)
    ok("sample", run, "--seeds", "3", "--out", tmp_path / "one", cwd=home)
    ok("sample", run, "--seed", 3, "-n", 2, "--out", tmp_path / "two", cwd=home)
    assert len(list((tmp_path / "ten").iterdir())) == 10
    three = (tmp_path / "ten" / "seed000003.png").read_bytes()
    assert (
        three
        == (tmp_path / "one" / "seed000003.png").read_bytes()
        == (tmp_path / "two" / "seed000003.png").read_bytes()
    )
    assert three == ok("sample", run, "--seeds", "3", "--out", "-", cwd=home)
    assert three != (tmp_path / "ten" / "seed000004.png").read_bytes()


def test_every_kind_of_output_holds_the_same_pictures(home: Path, tmp_path: Path) -> None:
    run = "runs/001-idx-sagan16"
    for out in ("d/", "a.zip", "a.npz", "a.png", "a.webp", "a.jpg"):
        ok("sample", run, "-n", 4, "--out", f"{tmp_path}/{out}", cwd=home)
    npz = loaded((tmp_path / "a.npz").read_bytes())
    assert npz["arr_0"].shape == (4, 16, 16, 1)
    assert npz["arr_0"].dtype == np.uint8
    assert npz["seeds"].tolist() == [0, 1, 2, 3]
    assert set(npz["arr_1"]) <= {0, 1, 2}
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == [f"seed{i:06d}.png" for i in range(4)]
        for i, name in enumerate(archive.namelist()):
            np.testing.assert_array_equal(opened(archive.read(name)), npz["arr_0"][i, :, :, 0])
            assert archive.read(name) == (tmp_path / "d" / name).read_bytes()
    grid = opened((tmp_path / "a.png").read_bytes())
    np.testing.assert_array_equal(grid[18:, 18:], npz["arr_0"][3, :, :, 0])
    np.testing.assert_array_equal(opened((tmp_path / "a.webp").read_bytes())[..., 0], grid)
    assert np.abs(opened((tmp_path / "a.jpg").read_bytes()).astype(int) - grid).mean() < 12


def test_pipes(home: Path) -> None:
    png = process("sample", "-n", 4, "--out", "-", cwd=home)
    assert png.returncode == 0
    assert opened(png.stdout).shape == (34, 34)
    assert png.stdout == ok("sample", "-n", 4, "--out", "-", cwd=home)  # another process, the same bytes
    archive = process("sample", "-n", 4, "--out", "-", "--format", "npz", cwd=home)  # a pipe cannot be rewound
    assert archive.returncode == 0
    assert loaded(archive.stdout)["arr_0"].shape == (4, 16, 16, 1)
    for kind, magic in (("npz", b"PK"), ("zip", b"PK"), ("webp", b"RIFF"), ("jpg", b"\xff\xd8")):
        assert ok("sample", "-n", 2, "--out", "-", "--format", kind, cwd=home).startswith(magic)


def test_classes_by_name_index_and_all(home: Path, tmp_path: Path) -> None:
    run = "runs/001-idx-sagan16"
    record = json.loads((home / run / "run.json").read_text())
    names = record["data"]["class_names"]
    ok("sample", run, "--class", names[2], "-n", 3, "--out", tmp_path / "name.npz", cwd=home)
    ok("sample", run, "--class", "2", "-n", 3, "--out", tmp_path / "index.npz", cwd=home)
    by_name, by_index = (loaded((tmp_path / f"{n}.npz").read_bytes()) for n in ("name", "index"))
    assert by_name["arr_1"].tolist() == [2, 2, 2]
    np.testing.assert_array_equal(by_name["arr_0"], by_index["arr_0"])
    ok("sample", run, "--class", "all", "-n", 12, "--out", tmp_path / "all.npz", cwd=home)
    everything = loaded((tmp_path / "all.npz").read_bytes())
    assert everything["arr_1"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    np.testing.assert_array_equal(everything["arr_0"][8:11], by_name["arr_0"])
    ok("sample", run, "--class", "all", "-n", 12, "--out", tmp_path / "all.png", cwd=home)
    assert opened((tmp_path / "all.png").read_bytes()).shape == (3 * 18 - 2, 4 * 18 - 2)  # one class a row
    ok("sample", run, "--class", "all", "--seeds", "5", "--out", tmp_path / "files", cwd=home)
    assert len(list((tmp_path / "files").iterdir())) == 3


def test_truncation_and_raw_weights_change_the_pictures(home: Path) -> None:
    run = "runs/001-idx-sagan16"
    plain = ok("sample", run, "-n", 4, "--out", "-", "--format", "npz", cwd=home)
    for flags in (("--truncation", 0.5), ("--raw",)):
        other = ok("sample", run, "-n", 4, "--out", "-", "--format", "npz", *flags, cwd=home)
        assert (loaded(plain)["arr_0"] != loaded(other)["arr_0"]).any()


def test_truncated_latents_are_the_truncated_normal() -> None:
    from sagan_cli.contracts import ModelSpec
    from sagan_cli.engine.sample import Request, latents

    spec = ModelSpec(16, 16, latent=50)
    z, _ = latents([Request(s) for s in range(200)], spec, 0.8)
    free, _ = latents([Request(s) for s in range(200)], spec, None)
    assert z.abs().max() <= 0.8
    # Variance of N(0, 1) cut at 0.8: 1 - 2 t phi(t) / (2 Phi(t) - 1).
    assert z.var().item() == pytest.approx(0.195, abs=0.01)
    assert (z.sort(dim=1).indices == free.sort(dim=1).indices).all()  # a smooth squeeze: order is kept


def test_a_checkpoint_can_be_named_and_json_says_what_was_drawn(home: Path, tmp_path: Path) -> None:
    checkpoint = "runs/001-idx-sagan16/checkpoints/00000008"
    out = ok("sample", checkpoint, "-n", 2, "--out", tmp_path / "a.png", "--json", cwd=home)
    facts = json.loads(out)
    assert (facts["count"], facts["seeds"], facts["step"], facts["weights"]) == (2, [0, 1], 8, "ema")


def test_nothing_is_overwritten_without_force(home: Path, tmp_path: Path) -> None:
    args = ("sample", "-n", 1, "--out")
    ok(*args, tmp_path / "a.png", cwd=home)
    before = (tmp_path / "a.png").read_bytes()
    assert "--force" in fails(2, *args, tmp_path / "a.png", "--seed", 5, cwd=home)
    assert (tmp_path / "a.png").read_bytes() == before
    ok(*args, tmp_path / "a.png", "--seed", 5, "--force", cwd=home)
    assert (tmp_path / "a.png").read_bytes() != before
    ok(*args, tmp_path / "d", cwd=home)
    done = sagan(*args, tmp_path / "d", cwd=home)
    assert done.returncode == 2
    assert b"--force" in done.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("runs/404",), "runs/404"),
        (("idx",), "idx"),
        (("--out", "a.gif"), "--out a.gif"),
        (("--out", "a.png", "--format", "npz"), "--format npz"),
        (("--format", "tiff", "--out", "-"), "--format tiff"),
        (("--seeds", "3-1"), "--seeds 3-1"),
        (("--seeds", "1,x"), "--seeds 1,x"),
        (("--seeds", "1-3,2"), "twice"),
        (("--seeds", "1", "-n", "4"), "--seeds"),
        (("--class", "0"), "no classes"),
        (("-n", "0"), "-n"),
        (("--truncation", "-1"), "--truncation"),
        (("--out", "-", "--json"), "--json"),
        (("runs/001-idx-sagan16", "--class", "cat"), "--class cat"),
        (("runs/001-idx-sagan16", "--class", "all", "-n", "10"), "try -n 9"),
    ],
)
def test_a_wrong_command_line_is_one_line(args: tuple[str, ...], says: str, home: Path) -> None:
    done = sagan("sample", *args, cwd=home)
    lines = done.stderr.decode().splitlines()
    assert done.returncode in (1, 2)
    assert done.stdout == b""
    assert len(lines) == 1
    assert says in lines[0]


def test_without_a_run_it_says_how_to_get_one(tmp_path: Path) -> None:
    assert "sagan train" in fails(2, "sample", cwd=tmp_path)


@pytest.mark.parametrize("harm", ["flip", "cut", "swap", "format", "missing"])
def test_a_damaged_checkpoint_is_named(harm: str, home: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "00000008"
    shutil.copytree(home / "runs/001-idx-sagan16/checkpoints/00000008", folder)
    file = folder / "model.safetensors"
    if harm == "flip":
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    elif harm == "cut":
        file.write_bytes(file.read_bytes()[:-10])
    elif harm == "swap":
        shutil.copy(home / "runs/002-idx-sagan16/checkpoints/00000008/model.safetensors", file)
    elif harm == "missing":
        file.unlink()
    else:
        facts = json.loads((folder / "checkpoint.json").read_text())
        (folder / "checkpoint.json").write_text(json.dumps({**facts, "format": 99}))
    line = fails(1, "sample", folder, "--out", tmp_path / "x.png", cwd=home)
    assert str(folder) in line
    assert ("format 99" in line) == (harm == "format")
    assert not (tmp_path / "x.png").exists()


def test_a_checkpoint_of_a_missing_plugin_names_its_package(home: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "00000008"
    shutil.copytree(home / "runs/001-idx-sagan16/checkpoints/00000008", folder)
    facts = json.loads((folder / "checkpoint.json").read_text())
    del facts["digest"]
    (folder / "checkpoint.json").write_text(json.dumps({**facts, "arch": "alien", "arch_package": "sagan-alien 1.2"}))
    assert "sagan-alien 1.2" in fails(1, "sample", folder, "--out", tmp_path / "x.png", cwd=home)
