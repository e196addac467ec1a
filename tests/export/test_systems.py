"""Each published system as a file: it draws what `sagan sample` draws of the run that was exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.cli import TINY, ok
from support.idx_files import idx_folder

import sagan_cli
from sagan_cli.config.systems import SYSTEMS
from sagan_cli.engine.sample import Request, latents
from sagan_cli.export import checking

pytestmark = pytest.mark.slow

FORMATS = {"safetensors": "m.safetensors", "pt2": "m.pt2", "onnx": "m.onnx"}
COUNT, CLASS = 3, 1


@pytest.fixture(autouse=True)
def one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """One timed run instead of five."""
    monkeypatch.setattr(checking, "RUNS", 1)


@pytest.fixture(scope="module", params=SYSTEMS)
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `run`, two steps of a system on three classes, and what `sagan sample` draws of it, `set.npz`."""
    home = tmp_path_factory.mktemp(request.param)
    idx_folder(home / "idx")
    flags = ("--size", 16, *TINY, "--batch", 16, "--steps", 2, "--g-lr", 0.01)
    ok("train", "--system", request.param, "--data", "idx", *flags, "--out", "run", "-q", cwd=home)
    ok("sample", "run", "-n", COUNT, "--class", CLASS, "--out", "set.npz", "--device", "cpu", "-q", cwd=home)
    return home


def drawn(file: Path, z: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    """(N, C, H, W) in [-1, 1], by the runtime that a file is for."""
    if file.suffix == ".safetensors":
        return sagan_cli.load_generator(file)(z, y).numpy()
    if file.suffix == ".pt2":
        with torch.no_grad():
            (pictures,) = torch.export.load(file).module()(z, y)
        return np.asarray(pictures)
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'sagan-cli[onnx]'")
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    feed: dict[str, Any] = {"latent": z.numpy(), "class": y.numpy()}
    return np.asarray(session.run(None, feed)[0])


@pytest.mark.parametrize("format_", FORMATS)
def test_a_system_s_file_draws_what_sample_draws(format_: str, home: Path, tmp_path: Path) -> None:
    if format_ == "onnx":
        for name in ("onnx", "onnxscript"):
            pytest.importorskip(name, reason="pip install 'sagan-cli[onnx]'")
    file = tmp_path / FORMATS[format_]
    ok("export", home / "run", "--format", format_, "--out", file, "-q", cwd=tmp_path)
    with np.load(home / "set.npz") as found:
        want = next(found[key] for key in found.files if found[key].ndim == 4).astype(float)
    assert want.std() > 1, "a picture of one colour"
    z, y = latents([Request(seed, CLASS) for seed in range(COUNT)], sagan_cli.load_generator(home / "run").spec, None)
    assert y is not None
    have = np.clip(drawn(file, z, y), -1, 1) * 127.5 + 127.5
    # A byte is the nearest whole number, so nothing is farther than half of one but for rounding.
    assert np.abs(have.transpose(0, 2, 3, 1) - want).max() < 0.502
