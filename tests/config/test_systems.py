"""The systems of the literature: each row is a valid configuration that trains, resumes to the bit and samples."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.cli import TINY, fails, ok
from support.idx_files import idx_folder

from sagan_cli.config.presets import PRESETS
from sagan_cli.config.resolve import Resolved, flatten, resolve
from sagan_cli.config.schema import OPTIONS_KEY, SETTINGS, effective
from sagan_cli.config.systems import SYSTEMS, departures, named_in
from sagan_cli.contracts import ModelSpec
from sagan_cli.engine.job import settled
from sagan_cli.engine.networks import summarize
from sagan_cli.errors import UsageError
from sagan_cli.geometry import parse_shape
from sagan_cli.plugins import registry

NAMED = (
    "official", "paper", "port", "cifar", "tutorial", "rows", "nonlocal", "residual", "sngan", "sngan-d", "dcgan",
    "wgan", "wgan-gp",
)  # fmt: skip
SMALL = ("--size", 16, *TINY, "--batch", 16)
"""A run of milliseconds; the batch shortens the 1,024 latents on which the averaged network is measured."""
SCALE = ("data.", "run.", "model.width", "train.batch", "train.steps", "train.ema", "train.seed")
"""What no system may fix."""


def made(**layers: Any) -> Resolved:
    given: dict[str, Any] = {"flags": {}, "sets": [], "environ": {}, "file": None, "preset": None}
    return resolve(**{**given, **layers})


def test_every_system_of_the_literature_is_there() -> None:
    assert tuple(SYSTEMS) == NAMED


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_row_is_valid_and_says_nothing_of_scale(name: str) -> None:
    system = SYSTEMS[name]
    assert system.name == name
    assert system.about
    assert system.source
    resolved = made(system=name)
    for key, value in system.settings.items():
        assert key in SETTINGS or key.startswith(OPTIONS_KEY + ".")
        assert not key.startswith(SCALE), key
        assert flatten(asdict(resolved.config))[key] == value
        assert resolved.sources[key] == f"system {name}"
    assert registry.find("architectures", resolved.config.model.arch).builtin


def test_no_two_systems_are_one() -> None:
    configs = [made(system=name).config for name in SYSTEMS]
    assert all(a != b for i, a in enumerate(configs) for b in configs[:i])


# Each figure as its publication has it, written down a second time from there.
PUBLISHED: dict[str, tuple[str, float, float, float, float, int, str]] = {
    #            loss, D's rate, G's rate, beta 1, beta 2, D's updates, spectral norm
    "official": ("hinge", 4e-4, 1e-4, 0.0, 0.999, 1, "both"),
    "paper": ("hinge", 4e-4, 1e-4, 0.0, 0.9, 1, "both"),
    "port": ("hinge", 4e-4, 1e-4, 0.0, 0.9, 1, "both"),
    "sngan": ("hinge", 4e-4, 1e-4, 0.0, 0.9, 1, "both"),
    "sngan-d": ("hinge", 2e-4, 2e-4, 0.0, 0.9, 5, "d"),
    "dcgan": ("non-saturating", 2e-4, 2e-4, 0.5, 0.999, 1, "none"),
    "wgan": ("wasserstein", 5e-5, 5e-5, 0.0, 0.99, 5, "none"),
    "wgan-gp": ("wasserstein", 1e-4, 1e-4, 0.0, 0.9, 5, "none"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_figures_of_the_publications(name: str) -> None:
    # laptop has rates and a beta 2 of its own, which a system's must cover.
    config = made(system=name, preset="laptop").config
    t = config.train
    norm = effective(flatten(asdict(config)))["model.spectral_norm"]
    found = (t.loss, t.d_lr, t.g_lr, t.beta1, t.beta2, t.d_steps, norm)
    assert found == PUBLISHED[name]
    assert (t.gp, t.clip) == {"wgan": (0, 0.01), "wgan-gp": (10, 0)}.get(name, (0, 0))


def test_the_controls_differ_from_sagan_in_their_one_thing() -> None:
    """Zhang et al., table 1: the rows differ in what stands in the place of attention."""
    base = dict(SYSTEMS["paper"].settings)
    for name, key, value in (
        ("rows", "model.attention", "rows"),
        ("nonlocal", "model.attention", "nonlocal"),
        ("residual", "model.attention", "residual"),
    ):
        assert dict(SYSTEMS[name].settings) == {**base, key: value}
    assert dict(SYSTEMS["sngan"].settings) == {**base, "model.attention": "official", "model.attn_at": "none"}
    assert dict(SYSTEMS["official"].settings) == {**base, "model.attention": "official", "train.beta2": 0.999}


def test_it_stands_between_the_preset_and_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[train]\nd_steps = 3\n")
    resolved = made(system="sngan-d", preset="laptop", file=file, flags={"train.beta2": 0.5})
    t = resolved.config.train
    assert (t.d_steps, t.beta2, t.d_lr, t.batch) == (3, 0.5, 2e-4, PRESETS["laptop"][1]["train.batch"])
    keys = ("train.d_steps", "train.beta2", "train.d_lr", "train.batch")
    assert [resolved.sources[k] for k in keys] == [str(file), "--beta2", "system sngan-d", "preset laptop"]
    leaves = flatten(asdict(resolved.config))
    assert named_in(resolved.sources) == "sngan-d"
    assert departures("sngan-d", leaves) == ["train.d_steps", "train.beta2"]
    assert departures("of another version", leaves) == []
    assert named_in(made(preset="laptop").sources) is None


def test_an_unknown_name_offers_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"--system sngan_d: no such system \(did you mean 'sngan-d'\?\); there are off"
    ):
        made(system="sngan_d")
    assert "--system oficial: no such system" in fails(2, "train", "--system", "oficial", cwd=tmp_path)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    idx_folder(home / "idx")
    return home


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    names = ("d_loss", "g_loss", "d_real", "d_fake")
    return [line[name] for line in lines if "d_loss" in line for name in names]  # others are findings


@pytest.mark.parametrize("name", SYSTEMS)
def test_each_trains_resumes_to_the_bit_and_samples(name: str, home: Path, tmp_path: Path) -> None:
    args = ("train", "--system", name, "--data", home / "idx", *SMALL, "--log-every", 1)
    ok(*args, "--steps", 2, "--out", "whole", cwd=tmp_path)
    ok(*args, "--steps", 1, "--out", "parts", cwd=tmp_path)
    ok(*args, "--steps", 2, "--out", "parts", cwd=tmp_path)
    for file in ("model.safetensors", "state.safetensors"):
        whole, parts = (tmp_path / run / "checkpoints/00000002" / file for run in ("whole", "parts"))
        assert whole.read_bytes() == parts.read_bytes()
    assert np.isfinite(losses(tmp_path / "whole")).all()
    record = json.loads((tmp_path / "parts/run.json").read_text(encoding="utf-8"))
    assert named_in(record["sources"]) == name
    assert departures(name, flatten(record["config"])) == [k for k in ("model.latent",) if k in SYSTEMS[name].settings]
    ok("sample", "whole", "-n", 3, "--out", "pictures", cwd=tmp_path)
    sizes = []
    for file in (tmp_path / "pictures").glob("*.png"):
        with Image.open(file) as picture:
            sizes.append(picture.size)
    assert sizes == [(16, 16)] * 3


def test_a_run_goes_on_by_resume_as_the_system_it_is(home: Path, tmp_path: Path) -> None:
    args = ("train", "--data", home / "idx", *SMALL, "--steps", 1, "--out", "run")
    ok(*args, "--system", "residual", cwd=tmp_path)
    assert "--system" in fails(2, "train", "--resume", "run", "--system", "residual", cwd=tmp_path)
    assert "begun with --attention residual, not paper" in fails(2, *args, "--system", "paper", cwd=tmp_path)
    ok("train", "--resume", "run", "--steps", 2, cwd=tmp_path)
    record = json.loads((tmp_path / "run/run.json").read_text(encoding="utf-8"))
    assert (record["step"], record["config"]["model"]["attention"]) == (2, "residual")
    assert record["sources"]["model.attention"] == "system residual"


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_two_hundred_steps_on_quadrupeds_stay_finite(name: str, tmp_path: Path) -> None:
    small = ("--size", 32, "--width", 8, "--batch", 16, "--steps", 200, "--log-every", 10, "--device", "cpu")
    ok("train", "--system", name, *small, "--out", "run", cwd=tmp_path)
    assert len(losses(tmp_path / "run")) == 4 * 20
    assert np.isfinite(losses(tmp_path / "run")).all()
    ok("sample", "run", "-n", 8, "--out", "pictures.npz", cwd=tmp_path)
    pictures = np.load(tmp_path / "pictures.npz")
    images = pictures[pictures.files[0]]
    assert images.shape == (8, 32, 32, 3)
    assert images.std() > 1, "a picture of one colour"


def row_of(name: str) -> list[str]:
    text = (Path(__file__).parents[2] / "docs/systems.md").read_text(encoding="utf-8")
    (row,) = (line for line in text[: text.index("\n## ")].splitlines() if line.startswith(f"| `{name}` "))
    return [cell.strip() for cell in row.strip("| ").split("|")]


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_docs_count_its_parameters(name: str) -> None:
    model = made(system=name).config.model
    cells = row_of(name)[-2:]
    size, classes = (128, 1000) if all("(128)" in cell for cell in cells) else (64, 0)
    if all("(32)" in cell for cell in cells):
        size, classes = 32, 10
    shape = parse_shape(str(size), model.attn_at, None)
    spec = ModelSpec(size, size, 3, classes, model.latent, 64, shape.attn_at, model.spec_options())
    spec = settled(model.arch, spec, auto=model.attn_at == "auto")
    counts = [network.parameters for network in summarize(model.arch, spec)]
    assert [int(re.sub(r"\(\d+\)|[*,]", "", cell)) for cell in cells] == counts


def test_the_published_counts() -> None:
    """Logs of StudioGAN's SAGAN-128 and its twin without attention, to the unit."""
    assert row_of("official")[-2:] == ["**42,078,852** (128)", "**39,463,618** (128)"]
    assert row_of("sngan")[-2:] == ["**41,996,931** (128)", "**39,443,137** (128)"]


@pytest.mark.parametrize(
    ("preset", "system"), [(n, n) for n in ("official", "wgan-gp", "dcgan")] + [("sngan", "sngan-d")]
)
def test_the_recipes_are_the_systems_at_their_scale(preset: str, system: str) -> None:
    leaves = flatten(asdict(made(preset=preset).config))
    assert set(departures(system, leaves)) <= {"model.attn_at"}, "official says outright where it attends"
    for key in set(PRESETS[preset][1]) - set(SYSTEMS[system].settings):
        assert key.startswith((*SCALE, "train.decay_")) or key in ("model.attn_at", "model.latent"), key


def test_the_table_of_the_docs_has_a_row_for_each() -> None:
    text = (Path(__file__).parents[2] / "docs/systems.md").read_text(encoding="utf-8")
    table = text[: text.index("\n## ")]
    rows = [line.split("|")[1].strip().strip("`") for line in table.splitlines() if line.startswith("| `")]
    assert rows == list(SYSTEMS)
    for name in SYSTEMS:
        assert f"`sagan train --system {name}`" in table
