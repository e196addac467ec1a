"""`sagan info`: what it says of runs and systems, and its singular values against NumPy's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from support.cli import TINY, fails, ok, sagan
from support.fake_plugins import install
from support.idx_files import idx_folder
from torch import nn

from sagan_cli.config.systems import SYSTEMS
from sagan_cli.engine.spectra import spectra
from sagan_cli.plugins import registry
from sagan_cli.runs import Run


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `idx` and `run`, a paper-like system with D alone spectrally normalised, three steps old."""
    home = tmp_path_factory.mktemp("home")
    idx_folder(home / "idx")
    flags = ("--size", 16, "--steps", 3, "--log-every", 1, "--spectral-norm", "d", "--d-lr", "0.5")
    ok("train", "--system", "paper", "--data", "idx", *flags, *TINY, "--out", "run", cwd=home)
    return home


def table(text: bytes) -> list[list[str]]:
    return [line.split("\t") for line in text.decode().splitlines()]


def test_the_list_names_every_system_with_its_source_and_command(tmp_path: Path) -> None:
    rows = table(ok("info", "--list", cwd=tmp_path))
    assert rows[0] == ["NAME", "DESCRIPTION", "SOURCE", "COMMAND"]
    assert [row[0] for row in rows[1:]] == list(SYSTEMS)
    assert all(len(row) == 4 and all(row) for row in rows)
    facts = json.loads(ok("info", "--list", "--json", cwd=tmp_path))
    assert [s["name"] for s in facts["systems"]] == list(SYSTEMS)
    for system in facts["systems"]:
        assert system["command"] == f"sagan train --system {system['name']} --data DIR"
        assert system["settings"] == dict(SYSTEMS[system["name"]].settings)


def test_the_list_on_a_screen_fits_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sagan_cli.console.result_on_screen", lambda: True)
    lines = ok("info", "--list", cwd=tmp_path).decode().splitlines()
    assert max(map(len, lines)) <= 110
    assert sum("sagan train --system" in line for line in lines) == len(SYSTEMS)


def test_a_run_says_what_it_is(home: Path) -> None:
    facts = json.loads(ok("info", "run", "--json", cwd=home))
    assert facts["system"] == "paper"
    assert facts["departures"] == ["model.spectral_norm", "train.d_lr"]
    assert (facts["arch"], facts["height"], facts["attn_at"], facts["classes"]) == ("sagan", 16, [8], ["0", "1", "2"])
    assert facts["options"] == {"attention": "paper", "attn_ratio": 8, "spectral_norm": "d"}
    assert (facts["step"], facts["objective"]["steps"], facts["objective"]["loss"]) == (3, 3, "hinge")
    assert facts["g_attention"] == facts["d_attention"] == ["8"]
    assert (facts["data"], facts["pictures"]) == (str(home / "idx"), 24)
    assert facts["best"] is None
    last = Run(home / "run").metrics()[-1]
    assert facts["gammas"] == {name: last[name] for name in ("gamma_g8", "gamma_d8")}
    slots = [k for k in load_file(home / "run/checkpoints/00000003/state.safetensors") if k.endswith("/exp_avg")]
    state = load_file(home / "run/checkpoints/00000003/state.safetensors")
    for letter in "gd":
        # Adam keeps one number for each that is trained.
        trained = sum(state[k].size for k in slots if k.startswith(f"opt_{letter}."))
        assert facts[f"{letter}_parameters"] == trained


def test_the_same_for_the_eye(home: Path) -> None:
    text = ok("info", "run", cwd=home).decode()
    lines = dict(line.split(maxsplit=1) for line in text.splitlines())
    facts = json.loads(ok("info", "run", "--json", cwd=home))
    assert lines["system"] == "paper, except for model.spectral_norm, train.d_lr"
    assert lines["parameters"] == f"G {facts['g_parameters']:,}  D {facts['d_parameters']:,}"
    assert lines["attention"].startswith("paper, G at 8, D at 8; gamma G8 ")
    assert lines["images"] == "16x16x1, 3 classes: 0, 1, 2"
    assert lines["loss"] == "hinge"
    assert lines["training"].startswith("D 0.5 x 1, G 0.0001, Adam 0 0.9, batch 4")
    assert "none yet" in text


def test_a_checkpoint_without_its_run_says_less(home: Path, tmp_path: Path) -> None:
    copytree(home / "run/checkpoints/00000003", tmp_path / "copy")
    facts = json.loads(ok("info", "copy", "--json", cwd=tmp_path))
    assert (facts["run"], facts["system"], facts["objective"], facts["gammas"]) == (None, None, {}, {})
    assert facts["arch"] == "sagan"
    lines = dict(line.split(maxsplit=1) for line in ok("info", "copy", cwd=tmp_path).decode().splitlines())
    assert lines["checkpoint"] == "copy: step 3"
    assert "loss" not in lines


