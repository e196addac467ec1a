"""Training that starts from trained weights (`--init-from`), with early blocks of D kept fixed (`--freeze-d`)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.cli import fails, ok
from support.image_files import fill
from torch import Tensor

import sagan_cli
from sagan_cli.config.schema import TrainConfig
from sagan_cli.contracts import ModelSpec
from sagan_cli.engine import initial_weights, networks
from sagan_cli.engine.networks import check_frozen, early_weights
from sagan_cli.errors import UsageError
from sagan_cli.plugins import registry
from sagan_cli.runs import Run

SMALL = {"size": "32", "width": 2, "latent": 8, "batch": 4, "device": "cpu", "precision": "fp32", "quiet": True}
CLASSES = {"cat": 4, "dog": 4, "fox": 4}


def weights(run: Run, step: int, network: str) -> dict[str, Tensor]:
    """Tensors of one network at a checkpoint."""
    file = "state.safetensors" if network == "discriminator" else "model.safetensors"
    found = load_file(run.checkpoints / f"{step:08d}" / file)
    return {k.removeprefix(network + "."): t for k, t in found.items() if k.startswith(network + ".")}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("animals"), CLASSES)


@pytest.fixture(scope="module")
def source(animals: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of three classes, six steps long."""
    return sagan_cli.train(animals, out=tmp_path_factory.mktemp("source") / "run", steps=6, seed=3, **SMALL)


def start(source: Run, out: Path, data: Path, **more: object) -> Run:
    """A run from the weights of `source`, whose first checkpoint is at step 1."""
    options = {k: v for k, v in SMALL.items() if k not in ("size", "width", "latent")}
    return sagan_cli.train(data, out=out, init_from=str(source.path), **{"steps": 1, **options, **more})


def test_the_first_update_starts_from_the_weights_of_the_source(source: Run, animals: Path, tmp_path: Path) -> None:
    run = start(source, tmp_path / "run", animals, d_lr=0.0, g_lr=0.0)
    for network in ("generator", "discriminator"):
        found, expected = weights(run, 1, network), weights(source, 6, network)
        trained = [k for k in expected if "running" not in k]
        assert same({k: found[k] for k in trained}, {k: expected[k] for k in trained}), network
    # The EMA goes on from that of the source, by one step towards the generator.
    decay = run.config().train.ema
    ema, before, now = weights(run, 1, "ema"), weights(source, 6, "ema"), weights(source, 6, "generator")
    name = "to_image.weight"
    torch.testing.assert_close(ema[name], decay * before[name] + (1 - decay) * now[name], rtol=0, atol=1e-7)
    record = run.read()
    assert record["initial"]["step"] == 6
    assert record["sources"]["model.width"] == "--init-from"
    assert record["config"]["model"]["width"] == 2


def test_classes_keep_their_rows_by_name_and_new_ones_start_from_the_mean(source: Run, tmp_path: Path) -> None:
    data = fill(tmp_path / "data", {"fox": 4, "newt": 4, "cat": 4, "ape": 4})  # in order of name: ape, cat, fox, newt
    run = start(source, tmp_path / "run", data, d_lr=0.0, g_lr=0.0)
    for network, name in (
        ("generator", "blocks.0.norm0.gain"), ("discriminator", "embed.weight"), ("generator", "blocks.1.norm1.bias"),
    ):  # fmt: skip
        found, before = weights(run, 1, network)[name], weights(source, 6, network)[name]
        mean = before.mean(0)
        torch.testing.assert_close(found, torch.stack([mean, before[0], before[2], mean]))
    assert "2 of its 3 classes are kept, 2 are new" in run.read()["initial"]["about"]


