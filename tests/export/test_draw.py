"""The drawing script: PyTorch's random stream in NumPy, and the pictures of `sagan sample` without PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.cli import TINY, ok
from support.idx_files import idx_folder

from sagan_cli.contracts import ModelSpec
from sagan_cli.engine import sample
from sagan_cli.engine import sample as pictures
from sagan_cli.engine.runtime import Runtime
from sagan_cli.export import draw_script as draw
from sagan_cli.export.onnx import write_onnx
from sagan_cli.export.trained_model import open_trained_model
from sagan_cli.ops.randomness import generator

for module in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(module, reason=f"{module} is not installed: pip install 'sagan-cli[onnx]'")

ALONE = """
import runpy, sys
for name in ("torch", "sagan_cli", "PIL", "onnx", "torchvision"):
    sys.modules[name] = None
script, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = script
runpy.run_path(script, run_name="__main__")
"""


@pytest.mark.parametrize("lengths", [range(1, 16), range(16, 301)], ids=["scalar", "in-sixteens"])
def test_normals_and_classes_are_those_of_torch(lengths: range) -> None:
    for length, seed in ((n, s) for n in lengths for s in (0, 1, n, 12345678901234567890 + n, 2**64 - n)):
        rng = torch.Generator().manual_seed(seed)
        want = torch.randn(1, length, generator=rng)[0].numpy()
        classes = [int(torch.randint(limit, (1,), generator=rng)) for limit in (2, 10, 1000)]
        words = draw.Words(seed)
        have = words.normal(length)
        assert have.dtype == np.float32
        if length < 16:
            assert (have == want).all()
        else:
            np.testing.assert_allclose(have, want, rtol=0, atol=3e-6)
        assert [words.below(limit) for limit in (2, 10, 1000)] == classes  # the stream stands where torch's does


@pytest.mark.parametrize("truncation", [None, 0.5, 2.0])
def test_latents_are_those_of_sagan_sample(truncation: float | None) -> None:
    spec, seeds = ModelSpec(16, 16, latent=128, num_classes=7), [0, 1, 999, 10**18 - 1]
    for label in (None, 3):
        z, y = sample.latents([sample.Request(s, label) for s in seeds], spec, truncation)
        assert y is not None
        have_z, have_y = draw.latents(seeds, 128, 7, label, truncation)
        np.testing.assert_allclose(have_z, z.numpy(), rtol=0, atol=3e-6)
        assert have_y.tolist() == y.tolist()
    assert generator(0, "sample").initial_seed() >> 63 == 0


def test_grids_and_png_files_are_those_of_the_core(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for count, channels in ((1, 3), (5, 1), (4, 4), (16, 3)):
        drawn = rng.integers(0, 256, (count, 6, 9, channels), dtype=np.uint8)
        sheet = draw.grid(drawn)
        assert (sheet == pictures.grid(drawn)).all()
        path = tmp_path / f"{count}.png"
        path.write_bytes(draw.png(sheet))
        with Image.open(path) as picture:
            picture.verify()
        assert (np.asarray(Image.open(path)).reshape(sheet.shape) == sheet).all()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trained models, conditional and not, each exported: c.onnx and u.onnx, with their scripts."""
    home = tmp_path_factory.mktemp("home")
    data = idx_folder(home / "idx")
    args = ("train", "--data", data, "--size", 16, *TINY, "--set", "train.g_lr=0.01", "--steps", 8)
    ok(*args, "--latent", 24, cwd=home)
    ok(*args, "--unconditional", cwd=home)
    for name, run in (("c", "001-idx-sagan16"), ("u", "002-idx-sagan16")):
        export(home / "runs" / run, home / f"{name}.onnx")
    return home


def export(run: Path, out: Path) -> None:
    checkpoint = sorted((run / "checkpoints").iterdir())[-1]
    runtime = Runtime(torch.device("cpu"), "fp32")
    write_onnx(open_trained_model(checkpoint, runtime), out, attention=False, notify=pytest.fail)


def alone(folder: Path, name: str, *args: str) -> subprocess.CompletedProcess[bytes]:
    """The script in a Python in which neither torch nor sagan can be imported."""
    words = [sys.executable, "-I", "-c", ALONE, f"{name}_draw.py", f"{name}.onnx", *args]
    return subprocess.run(words, cwd=folder, capture_output=True, timeout=120)


def drawn(folder: Path, name: str, *args: str) -> np.ndarray:
    done = alone(folder, name, *args, "--out", "alone.npy")
    assert done.returncode == 0, done.stderr.decode()
    assert (done.stdout, done.stderr) == (b"", b"")
    return np.load(folder / "alone.npy", allow_pickle=False)


def sampled(folder: Path, run: Path, *args: str) -> np.ndarray:
    ok("sample", run, *args, "--out", "sampled.npz", "--force", "--device", "cpu", cwd=folder)
    with np.load(folder / "sampled.npz", allow_pickle=False) as archive:
        return archive["arr_0"]


def gap(have: np.ndarray, want: np.ndarray) -> int:
    assert have.shape == want.shape
    assert have.dtype == want.dtype == np.uint8
    assert want.std() > 1
    return int(np.abs(have.astype(int) - want.astype(int)).max())


def test_without_torch_and_sagan_the_same_sixteen_pictures(home: Path) -> None:
    runs = home / "runs"
    for name, run in (("c", "001-idx-sagan16"), ("u", "002-idx-sagan16")):
        assert gap(drawn(home, name, "--seeds", "0-15"), sampled(home, runs / run, "--seeds", "0-15")) <= 1
    chosen = ("--seeds", "3,40-41", "--class", "2", "--truncation", "0.7")
    assert gap(drawn(home, "c", *chosen), sampled(home, runs / "001-idx-sagan16", *chosen)) <= 1


def test_a_grid_and_what_is_refused(home: Path) -> None:
    done = alone(home, "u", "--out", "grid.png")
    assert done.returncode == 0, done.stderr.decode()
    with Image.open(home / "grid.png") as picture:
        assert picture.size == (4 * 18 - 2, 4 * 18 - 2)
    for args, words in (
        (("--seeds", "x"), b"--seeds x: write numbers"),
        (("--seeds", "3-1"), b"an empty range"),
        (("--class", "cat"), b"there are none"),
        (("--out", "grid.gif"), b"name a .png or .npy file"),
        (("--truncation", "0"), b"must be above 0"),
    ):
        done = alone(home, "u", *args)
        assert done.returncode == 2
        assert words in done.stderr.splitlines()[-1]
        assert b"Traceback" not in done.stderr


def test_models_of_others_are_refused(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(home / "u.onnx")
    facts = json.loads(model.metadata_props[0].value)
    model.metadata_props[0].value = json.dumps({**facts, "format": 99})
    onnx.save(model, tmp_path / "later.onnx")
    with pytest.raises(ValueError, match="has format 99, and this script reads 1"):
        draw.Model(tmp_path / "later.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ValueError, match="not a model that sagan exported"):
        draw.Model(tmp_path / "other.onnx")
