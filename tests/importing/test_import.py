"""`sagan import`: pictures equal to the foreign network's own, runs that work, and one line for whatever is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from support import foreign_models as foreign
from support.cli import fails, ok
from torch import Tensor

import sagan_cli
from sagan_cli.engine import sample
from sagan_cli.engine.runtime import Runtime
from sagan_cli.engine.sample import load
from sagan_cli.runs import Run

CPU = torch.device("cpu")
State = foreign.State
Draw = Callable[[State, Tensor, Any], Tensor]


def heykeetae(state: State, z: Tensor, _y: None) -> Tensor:
    return foreign.heykeetae(state, z)


CASES: dict[str, tuple[str, State, Draw, int]] = {
    "biggan": ("biggan-pytorch", foreign.biggan_state(), foreign.biggan, 5),
    "biggan-two": ("biggan-pytorch", foreign.biggan_state(attention=(16, 64)), foreign.biggan, 5),
    "studiogan": ("studiogan", foreign.studiogan_state(), foreign.studiogan, 5),
    "studiogan-128": ("studiogan", foreign.studiogan_state(128, attn_g_loc=(4,), ch=8), foreign.studiogan, 5),
    "studiogan-cifar": ("studiogan", foreign.studiogan_state(32, attn_g_loc=(2,)), foreign.studiogan, 5),
    "studiogan-free": ("studiogan", foreign.studiogan_state(classes=0), foreign.studiogan, 0),
    "studiogan-sngan": ("studiogan", foreign.studiogan_state(attn_g_loc=()), foreign.studiogan, 5),
    "voletiv": ("voletiv", foreign.voletiv_state(), foreign.voletiv, 5),
    "heykeetae": ("heykeetae", foreign.heykeetae_state(), heykeetae, 0),
}  # fmt: skip


def imported(tmp_path: Path, content: Any, *flags: str, name: str = "G.pth") -> Path:
    """The run that one command makes of a saved object."""
    torch.save(content, tmp_path / name)
    return tmp_path / ok("import", name, "--out", "run", "-q", *flags, cwd=tmp_path).decode().strip()


def drawn(run: Path, z: Tensor, y: Tensor | None, *, raw: bool = False) -> Tensor:
    sampler = load(Run(run).checkpoint_steps()[-1], Runtime(CPU, "fp32"), raw=raw)
    with torch.inference_mode():
        return sampler.generator(z, y)


FIRST = {"linear.weight": 1, "linear0.weight_orig": 1, "snlinear0.weight_orig": 1, "l1.0.module.weight_bar": 0}
"""A first layer's weight, and which of its axes is as long as the latent vector."""


def latents(state: State, classes: int, n: int = 4) -> tuple[Tensor, Tensor | None]:
    length = next(state[name].shape[axis] for name, axis in FIRST.items() if name in state)
    z = torch.randn(n, length, generator=torch.Generator().manual_seed(9))
    return z, torch.arange(n) % classes if classes else None


@pytest.mark.parametrize("case", CASES)
def test_pictures_equal_those_of_the_foreign_network(case: str, tmp_path: Path) -> None:
    name, state, draw, classes = CASES[case]
    run = imported(tmp_path, state)
    assert Run(run).read()["imported"]["format"] == name
    z, y = latents(state, classes)
    theirs = draw(state, z, y)
    assert 0.1 < float(theirs.std()) < 0.9, "the pictures should have something in them"
    assert float((theirs[0] - theirs[1]).abs().mean()) > 0.01
    for raw in (False, True):
        assert float((drawn(run, z, y, raw=raw) - theirs).abs().max()) < 1e-5


@pytest.mark.parametrize("case", ["biggan", "studiogan", "voletiv", "heykeetae"])
def test_the_attention_of_the_cases_takes_part(case: str) -> None:
    """Otherwise equal pictures would prove nothing about it."""
    _, state, draw, classes = CASES[case]
    z, y = latents(state, classes)
    off = {k: torch.zeros_like(v) if k.rpartition(".")[2] in ("gamma", "sigma") else v for k, v in state.items()}
    assert float((draw(state, z, y) - draw(off, z, y)).abs().max()) > 1e-2


def test_widths_of_the_published_checkpoints_are_recognised(tmp_path: Path) -> None:
    """The smallest published width of the DCGAN-shaped port is its only one."""
    state = foreign.heykeetae_state(64, 100)
    run = imported(tmp_path, state)
    z, y = latents(state, 0, 2)
    assert float((drawn(run, z, y) - foreign.heykeetae(state, z)).abs().max()) < 1e-5


