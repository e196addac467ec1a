"""The names of training recipes."""

from __future__ import annotations

import json
import shlex

import pytest
from support.benchmarks_path import BENCHMARKS  # isort: split

import recipes

from sagan_cli.config.schema import SETTINGS

assert BENCHMARKS.is_dir()
FLAGS = {setting.flag for setting in SETTINGS.values()} | {"set", "system"}


def test_a_name_is_composed_of_levers() -> None:
    preset, flags = recipes.recipe("half-gamma2-falls-lr4-batch16-qk-clip20")
    assert preset == "laptop-hinge"
    assert shlex.split(flags) == [
        "--loss", "relativistic", "--penalty", "r1=cosine:2:0.2:100%/4,r2=cosine:2:0.2:100%/4",
        "--spectral-norm", "none", "--d-lr", "linear:0.0016:0:50%-100%", "--g-lr", "linear:0.0008:0:50%-100%",
        "--batch", "16", "--qk-norm", "rms", "--grad-clip", "20",
    ]  # fmt: skip
    with pytest.raises(SystemExit, match="unknown from 'nothing' on"):
        recipes.recipe("half-nothing")


def test_every_flag_exists_and_every_result_can_be_made_again() -> None:
    names = {json.loads(path.read_text(encoding="utf-8"))["recipe"] for path in recipes.RESULTS.glob("*.json")}
    for name in {*names, *recipes.AUTO, *recipes.NAMED}:
        words = recipes.recipe(name)[1].split()
        assert {word[2:] for word in words if word.startswith("--")} <= FLAGS, name