def test_classes_may_be_dropped_and_added(source: Run, animals: Path, tmp_path: Path) -> None:
    plain = start(source, tmp_path / "plain", animals, unconditional=True, d_lr=0.0, g_lr=0.0)
    found, before = (weights(run, step, "generator") for run, step in ((plain, 1), (source, 6)))
    torch.testing.assert_close(found["blocks.0.norm0.gain"], before["blocks.0.norm0.gain"].mean(0, keepdim=True))
    assert "embed.weight" not in weights(plain, 1, "discriminator")
    again = start(plain, tmp_path / "again", animals, d_lr=0.0, g_lr=0.0)
    rows = weights(again, 1, "generator")["blocks.0.norm0.gain"]
    assert rows.shape[0] == 3
    torch.testing.assert_close(rows, found["blocks.0.norm0.gain"].expand_as(rows))


def test_an_exported_file_gives_the_images_of_its_ema(source: Run, animals: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    ok("export", source.path, "--out", file, "-q", cwd=tmp_path)
    run = start(Run(file), tmp_path / "run", animals, d_lr=0.0, g_lr=0.0)
    assert "it has no discriminator, which starts from the seed" in run.read()["initial"]["about"]
    found, expected = weights(run, 1, "generator"), weights(source, 6, "ema")
    assert all(torch.equal(found[k], expected[k]) for k in expected if "running" not in k)


def test_folded_spectral_norms_are_estimated_again(animals: Path, tmp_path: Path) -> None:
    source = sagan_cli.train(animals, out=tmp_path / "source", preset="laptop-hinge", steps=6, **SMALL)
    file = tmp_path / "model.safetensors"
    ok("export", source.path, "--out", file, "-q", cwd=tmp_path)
    spec = source.read()["model"]
    spec = ModelSpec(32, 32, 3, 3, 8, 2, tuple(spec["attn_at"]), spec["options"])
    fitted = initial_weights.fitted(initial_weights.read(file), "sagan", spec, sorted(CLASSES))
    pair, ema = networks.create("sagan", spec, TrainConfig(init_from=str(file)), torch.device("cpu"))
    fitted.load(pair, ema)
    z, y = torch.randn(6, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])
    expected = initial_weights.read_file(file).generator(z, y)
    torch.testing.assert_close(ema.module(z, y), expected, rtol=0, atol=0.02)


@pytest.mark.parametrize(
    "arch", [n for n in registry.names("architectures") if registry.find("architectures", n).builtin]
)
def test_every_architecture_goes_on_from_its_own_weights(arch: str, animals: Path, tmp_path: Path) -> None:
    settings = {**SMALL, "size": "64" if arch == "sagan-tutorial" else "32"}
    first = sagan_cli.train(animals, out=tmp_path / "first", arch=arch, steps=2, **settings)
    run = start(first, tmp_path / "run", animals, d_lr=0.0, g_lr=0.0)
    assert run.read()["model"] == first.read()["model"]
    found, expected = weights(run, 1, "generator"), weights(first, 2, "generator")
    assert all(torch.equal(found[name], expected[name]) for name in expected if name.endswith(("weight", "bias")))


def test_it_resumes_to_the_bit_and_without_the_source(source: Run, animals: Path, tmp_path: Path) -> None:
    copy = Run(tmp_path / "copy")
    shutil.copytree(source.path, copy.path)
    whole = start(copy, tmp_path / "whole", animals, freeze_d=1, save_every=2, keep=5, steps=4)
    part = Run(tmp_path / "part")
    shutil.copytree(whole.path, part.path)
    shutil.rmtree(part.checkpoints / "00000004")
    shutil.rmtree(copy.path)
    ok("train", "--resume", part.path, "-q", cwd=tmp_path)
    assert part.read()["initial"]["step"] == 6
    for network in ("generator", "discriminator", "ema"):
        assert same(weights(whole, 4, network), weights(part, 4, network)), network
    assert "no such file, run or checkpoint" in fails(
        2, "train", "--init-from", copy.path, "--data", animals, "--out", tmp_path / "new", cwd=tmp_path
    )
    assert not (tmp_path / "new").exists()


