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
    packages = [str(PLUGINS / name) for name in ("sagan-shapes", "sagan-tiny", "sagan-examples")]
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
        ("metrics", "mean-distance", "sagan-examples", "0.1.0", "ok"),
        ("losses", "logistic-margin", "sagan-examples", "0.1.0", "ok"),
        ("penalties", "drift", "sagan-examples", "0.1.0", "ok"),
        ("augmentations", "brightness", "sagan-examples", "0.1.0", "ok"),
        ("loggers", "csv", "sagan-examples", "0.1.0", "ok"),
        ("exporters", "npz", "sagan-examples", "0.1.0", "ok"),
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


def test_every_example_is_one_short_file() -> None:
    files = list((PLUGINS / "sagan-examples" / "sagan_examples").glob("*.py"))
    assert len(files) == 7
    assert all(len(file.read_text(encoding="utf-8").splitlines()) <= 40 for file in files)


def test_every_example_is_used_by_flag_and_recorded(site: Path, tmp_path: Path) -> None:
    tiny = ("--size", "16", "--width", "4", "--latent", "8", "--batch", "8", "--log-every", "1", "--device", "cpu")
    terms = ("--loss", "logistic-margin", "--penalty", "drift=0.01/2", "--augment", "brightness=linear:0:1:1k")
    train = ("train", "--preset", "laptop-hinge", *tiny, *terms, "--logger", "csv", "--out", "run")
    done = sagan(site, *train, "--steps", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    config = json.loads((tmp_path / "run/run.json").read_text())["config"]
    assert config["train"]["loss"] == "logistic-margin"
    assert config["train"]["penalty"] == "drift=0.01/2"
    assert config["train"]["augment"] == "brightness=linear:0:1:1k"
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert ["drift" in line for line in lines] == [True, False, True]  # the penalty is applied at every second update
    rows = (tmp_path / "run/metrics.csv").read_text().splitlines()
    assert len(rows) == 4
    assert rows[0].startswith("step,kimg,d_loss,g_loss,")

    # Interrupted and resumed, it has the same bits.
    for steps in ("1", "3"):
        done = sagan(site, *train[:-1], "parts", "--steps", steps, cwd=tmp_path)
        assert done.returncode == 0, done.stderr.decode()
    weights = [tmp_path / run / "checkpoints/00000003/model.safetensors" for run in ("run", "parts")]
    assert weights[0].read_bytes() == weights[1].read_bytes()

    score = ("eval-fid", "run", "--extractor", "classifier", "-n", "20", "--metrics", "mean-distance", "--json")
    done = sagan(site, *score, "--knob", "distance_power=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    record = json.loads(done.stdout)
    assert record["metric"] == "mean_distance"
    assert record["distance_power"] == 1
    assert record["features"] > 0
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_bytes(done.stdout)
    done = sagan(site, "compare", "a.json", "b.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert b"MEAN_DISTANCE" in done.stdout

    done = sagan(site, "export", "run", "--out", "weights.npz", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout)["format"] == "npz"
    with np.load(tmp_path / "weights.npz") as arrays:
        assert "linear.weight" in arrays
    assert "Weights as NumPy arrays" in (tmp_path / "weights.npz.md").read_text()


def test_attention_of_an_architecture_plugin_is_shown(site: Path, tmp_path: Path) -> None:
    flags = ("--arch", "tiny", "--attn-at", "8", "--size", "16", "--width", "4", "--batch", "8", "--steps", "1")
    done = sagan(site, "train", *flags, "--device", "cpu", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    done = sagan(site, "visualize-attn", "run", "--out", "maps.npz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    with np.load(tmp_path / "maps.npz") as arrays:
        maps = [arrays[name] for name in arrays if name.endswith("maps")]
    assert maps
    assert all(np.allclose(m.sum(-1), 1, atol=1e-5) for m in maps)


def test_the_maps_of_a_plugin_are_those_that_it_uses(installed: Path) -> None:
    factory = registry.load("architectures", "tiny")
    g, _ = factory(ModelSpec(32, 32, base_width=8, attn_at=(16,), options={"heads": 1}))
    layer = g.attention_layers()["16"]
    nn.init.ones_(layer.gamma)
    channels = layer.out.weight.shape[0]
    x = torch.randn(2, channels, 16, 16)
    value = layer.qkv(x)[:, 2 * channels :].flatten(2).transpose(1, 2)
    expected = x + layer.out((layer.maps(x) @ value).transpose(1, 2).reshape(x.shape))
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
