"""Where settings come from, and what a wrong one says."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from sagan_cli.config.presets import PRESETS
from sagan_cli.config.resolve import Resolved, flatten, frozen_for_resume, resolve, same_run, to_toml
from sagan_cli.config.schema import SETTINGS, Config, current_keys
from sagan_cli.errors import UsageError


def make(**kwargs: Any) -> Resolved:
    given: dict[str, Any] = {"flags": {}, "sets": [], "environ": {}, "file": None, "preset": None}
    return resolve(**{**given, **kwargs})


def test_flag_beats_variable_beats_file_beats_preset_beats_default(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[train]\nbatch = 5\nsteps = 6\nema = 0.5\n")
    layers: dict[str, Any] = {"preset": "laptop", "file": file, "environ": {"SAGAN_BATCH": "7", "SAGAN_STEPS": "8"}}
    r = make(flags={"train.batch": 9}, **layers)
    assert (r.config.train.batch, r.config.train.steps, r.config.train.ema) == (9, 8, 0.5)
    assert r.config.model.width == PRESETS["laptop"][1]["model.width"]
    assert [r.sources[k] for k in ("train.batch", "train.steps", "train.ema", "model.width", "train.seed")] == [
        "--batch", "SAGAN_STEPS", str(file), "preset laptop", "default",
    ]  # fmt: skip


def test_set_stands_with_the_flags_and_may_not_contradict_one() -> None:
    r = make(sets=["train.batch=3", "model.options.depth=2", "model.options.act=relu"], environ={"SAGAN_BATCH": "7"})
    assert r.config.train.batch == 3
    assert r.config.model.options == {"depth": 2, "act": "relu"}
    with pytest.raises(UsageError, match="contradicts --batch 4"):
        make(sets=["train.batch=3"], flags={"train.batch": 4})


def test_kimg_is_steps_by_another_name() -> None:
    assert make(kimg=1.0, flags={"train.batch": 32}).config.train.steps == 32  # 1000 / 32, rounded up
    for silly in (float("nan"), float("inf"), -1.0):
        with pytest.raises(UsageError, match="--kimg"):
            make(kimg=silly)
    with pytest.raises(UsageError, match="--kimg and --steps"):
        make(kimg=1.0, flags={"train.steps": 5})


@pytest.mark.parametrize("preset", [None, *PRESETS])
def test_printed_toml_reads_back_as_the_same_configuration(preset: str | None, tmp_path: Path) -> None:
    first = make(
        preset=preset, sets=["model.options.depth=2", 'model.options.name="a \\"b\\""'], flags={"data.data": "a b\\c"}
    )
    file = tmp_path / "printed.toml"
    file.write_text(to_toml(first))
    assert make(file=file).config == first.config
    assert set(flatten(tomllib.loads(to_toml(first)))) >= set(SETTINGS)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ({"sets": ["train.bach=3"]}, "--set: unknown key 'train.bach' (did you mean 'train.batch'?)"),
        ({"sets": ["train.batch"]}, "write section.key=value"),
        ({"sets": ["train.batch=many"]}, "--set train.batch: 'many' is not a whole number"),
        ({"flags": {"train.batch": 0}}, "--batch: 0 is below 1"),
        ({"flags": {"train.d_lr": float("nan")}}, "--d-lr: nan is not a finite number"),
        ({"flags": {"data.fit": "crp"}}, "--fit: 'crp' is not one of auto, crop, pad, stretch (did you mean 'crop'?)"),
        ({"flags": {"train.decay_from": 5, "train.decay_steps": 5}}, "--decay-from 5: must be below --decay-steps 5"),
        (
            {"flags": {"train.decay_from": 5}},
            "--decay-from 5: add --decay-steps, the step at which the rates reach 0",
        ),
        (
            {"flags": {"train.d_lr": "linear:1:0:5k", "train.decay_steps": 9}},
            "--decay-steps 9: --d-lr linear:1.0:0.0:5k is a schedule already; add --decay-steps 0",
        ),
        ({"preset": "sngan", "flags": {"train.decay_steps": 9}}, "--decay-from 400000: must be below --decay-steps 9"),
        ({"flags": {"model.attn_ratio": "3"}}, "--attn-ratio: '3' is not one of auto, 1, 2, 4, 8"),
        ({"environ": {"SAGAN_BATCH": "x"}}, "SAGAN_BATCH: 'x' is not a whole number"),
        ({"environ": {"SAGAN_FLIP": "maybe"}}, "SAGAN_FLIP: 'maybe' is not true or false"),
        ({"preset": "papr"}, f"--preset papr: choose one of {', '.join(PRESETS)} (did you mean 'paper'?)"),
    ],
)
def test_a_wrong_setting_is_named_with_its_source(layers: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        make(**layers)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[train]\nbatch = 'x'\n", "train.batch: 'x' is not of type int"),
        ("[train]\nbatch = true\n", "train.batch: True is not of type int"),
        ("[trian]\nbatch = 1\n", "unknown key 'trian.batch'"),
        ("[train\n", "not TOML"),
        (None, "No such file"),
    ],
)
def test_a_wrong_file_is_named(text: str | None, says: str, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError) as caught:
        make(file=file)
    assert says in str(caught.value)
    assert str(file) in str(caught.value)


def test_only_live_settings_may_change_on_resume() -> None:
    before = {k: Config().get(k) for k in SETTINGS}
    frozen_for_resume(make(flags={"train.steps": 9, "run.keep": 1, "train.device": "cpu"}), {"config": before})
    changed = make(flags={"train.batch": 9}, sets=["model.options.depth=2"])
    assert not same_run(changed, {"config": before})
    with pytest.raises(UsageError, match=r"--set model.options.depth None, not 2; --batch 64, not 9"):
        frozen_for_resume(changed, {"config": before})


def test_no_decay_needs_no_beginning() -> None:
    assert make(preset="sngan", flags={"train.decay_steps": 0}).config.train.decay_steps == 0
    r = make(preset="sngan", sets=["train.decay_from=9"])
    assert (r.config.train.decay_from, r.config.train.decay_steps) == (9, 450_000)


BEFORE_AUTO = {"model.attention": "official", "model.attn_ratio": 8, "model.spectral_norm": "both"}


def old(**changes: Any) -> dict[str, Any]:
    """The leaves of a record from before `auto`."""
    leaves = {k: Config().get(k) for k in SETTINGS if k != "train.decay_from"} | BEFORE_AUTO
    return leaves | {k.replace("__", "."): v for k, v in changes.items()}


@pytest.mark.parametrize("arch", ["sagan", "sagan-dcgan", "sagan-tutorial", "sagan-cifar", "a-plugin"])
def test_a_record_from_before_auto_is_todays_default(arch: str) -> None:
    leaves = old(model__arch=arch)
    now = make(flags={"model.arch": arch})
    assert same_run(now, {"config": leaves})
    again = make(base=leaves)
    assert again.config == now.config
    assert again.config.model.spec_options() == {}
    # What had been said stays said.
    paper = old(model__arch=arch, model__attention="paper", model__attn_ratio=2)
    assert make(base=paper).config.model.spec_options() == {"attention": "paper", "attn_ratio": 2}
    assert not same_run(now, {"config": paper})


def test_settings_that_build_the_same_are_equal() -> None:
    said = {"model.attention": "official", "model.attn_ratio": 8, "model.spectral_norm": "both"}
    leaves = {k: Config().get(k) for k in SETTINGS}
    outright = make(flags=said)
    assert outright.config.model.spec_options() == {"attention": "official", "attn_ratio": 8, "spectral_norm": "both"}
    assert same_run(outright, {"config": leaves})
    assert same_run(outright, {"config": old()})
    # In other networks it is something else, and in a plugin's nobody here knows.
    for arch in ("sagan-dcgan", "a-plugin"):
        assert not same_run(make(flags={**said, "model.arch": arch}), {"config": leaves | {"model.arch": arch}})
    with pytest.raises(UsageError, match="begun with --attention port, not official"):
        frozen_for_resume(
            make(flags={**said, "model.arch": "sagan-dcgan"}), {"config": leaves | {"model.arch": "sagan-dcgan"}}
        )


def test_flags_and_variables_are_unique() -> None:
    assert len({s.flag for s in SETTINGS.values()}) == len(SETTINGS)
    assert all(s.help.endswith((".", "ms.")) for s in SETTINGS.values())


def test_keys_of_version_0_1_are_read_with_a_note(tmp_path: Path) -> None:
    file = tmp_path / "old.toml"
    file.write_text('[data]\nsource = "cifar10"\nroot = "sets"\n[model]\nbase_width = 8\n')
    r = resolve(flags={}, sets=["model.base_width=16"], environ={}, file=file, preset="laptop")
    assert (r.config.data.data, r.config.data.data_root, r.config.model.width) == ("cifar10", "sets", 16)
    assert r.notes == (
        f"--config {file}: data.source is now data.data",
        f"--config {file}: data.root is now data.data_root",
        f"--config {file}: model.base_width is now model.width",
        "--set: model.base_width is now model.width",
    )
    assert current_keys({"data.source": "cifar10", "train.decay_from": 0})["data.data"] == "cifar10"


def test_a_flag_a_key_and_a_variable_have_one_name() -> None:
    for key, setting in SETTINGS.items():
        name = key.partition(".")[2]
        assert (setting.flag, setting.variable) == (name.replace("_", "-"), f"SAGAN_{name.upper()}")