def test_frozen_blocks_stay_and_the_others_learn(source: Run, animals: Path, tmp_path: Path) -> None:
    run = start(source, tmp_path / "run", animals, freeze_d=2, steps=3)
    found, before = weights(run, 3, "discriminator"), weights(source, 6, "discriminator")
    changed = {name for name in found if not torch.equal(found[name], before[name])}
    assert not {n for n in changed if n.startswith(("blocks.0.", "blocks.1."))}
    assert {n.split(".")[1] for n in changed if n.startswith("blocks.")} == {"2", "3"}
    state = load_file(run.checkpoints / "00000003" / "state.safetensors")
    assert not [n for n in state if n.startswith(("opt_d.blocks.0.", "opt_d.blocks.1."))]


def test_attention_between_frozen_blocks_is_frozen_too() -> None:
    spec = ModelSpec(32, 32, 3, latent=4, base_width=2, attn_at=(16, 8))
    _, d = networks.build("sagan", spec)
    names = {name for name, p in d.named_parameters() if p in early_weights(d, 2, "sagan")}
    assert {n.split(".")[0] + "." + n.split(".")[1] for n in names} == {"blocks.0", "blocks.1", "attention.16"}
    with pytest.raises(UsageError, match="--freeze-d 4: the discriminator has 4 blocks, and one must be trained"):
        check_frozen("sagan", spec, 4)
    with pytest.raises(UsageError, match="architecture 'dcgan' has no list of blocks"):
        check_frozen("dcgan", ModelSpec(32, 32, 3, latent=4, base_width=2, attn_at=()), 1)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--size", 64), "--size 64 contradicts the weights of --init-from {}, which have 32; leave it out"),
        (("--set", "model.latent=9"), "--latent 9 contradicts the weights of --init-from {}, which have 8"),
        (("--system", "port"), "system port: --arch sagan-dcgan contradicts the weights of --init-from {}"),
        (("--spectral-norm", "both"), "--spectral-norm both contradicts"),
        (("--freeze-d", 4), "--freeze-d 4: the discriminator has 4 blocks"),
        (("--init-from", "-"), "--init-from -: a run that cannot be started again"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    source: Run, animals: Path, tmp_path: Path, flags: tuple[object, ...], text: str
) -> None:
    said = fails(2, "train", "--data", animals, "--init-from", source.path, *flags, "--out", tmp_path / "run",
                 "--device", "cpu", "--batch", 4, "-q", cwd=tmp_path)  # fmt: skip
    assert text.format(source.path) in said
    assert not (tmp_path / "run").exists()


def test_frozen_blocks_need_trained_weights(tmp_path: Path) -> None:
    assert "--freeze-d 1: untrained weights; add --init-from" in fails(2, "train", "--freeze-d", 1, cwd=tmp_path)


def test_a_damaged_source_is_named(source: Run, animals: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(source.path / "checkpoints" / "00000006", copy)
    (copy / "state.safetensors").write_bytes(b"x" * 100)
    flags = ("--device", "cpu", "--batch", 4, "-q", "--out", tmp_path / "run")
    said = fails(1, "train", "--data", animals, "--init-from", copy, *flags, cwd=tmp_path)
    assert f"{copy}/state.safetensors: damaged or replaced" in said
    assert not (tmp_path / "run").exists()


def test_the_objective_follows_the_networks(source: Run, animals: Path, tmp_path: Path) -> None:
    """The default recipe for networks without spectral norm; the hinge loss for those with it."""
    printed = ok("train", "--data", animals, "--init-from", source.path, "--print-config", "-q", cwd=tmp_path).decode()
    assert 'loss = "relativistic"' in printed
    hinge = sagan_cli.train(animals, out=tmp_path / "hinge", preset="laptop-hinge", steps=1, **SMALL)
    printed = ok("train", "--data", animals, "--init-from", hinge.path, "--print-config", "-q", cwd=tmp_path).decode()
    assert 'loss = "hinge"' in printed
    assert "cutout" in printed  # few images are augmented in either case
    plan = json.loads(ok("train", "--data", animals, "--init-from", hinge.path, "--dry-run", "--json", cwd=tmp_path))
    assert plan["height"] == 32
