"""The default recipe: what it chooses from the data, what a user overrides, and which run a command continues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.cli import TINY, fails, ok, sagan

from sagan_cli.config.recipe import DataFacts, apply, choose
from sagan_cli.config.resolve import Resolved, resolve


def resolved(preset: str = "laptop", system: str | None = None, **flags: Any) -> Resolved:
    given = {key.replace("__", "."): value for key, value in flags.items()}
    return resolve(flags=given, sets=[], environ={}, file=None, preset=preset, system=system)


def chosen(r: Resolved, images: int = 50_000, side: int = 32, mirror: bool = True) -> Resolved:
    return apply(r, choose(r, DataFacts(images, side, side, lambda: (mirror, "tested"))))


def test_it_is_chosen_from_the_data() -> None:
    r = chosen(resolved())
    assert (r.config.train.loss, r.config.model.spectral_norm) == ("relativistic", "none")
    assert (r.config.train.augment, r.config.data.flip) == ("", False)
    assert r.sources["train.loss"] == r.sources["train.penalty"] == "recipe"
    weight = lambda side: float(chosen(resolved(), side=side).config.train.penalty.split(":")[1])  # noqa: E731
    assert weight(64) == 4 * weight(32)
    rates = lambda r, side=64: [  # noqa: E731
        float(chosen(r, side=side).config.get(f"train.{name}_lr").split(":")[1]) for name in "dg"
    ]
    assert (
        rates(resolved(), side=32)
        == rates(resolved(model__width=16))
        == rates(resolved(model__width=2))
        == [16e-4, 8e-4]
    )
    assert rates(resolved()) == rates(resolved(), side=128) == [8e-4, 4e-4]
    assert rates(resolved("base")) == [4e-4, 2e-4]
    few = chosen(resolved(), images=500)
    assert few.config.train.augment.startswith("color=cosine:0:0.3:100%,translation=")
    assert few.config.data.flip
    assert not chosen(resolved(), images=500, mirror=False).config.data.flip


def test_what_the_user_gives_stays() -> None:
    r = chosen(resolved(train__penalty="r1=1", data__flip=False, train__d_lr=1e-3), images=500)
    assert (r.config.train.penalty, r.config.data.flip, r.config.train.d_lr) == ("r1=1", False, 1e-3)
    assert r.sources["train.penalty"] == "--penalty"
    assert r.config.model.spectral_norm == "none"
    told = [part.about for part in choose(resolved(train__d_lr=1e-3), DataFacts(50_000, 32, 32, lambda: (True, "")))]
    assert [line for line in told if "as given" in line] == [line for line in told if line.endswith("--d-lr as given")]
    assert any(line.endswith("; but --d-lr as given") for line in told)


@pytest.mark.parametrize(
    "r",
    [
        resolved(system="paper"), resolved("base", system="sngan-d"), resolved("laptop-hinge"), resolved("paper"),
        resolved("base-hinge"), resolved(model__arch="sagan-dcgan"), resolved(train__loss="hinge"),
        resolved(train__loss="relativistic"),
    ],
)  # fmt: skip
def test_other_recipes_stay_as_they_are(r: Resolved) -> None:
    assert choose(r, DataFacts(500, 32, 32, lambda: (True, "tested"))) == []
    assert chosen(r, images=500) == r


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images of noise: mirroring cannot be judged from so few."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(40):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def test_a_run_says_records_and_keeps_its_recipe(folder: Path, tmp_path: Path) -> None:
    command = ("train", "--data", folder, "--size", 16, *TINY, "--steps", 2)
    said = sagan(*command, cwd=tmp_path).stderr.decode()
    assert "recipe 40 images at 16 px" in said
    assert "--system paper" in said
    assert "augmentation of up to 30 % of the images" in said
    assert "none of the images mirrored: " in said
    run = next((tmp_path / "runs").iterdir())
    record = json.loads((run / "run.json").read_text())
    assert record["config"]["train"]["loss"] == "relativistic"
    assert record["sources"]["train.augment"] == "recipe"
    # An earlier version had another recipe, and the data may have grown: the run goes on with its own.
    record["config"]["train"] |= {"augment": ""}
    record["sources"] |= {"train.augment": "default"}
    (run / "run.json").write_text(json.dumps(record))
    again = sagan(*command, "--save-every", 1, cwd=tmp_path)
    assert b"resumed" in again.stderr
    assert b"recipe" not in again.stderr
    kept = json.loads((run / "run.json").read_text())
    assert kept["config"]["train"]["augment"] == ""
    assert kept["sources"]["train.augment"] == "default"


def test_a_recipe_that_was_asked_for_is_not_continued_by_the_default(folder: Path, tmp_path: Path) -> None:
    command = ("train", "--data", folder, "--size", 16, *TINY, "--steps", 1)
    ok(*command, "--loss", "hinge", "--out", "r", cwd=tmp_path)
    said = fails(2, *command, "--out", "r", cwd=tmp_path)
    assert "begun with --loss hinge, not that of the recipe" in said
    ok(*command, "--preset", "laptop-hinge", "--out", "h", cwd=tmp_path)
    assert "begun with" in fails(2, *command, "--out", "h", cwd=tmp_path)


def test_the_plan_and_the_settings_show_it_and_write_nothing(folder: Path, tmp_path: Path) -> None:
    for flag in ("--dry-run", "--print-config"):
        done = sagan("train", "--data", folder, "--size", 16, *TINY, flag, cwd=tmp_path)
        assert b'loss = "relativistic"             # recipe' in done.stdout
        assert b"recipe 40 images" in done.stderr
    assert not list(tmp_path.iterdir())