@pytest.mark.parametrize("part", ["theta", "phi", "g", "attn"])
def test_each_bias_of_the_resnet_port_is_felt_or_provably_is_not(part: str) -> None:
    """Softmax does not see the key's; the others change pictures, so the folding that the cases prove is needed."""
    _, state, draw, classes = CASES["voletiv"]
    z, y = latents(state, classes)
    name = f"self_attn.snconv1x1_{part}.bias"
    changed = float((draw(state, z, y) - draw({**state, name: torch.zeros_like(state[name])}, z, y)).abs().max())
    assert changed < 1e-5 if part == "phi" else changed > 1e-4


def test_a_bias_that_cannot_be_folded_is_named(tmp_path: Path) -> None:
    state = dict(foreign.voletiv_state())
    name = "self_attn.snconv1x1_theta"
    row = state[f"{name}.weight_orig"][:1]
    state[f"{name}.weight_orig"] = torch.cat([row, row])  # two equal rows cannot give two different numbers
    torch.save(state, tmp_path / "G.pth")
    assert f"'{name}.bias': this bias is not 0" in fails(1, "import", "G.pth", cwd=tmp_path)
    state[f"{name}.bias"] = torch.zeros(2)
    assert imported(tmp_path, state).is_dir()


def test_biggan_s_other_batch_norms(tmp_path: Path) -> None:
    """--cross_replica and --mybn keep the same numbers under other names."""
    state = foreign.biggan_state()
    z, y = latents(state, 5)
    theirs = foreign.biggan(state, z, y)
    for n, (mean, var) in enumerate((("bn.running_mean", "bn.running_var"), ("bn.stored_mean", "bn.stored_var"))):
        renamed = {k.replace("stored_mean", mean).replace("stored_var", var): v for k, v in state.items()}
        renamed |= {k.replace("stored_mean", "accumulation_counter"): torch.ones(1) for k in renamed if mean in k and n}
        folder = tmp_path / str(n)
        folder.mkdir()
        assert float((drawn(imported(folder, renamed), z, y) - theirs).abs().max()) < 1e-5


def test_files_from_before_pytorch_1(tmp_path: Path) -> None:
    """There the hook stored no v but the weight that evaluation uses."""
    state = foreign.voletiv_state()
    z, y = latents(state, 5)
    theirs = foreign.voletiv(state, z, y)
    old = {k: v for k, v in state.items() if not k.endswith("weight_v")}
    old |= {
        k.removesuffix("_orig"): foreign.hook_weight(state, k.removesuffix(".weight_orig"))
        for k in state
        if k.endswith("weight_orig")
    }
    assert float((drawn(imported(tmp_path, old), z, y) - theirs).abs().max()) < 1e-5


