"""The packages under plugins/, built and installed by pip, kept to the contract and used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import sagan_cli
from sagan_cli.contracts import ModelSpec
from sagan_cli.errors import UsageError
from sagan_cli.plugins import registry
from sagan_cli.testing import check_architecture, check_dataset

REPOSITORY = Path(sagan_cli.__file__).parents[1]
PLUGINS = REPOSITORY / "plugins"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both packages as pip installs them; hatchling is a test dependency, so nothing is downloaded."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    packages = [str(PLUGINS / name) for name in ("sagan-shapes", "sagan-tiny")]
    subprocess.run(
        [*pip, "--no-build-isolation", "--no-compile", "--target", str(target), *packages],
        check=True, timeout=120, capture_output=True,
    )  # fmt: skip
    return target


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch):
    """The packages on sys.path of this process."""
    monkeypatch.syspath_prepend(site)
    registry.refresh()
    yield site
    registry.refresh()


def sagan(site: Path, *args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    path = os.pathsep.join((str(site), str(REPOSITORY)))
    return subprocess.run(
        [sys.executable, "-m", "sagan_cli", *args],
        env={**os.environ, "PYTHONPATH": path}, cwd=cwd, capture_output=True, timeout=120,
    )  # fmt: skip


def test_check_finds_them_sound(site: Path):
    done = sagan(site, "plugins", "--check", "--json")
    report = json.loads(done.stdout)
    found = [
        (p["kind"], p["name"], p["package"], p["version"], p["status"]) for p in report["plugins"] if not p["builtin"]
    ]
    assert found == [
        ("datasets", "shapes", "sagan-shapes", "0.1.0", "ok"),
        ("architectures", "tiny", "sagan-tiny", "0.1.0", "ok"),
        ("commands", "shapes-sheet", "sagan-shapes", "0.1.0", "ok"),
    ]
    assert done.returncode == 0, report


def test_the_data_set_keeps_the_contract(installed: Path, tmp_path: Path):
    check_dataset(registry.load("datasets", "shapes"), tmp_path)
    check_dataset(registry.load("datasets", "shapes"), tmp_path, height=24, width=40)


def test_the_architecture_keeps_the_contract(installed: Path):
    check_architecture(registry.load("architectures", "tiny"))


def test_the_data_set_refuses_what_it_has_not(installed: Path):
    factory = registry.load("datasets", "shapes")
    with pytest.raises(UsageError, match="--split validation: shapes has the splits train and test"):
        factory(Path(), split="validation", height=32, width=32)
    with pytest.raises(IndexError):
        factory(Path(), split="test", height=32, width=32).read(2_000)


def test_shapes_look_alike_at_every_size(installed: Path):
    """The same picture at twice the size is the same scene: averaged down it comes out nearly equal."""
    factory = registry.load("datasets", "shapes")
    small = factory(Path(), split="train", height=32, width=32)
    large = factory(Path(), split="train", height=64, width=64)
    for index in range(24):
        a = small.read(index)[0].astype(float)
        b = large.read(index)[0].reshape(32, 2, 32, 2, 3).mean((1, 3))
        assert np.abs(a - b).mean() < 1.5, index


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 34}, "--size 34x32: tiny needs sides that can be halved twice"),
        ({"attn_at": (32,)}, r"--attn-at 32: tiny has maps 8, 16 at this size \(or none\)"),
        ({"options": {"depth": 3}}, "--set model.options.depth=3: architecture 'tiny' has one option, heads"),
        ({"options": {"attention": "paper"}}, "--attention paper: architecture 'tiny' has one option, heads"),
        ({"options": {"heads": 5}}, "--set model.options.heads=5: write a divisor of the map's 16 channels"),
    ],
)
def test_the_architecture_refuses_what_it_has_not(installed: Path, change: dict[str, object], message: str):
    spec = ModelSpec(**{"height": 32, "width": 32, "base_width": 8, "attn_at": (16,), **change})
    with pytest.raises(UsageError, match=message):
        registry.load("architectures", "tiny")(spec)


def test_heads_change_what_is_drawn(installed: Path):
    factory = registry.load("architectures", "tiny")
    pictures = []
    for heads in (1, 4):
        torch.manual_seed(0)
        g, _ = factory(ModelSpec(32, 32, base_width=8, attn_at=(16,), options={"heads": heads}))
        nn.init.ones_(g.attention_layers()["16"].gamma)
        pictures.append(g.eval()(torch.ones(2, 128), None))
    assert not torch.allclose(*pictures)


def test_the_command_draws_a_sheet(site: Path, tmp_path: Path):
    done = sagan(site, "shapes-sheet", "sheet.png", "--columns", "3", "--size", "16", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"sheet.png\n", b"")
    data = (tmp_path / "sheet.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert sagan(site, "shapes-sheet", "-", "--columns", "3", "--size", "16").stdout == data
    again = sagan(site, "shapes-sheet", "sheet.png", cwd=tmp_path)
    assert again.returncode == 2
    assert again.stderr == b"sagan: error: sheet.png exists: choose another name, or add --force\n"


def test_the_built_ins_keep_the_contract_too(tmp_path: Path):
    check_dataset(registry.load("datasets", "quadrupeds"), tmp_path)
    check_architecture(registry.load("architectures", "sagan"))