def test_the_best_score_and_those_taken_later_are_told(home: Path, tmp_path: Path) -> None:
    copytree(home / "run", tmp_path / "run")
    run = Run(tmp_path / "run")
    run.update(best={"step": 2, "fid": 12.34567, "n_fake": 64, "extractor": "classifier"})
    score = {"kind": "evaluation", "step": 3, "values": {"kid": 0.0123456}, "protocol": "quick", "n_fake": 100}
    run.append_metrics(score)
    run.append_metrics({**score, "step": 2})
    lines = ok("info", "run", cwd=tmp_path).decode().splitlines()
    assert lines[-2:] == [
        "best score  fid 12.3457 at step 2, during training, 64 images, classifier",
        "score       kid 0.012346 of 100 images, quick",
    ]


def stored(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of a checkpoint that a network owns, under `G.` and `D.`."""
    tensors = {**load_file(path / "model.safetensors"), **load_file(path / "state.safetensors")}
    names = {"generator": "G", "discriminator": "D"}
    return {f"{names[k.split('.')[0]]}.{k.split('.', 1)[1]}": t for k, t in tensors.items() if k.split(".")[0] in names}


def test_singular_values_are_numpy_s(home: Path) -> None:
    rows = json.loads(ok("info", "--spectra", "run", "--json", cwd=home))["layers"]
    tensors = stored(home / "run/checkpoints/00000003")
    # Every weight of two axes or more is there: none is left out.
    weights = [k for k, t in tensors.items() if k.endswith(".weight") and t.ndim >= 2]
    assert sorted(f"{r['network']}.{r['layer']}.weight" for r in rows) == sorted(weights)
    for row in rows:
        name = f"{row['network']}.{row['layer']}"
        weight = tensors[f"{name}.weight"].astype(np.float64)
        assert row["shape"] == list(weight.shape)
        matrix = np.moveaxis(weight, 1, -1).reshape(len(weight), -1)
        assert row["sigma"] == pytest.approx(np.linalg.svd(matrix, compute_uv=False)[0], rel=1e-12)
        if row["network"] == "G":
            assert (row["norm"], row["estimate"], row["ratio"]) == ("none", None, None)
        else:
            estimate = tensors[f"{name}.u"].astype(np.float64) @ matrix @ tensors[f"{name}.v"].astype(np.float64)
            assert row["norm"] == "sagan"
            assert row["estimate"] == pytest.approx(estimate, rel=1e-12)
            assert row["ratio"] == pytest.approx(row["sigma"] / estimate, rel=1e-12)
    # D's rate of 0.5 leaves the estimates behind, which is what the command is there to show.
    assert max(row["ratio"] for row in rows if row["network"] == "D") > 1.01


def test_the_spectra_as_a_table(home: Path) -> None:
    done = sagan("info", "--spectra", "run", cwd=home)
    rows = table(done.stdout)
    assert rows[0] == ["NETWORK", "LAYER", "SHAPE", "NORM", "SIGMA", "ESTIMATE", "RATIO"]
    assert {len(row) for row in rows} == {7}
    by_name = {(row[0], row[1]): row for row in rows[1:]}
    assert by_name["G", "linear"][3] == "none"
    assert by_name["G", "linear"][5:] == ["-", "-"]
    assert by_name["D", "linear"][2:4] == ["1x8", "sagan"]
    assert done.stderr.decode().splitlines() == ["G: no known spectral norm"]


def singular(matrix: torch.Tensor) -> float:
    return float(np.linalg.svd(matrix.detach().double().numpy(), compute_uv=False)[0])


def test_layers_of_other_makers() -> None:
    torch.manual_seed(0)
    modern = nn.utils.parametrizations.spectral_norm(nn.Linear(5, 4), n_power_iterations=30)
    turned = nn.utils.parametrizations.spectral_norm(nn.ConvTranspose2d(6, 3, 4), n_power_iterations=30)
    other = nn.utils.parametrizations.orthogonal(nn.Linear(4, 4))
    network = nn.ModuleDict({
        "modern": modern, "turned": turned, "other": other, "plain": nn.ConvTranspose2d(2, 3, 4),
        "table": nn.Embedding(7, 3), "norm": nn.BatchNorm2d(4),
    }).eval()  # fmt: skip
    rows = {row.layer: row for row in spectra(network, "G")}
    assert {name: row.norm for name, row in rows.items()} == {
        "modern": "torch", "turned": "torch", "other": "other", "plain": "none", "table": "none",
    }  # fmt: skip
    assert rows["modern"].sigma == pytest.approx(singular(modern.parametrizations.weight.original), rel=1e-12)
    original = turned.parametrizations.weight.original
    assert rows["turned"].sigma == pytest.approx(singular(original.movedim(1, 0).flatten(1)), rel=1e-12)
    assert rows["plain"].sigma == pytest.approx(singular(network["plain"].weight.movedim(1, 0).flatten(1)), rel=1e-12)
    assert rows["other"].sigma == pytest.approx(1, abs=1e-5)
    for name in ("modern", "turned"):
        # 30 iterations at the start: the estimate is there, and what PyTorch divides by.
        assert rows[name].ratio == pytest.approx(1, abs=1e-3)
        divided = rows[name].sigma / singular(network[name].weight.movedim(int(name == "turned"), 0).flatten(1))
        assert rows[name].estimate == pytest.approx(divided, rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*spectral_norm.* is deprecated:FutureWarning")
def test_the_older_hook_of_torch() -> None:
    torch.manual_seed(0)
    layer = nn.utils.spectral_norm(nn.ConvTranspose2d(6, 3, 4), n_power_iterations=40)
    layer.train()(torch.zeros(1, 6, 1, 1))
    (row,) = spectra(nn.Sequential(layer.eval()), "D")
    assert row.norm == "torch"
    assert row.sigma == pytest.approx(singular(layer.weight_orig.movedim(1, 0).flatten(1)), rel=1e-12)
    assert row.ratio == pytest.approx(1, abs=1e-3)


class Own(nn.Conv2d):
    """A plugin's layer, with vectors in an order of its own."""

    def __init__(self, channels_last: bool) -> None:
        super().__init__(3, 5, 3)
        matrix = (self.weight.permute(0, 2, 3, 1) if channels_last else self.weight).reshape(5, -1)
        u, _, v = torch.linalg.svd(matrix.detach(), full_matrices=False)
        self.register_buffer("u", u[:, 0])
        self.register_buffer("v", v[0])


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_plugin_s_own_vectors_are_read_in_its_own_order(channels_last: bool) -> None:
    torch.manual_seed(0)
    (row,) = spectra(nn.Sequential(Own(channels_last)), "D")
    assert row.norm == "own"
    assert row.ratio == pytest.approx(1, abs=1e-5)


PLUGIN = """
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

class G(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.spec, self.net = spec, nn.Linear(spec.latent, spec.channels * spec.height * spec.width)
    def forward(self, z, y=None):
        return self.net(z).tanh().unflatten(1, (self.spec.channels, self.spec.height, self.spec.width))

class D(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.net = spectral_norm(nn.Linear(spec.channels * spec.height * spec.width, 1))
    def forward(self, x, y=None):
        return self.net(x.flatten(1)).squeeze(1)

def build(spec):
    return G(spec), D(spec)
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    install(tmp_path / "site", "fake", "[sagan.architectures]\nflat = fake_flat:build\n", fake_flat=PLUGIN)
    monkeypatch.syspath_prepend(tmp_path / "site")
    registry.refresh()
    yield
    sys.modules.pop("fake_flat", None)
    registry.refresh()


@pytest.mark.usefixtures("plugin")
def test_a_run_of_a_plugin_with_torch_s_spectral_norm(home: Path, tmp_path: Path) -> None:
    flags = ("--arch", "flat", "--size", 16, "--attn-at", "none", "--steps", 2)
    ok("train", "--data", home / "idx", *flags, *TINY, "--out", "run", cwd=tmp_path)
    rows = json.loads(ok("info", "--spectra", "run", "--json", cwd=tmp_path))["layers"]
    assert [(row["network"], row["layer"], row["norm"]) for row in rows] == [
        ("G", "net", "none"),
        ("D", "net", "torch"),
    ]
    assert rows[1]["ratio"] == pytest.approx(1, abs=1e-6)  # one row: its direction is exact after one iteration
    facts = json.loads(ok("info", "run", "--json", cwd=tmp_path))
    assert (facts["g_parameters"], facts["d_parameters"], facts["attn_at"]) == (4 * 256 + 256, 257, [])
    assert b"\nattention   none\n" in ok("info", "run", cwd=tmp_path)


def test_what_cannot_be_looked_at_is_said_in_a_line(home: Path, tmp_path: Path) -> None:
    assert "--list takes no run" in fails(2, "info", "--list", "run", cwd=home)
    assert "--list takes no run" in fails(2, "info", "--list", "--spectra", cwd=home)
    assert "no such file, run or checkpoint" in fails(2, "info", "nowhere", cwd=home)
    assert "no run under runs/" in fails(2, "info", cwd=tmp_path)
    copytree(home / "run", tmp_path / "run")
    file = tmp_path / "run/checkpoints/00000003/state.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert "damaged or replaced" in fails(1, "info", "--spectra", "run", cwd=tmp_path)


def test_a_weight_that_is_no_number_is_said_in_a_line() -> None:
    layer = nn.Linear(2, 2)
    layer.weight.data[0, 0] = torch.nan
    with pytest.raises(Exception, match="D 0: a weight is not a number: training diverged"):
        spectra(nn.Sequential(layer), "D")


@pytest.mark.parametrize("args", [("info", "--help"), ("info", "--list")])
def test_help_and_list_import_no_torch(args: tuple[str, ...], tmp_path: Path) -> None:
    code = (
        f"import sys; sys.argv = ['sagan', *{args!r}]\nfrom sagan_cli.cli import run\ncode = run(sys.argv[1:])\n"
        "heavy = {'torch', 'numpy', 'PIL', 'safetensors'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
