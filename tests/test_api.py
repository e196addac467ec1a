"""The Python API, used as in a notebook."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.cli import TINY, ok
from support.idx_files import idx_folder

import sagan_cli

NOTEBOOK = """
import sagan_cli

run = sagan_cli.train(
    data="idx", size=16, width=4, latent=8, batch=8, steps=20, log_every=5, out="run", device="cpu", quiet=True
)
assert run.checkpoint_steps()[-1].name == "00000020"
assert sagan_cli.open_run("run") == run
generator = sagan_cli.load_generator(run.path)
print(repr(generator))
images = generator.images(range(4), label=0)
images[0].save("first.png")
maps = generator.attention_maps([0, 1])
assert all(abs(m.sum(-1) - 1).max() < 1e-5 for m in maps.values()) and maps
record = sagan_cli.evaluate(run.path, extractor="classifier", n=40, metrics=["fid", "prc"], quiet=True)
print(sorted(record["values"]))
try:
    sagan_cli.train(data="idx", stepz=3)
except sagan_cli.errors.UsageError as e:
    print(e)
"""


def test_a_notebook_trains_draws_scores_and_shows_attention(tmp_path: Path) -> None:
    idx_folder(tmp_path / "idx", count=60)
    done = subprocess.run([sys.executable, "-c", NOTEBOOK], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    shown, values, wrong = done.stdout.splitlines()
    assert shown.startswith("<Generator sagan 16x16x1, 3 classes, step 20, ema: run/checkpoints/00000020")
    assert values == "['fid', 'precision', 'recall']"
    assert wrong == "stepz: no such setting (did you mean 'steps'?); see sagan train --help"
    assert (tmp_path / "first.png").read_bytes().startswith(b"\x89PNG")


def test_the_api_imports_no_torch_before_it_is_used() -> None:
    code = (
        "import sys, sagan_cli; sagan_cli.train, sagan_cli.evaluate, sagan_cli.load_generator, sagan_cli.errors\n"
        "print({'torch', 'numpy', 'PIL', 'rich'} & set(sys.modules), [n for n in dir(sagan_cli) if n[0] != '_'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("set() ['Generator', 'Run', 'contracts', 'errors', 'evaluate'")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sagan_cli.nothing  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    data = idx_folder(home / "idx", count=60)
    flags = ("--size", 16, *TINY, "--steps", 2, "--eval-every", 1, "--eval-n", 20, "--eval-extractor", "classifier")
    ok("train", "--data", data, *flags, "--out", "runs/001-x", cwd=home)
    ok("export", "runs/001-x", "--out", "model.safetensors", cwd=home)
    return home


@pytest.mark.parametrize(
    "target", [None, "runs/001-x", "runs/001-x/best", "runs/001-x/checkpoints/00000002", "model.safetensors"]
)
def test_a_target_is_what_the_command_line_accepts(
    home: Path, target: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    generator = sagan_cli.load_generator(target)
    name = f"{str(target).replace('/', '-')}.npz"
    ok("sample", *([target] if target else []), "-n", 3, "--out", name, "-f", cwd=home)
    np.testing.assert_array_equal(generator.draw(range(3)), np.load(home / name)["arr_0"])


def test_raw_weights_and_bf16(home: Path) -> None:
    raw = sagan_cli.load_generator(home / "runs/001-x", raw=True)
    assert raw.sampler.weights == "raw"
    assert sagan_cli.load_generator(home / "runs/001-x", precision="bf16").runtime.precision == "bf16"
    with pytest.raises(sagan_cli.errors.UsageError, match="--raw"):
        sagan_cli.load_generator(home / "model.safetensors", raw=True)


def test_forward_is_differentiable_by_the_latent(home: Path) -> None:
    generator = sagan_cli.load_generator(home / "model.safetensors")
    generator.draw([0])  # what a network keeps from drawing must not stand in the way
    z, y = generator.latents(range(2))
    z = z.requires_grad_()
    weight = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((generator.forward(z, y) * weight).sum(), z)
    # Finite differences of the same network in float64.
    network = copy.deepcopy(generator.sampler.generator).double()
    direction = torch.randn(z.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    high, low = ((network(z.detach() + s * direction, y) * weight).sum().item() for s in (1e-6, -1e-6))
    assert (gradient * direction).sum().item() == pytest.approx((high - low) / 2e-6, rel=1e-3)


def test_latents_are_those_of_drawing(home: Path) -> None:
    generator = sagan_cli.load_generator(home / "model.safetensors")
    z, y = generator.latents(range(8), label=1)
    assert y is not None
    assert y.tolist() == [1] * 8
    levels = generator(z, y).clamp(-1, 1).add(1).mul(127.5).round().permute(0, 2, 3, 1).numpy()
    assert np.abs(levels - generator.draw(range(8), label=1)).max() <= 1


@pytest.mark.parametrize("seed", [-1, 1.5])
def test_a_seed_is_a_whole_number(home: Path, seed: float) -> None:
    with pytest.raises(sagan_cli.errors.UsageError, match="seeds are whole numbers from 0"):
        sagan_cli.load_generator(home / "model.safetensors").draw([seed])  # type: ignore[list-item]