def test_half_precision_is_read_as_what_it_holds(tmp_path: Path) -> None:
    state = {k: v.half() if v.is_floating_point() else v for k, v in foreign.studiogan_state().items()}
    z, y = latents(state, 5)
    theirs = foreign.studiogan({k: v.float() if v.is_floating_point() else v for k, v in state.items()}, z.float(), y)
    assert float((drawn(imported(tmp_path, state), z, y) - theirs).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("wrap", "name", "step"),
    [
        (lambda s: {"state_dict": s, "optimizer": {"lr": 0.1}}, "model=G-best-weights-step=920.pth", 920),
        (lambda s: {"step": 77, "G_state_dict": s, "D_state_dict": {}, "note": "x"}, "a_ckpt_0000001.pth", 77),
        (lambda s: {"G": {f"module.{k}": v for k, v in s.items()}}, "G.pth", 0),
        (lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()}, "400_G.pth", 400),
        (lambda s: {"generator": {"state_dict": s}, "epoch": 3}, "G.pth", 0),
    ],
)
def test_wrappings_prefixes_and_steps(wrap: Any, name: str, step: int, tmp_path: Path) -> None:
    run = imported(tmp_path, wrap(foreign.studiogan_state()), name=name)
    assert [int(path.name) for path in Run(run).checkpoint_steps()] == [step]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run `run`, and pictures `real/` of its size."""
    folder = tmp_path_factory.mktemp("studio")
    imported(folder, foreign.studiogan_state(32, attn_g_loc=(2,)))
    dice = np.random.default_rng(0)
    for kind in "ab":
        (folder / "real" / kind).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(dice.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
                folder / "real" / kind / f"{i}.png"
            )
    return folder


def test_the_report(tmp_path: Path) -> None:
    torch.save(foreign.studiogan_state(32, attn_g_loc=(2,)), tmp_path / "G.pth")
    told = json.loads(ok("import", "G.pth", "--json", cwd=tmp_path))
    assert told["run"] == "runs/001-studiogan-sagan-cifar32"
    wanted = {
        "format": "studiogan", "arch": "sagan-cifar", "height": 32, "base_width": 4, "latent": 12, "num_classes": 5,
        "attn_at": [16], "step": 0, "channels": 3,
    }  # fmt: skip
    assert wanted.items() <= told.items()
    record = json.loads((tmp_path / told["run"] / "run.json").read_text())
    assert record["status"] == "imported"
    assert record["imported"]["sha256"] == told["sha256"]


def test_an_imported_run_samples(studio: Path, tmp_path: Path) -> None:
    ok("sample", studio / "run", "-n", 3, "--class", "4", "--out", "set.npz", "-q", cwd=tmp_path)
    # The pictures of the command are those of the foreign network on the latents of the seeds.
    state = foreign.studiogan_state(32, attn_g_loc=(2,))
    sampler = load(Run(studio / "run").checkpoint_steps()[-1], Runtime(CPU, "fp32"))
    z, y = sample.latents([sample.Request(seed, 4) for seed in range(3)], sampler.spec, None)
    theirs = foreign.studiogan(state, z, y).clamp(-1, 1).add(1).mul(127.5).permute(0, 2, 3, 1)
    with np.load(tmp_path / "set.npz") as found:
        images = next(found[k] for k in found.files if found[k].ndim == 4)
    assert float(np.abs(images - theirs.numpy()).max()) < 0.51


def test_an_imported_run_is_told_of_shown_and_exported(studio: Path, tmp_path: Path) -> None:
    told = json.loads(ok("info", studio / "run", "--json", cwd=tmp_path))
    assert (told["status"], told["arch"]) == ("imported", "sagan-cifar")
    assert (told["imported"]["format"], told["imported"]["file"], told["objective"]) == ("studiogan", "G.pth", {})
    lines = dict(line.split(maxsplit=1) for line in ok("info", studio / "run", cwd=tmp_path).decode().splitlines())
    digest = told["imported"]["sha256"][:12]
    said = f"G.pth of POSTECH-CVLab/PyTorch-StudioGAN, its SAGAN and SNGAN (studiogan), sha256 {digest}"
    assert lines["from"] == said
    assert lines["checkpoint"].endswith(": step 0")
    assert lines["attention"].startswith("official, G at 16, D at 16")
    assert lines["data"] == "unknown"
    # Nothing was trained here, so nothing is said of it.
    assert not {"loss", "training", "system"} & set(lines)
    ok("visualize-attn", studio / "run", "-n", 1, "--out", "attn.png", "-q", cwd=tmp_path)
    ok("export", studio / "run", "--out", "model.safetensors", "-q", cwd=tmp_path)
    state = foreign.studiogan_state(32, attn_g_loc=(2,))
    z, y = latents(state, 5)
    g = sagan_cli.load_generator(tmp_path / "model.safetensors")
    assert float((torch.as_tensor(g(z, y)) - foreign.studiogan(state, z, y)).abs().max()) < 1e-5


def test_an_imported_run_is_scored_against_data(studio: Path) -> None:
    said = ok(
        "eval-fid", "run", "--data", "real", "--extractor", "classifier", "-n", 8, "--batch", 8, "--json", cwd=studio
    )
    score = json.loads(said)
    assert np.isfinite(score["value"])
    assert Run(studio / "run").metrics()[-1]["value"] == score["value"]


def test_without_data_or_discriminator_the_way_out_is_told(studio: Path) -> None:
    said = fails(2, "eval-fid", "run", "-n", 8, cwd=studio)
    assert "was imported, and what it was trained on is not known: name the real images with --data" in said
    assert "was imported" in fails(2, "train", "--resume", "run", cwd=studio)
    assert "was imported" in fails(2, "train", "--out", "run", "--data", "real", "--size", 32, cwd=studio)
    done = fails(1, "visualize-attn", "run", "--layer", "D16", "--out", "d.png", cwd=studio)
    assert "state.safetensors: missing" in done


# What is refused ------------------------------------------------------------------------------------------------------


def broken(change: Callable[[State], object]) -> State:
    state = dict(foreign.studiogan_state(32, attn_g_loc=(2,)))
    change(state)
    return state


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (broken(lambda s: s.pop("conv2d5.bias")), "no tensor 'conv2d5.bias', which the generator of StudioGAN's SAGAN"),
        (broken(lambda s: s.pop("conv2d5.weight_orig")), "no tensor 'conv2d5.weight_orig'"),
        (broken(lambda s: s.update(extra=torch.ones(1))), "'extra': not in the generator of StudioGAN's SAGAN"),
        (broken(lambda s: s.update(a=torch.ones(1), b=torch.ones(1))), "'a' and 1 more: not in"),
        (
            broken(lambda s: s.update({"blocks.1.0.conv2d1.weight_orig": torch.ones(16, 16, 5, 5)})),
            "'blocks.1.0.conv2d1.weight_orig' is (16, 16, 5, 5), not (16, 16, 3, 3)",
        ),
        (broken(lambda s: s["bn4.bias"].fill_(float("nan"))), "'bn4.bias' holds numbers that are not finite"),
        (broken(lambda s: s["conv2d5.weight_u"].zero_()), "'conv2d5': its spectral norm is 0.0"),
        (
            broken(lambda s: s.update({"bn4.bias": torch.ones(16, dtype=torch.int64)})),
            "'bn4.bias' holds torch.int64, not floating-point numbers",
        ),
        ({"linear0.weight_orig": torch.ones(3)}, "no tensor 'blocks.0.0.conv2d0.weight_orig'"),
        ({"conv1.weight": torch.ones(3)}, "of no known format (its tensors begin with 'conv1.weight'); known are big"),
        ({}, "holds no state dict: an empty dict"),
        ([torch.ones(1)], "holds no state dict: a list"),
        ({"state_dict": {"x": 3}}, "holds no state dict: 'x' is a int"),
        ({"embed.weight": torch.ones(2), "blocks.0.0.conv_sc.weight": torch.ones(2)}, "this is a discriminator"),
        ({**foreign.biggan_state(), "shared.weight": torch.ones(5, 8)}, "'shared.weight': an embedding that all"),
    ],
)  # fmt: skip
def test_content_that_is_wrong_is_one_line(content: Any, line: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "G.pth")
    said = fails(1, "import", "G.pth", cwd=tmp_path)
    assert said.startswith("sagan: error: G.pth: ")
    assert line in said
    assert not (tmp_path / "runs").exists()


def test_other_networks_of_the_same_code_are_refused_by_their_channels(tmp_path: Path) -> None:
    state = foreign.studiogan_state(64, ch=8, attn_g_loc=())
    for name in ("conv2d0.weight_orig", "conv2d0.weight_u"):
        state[f"blocks.3.0.{name}"] = F.pad(
            state[f"blocks.3.0.{name}"], (0,) * (2 * state[f"blocks.3.0.{name}"].dim() - 1) + (8,)
        )
    torch.save(state, tmp_path / "G.pth")
    said = fails(1, "import", "G.pth", cwd=tmp_path)
    assert "'blocks.0.0': from here up 128, 64, 32, 16, 16 channels at 64 pixels; 'sagan' has" in said


class Whole(torch.nn.Module):
    """What `torch.save(network)` leaves."""


def test_no_pickled_object_is_ever_loaded(tmp_path: Path) -> None:
    torch.save({"G": Whole()}, tmp_path / "G.pth")
    said = fails(1, "import", "G.pth", cwd=tmp_path)
    assert "G.pth: refused: it is damaged, or holds more than tensors" in said
    assert "save network.state_dict() alone" in said


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "G.pth").write_bytes(b"hello" * 50)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x").touch()
    assert "G.pth: " in fails(1, "import", "G.pth", cwd=tmp_path)
    assert "no.pth: no such file" in fails(2, "import", "no.pth", cwd=tmp_path)
    assert "taken: not a file" in fails(2, "import", "taken", cwd=tmp_path)
    assert "--out taken: exists already" in fails(2, "import", "G.pth", "--out", "taken", cwd=tmp_path)
    said = fails(2, "import", "G.pth", "--format", "studogan", cwd=tmp_path)
    assert "--format studogan: choose auto, biggan-pytorch, studiogan, voletiv, heykeetae (did you mean 'stu" in said


def test_a_named_format_is_believed(tmp_path: Path) -> None:
    torch.save(foreign.studiogan_state(32, attn_g_loc=(2,)), tmp_path / "G.pth")
    said = fails(1, "import", "G.pth", "--format", "voletiv", cwd=tmp_path)
    assert "no tensor 'block1.snconv2d0.weight_orig', which the generator of voletiv's self-attention-GAN" in said
