"""Each rule on numbers that should and should not trigger it, on recorded runs, and as the user sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.cli import ok
from support.idx_files import idx_folder

from sagan_cli.contracts import RunInfo
from sagan_cli.diagnosis import RULES, WINDOW, Diagnosis, History, diagnose
from sagan_cli.runs import Run

HEALTHY: dict[str, float] = {
    "d_loss": 0.2, "g_loss": 2.5, "d_real": 1.0, "d_fake": -1.0, "d_sign": 0.9, "gamma_g16": 0.1, "gamma_d16": 0.0,
    "gamma_d8": -0.2, "augment_p": 0.4, "variety": 0.7, "copies": 0.02,
}  # fmt: skip
SCORE = {"kind": "score", "fid": 2.0, "recall": 0.4, "memorization": 0.55}
ROOT = Path(__file__).parents[2]
RECORDED = Path(__file__).parent / "recorded"


def found(lines: list[Mapping[str, Any]], loss: str = "relativistic", steps: int = 2000) -> set[str]:
    history = History(steps, {"loss": loss})
    for i, line in enumerate(lines):
        history.add({"step": 1000 + 50 * i, **line})
    return {rule.name for rule, _ in diagnose(history)}


def statistics(count: int = WINDOW, **changes: float) -> list[Mapping[str, Any]]:
    return [HEALTHY | changes] * count


def scores(name: str, *values: float) -> list[Mapping[str, Any]]:
    return [*statistics(), *(SCORE | {name: value} for value in values)]


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        (statistics(variety=0.2), "variety-lost"),
        (scores("recall", 0.3, 0.01, 0.0), "variety-lost"),
        (statistics(copies=0.5), "copies"),
        (scores("memorization", 0.9, 0.95), "copies"),
        (statistics(d_sign=1.0, d_real=9.0, d_fake=-9.0), "d-wins"),
        (statistics(d_real=-3.0, d_fake=4.0, d_sign=-0.8), "d-loses"),
        (statistics(d_real=0.5, d_fake=0.5, d_sign=0.0), "d-loses"),
        (statistics(gamma_g16=0.001), "gamma-zero"),
        (statistics(gamma_d16=0.001, gamma_d8=-0.002), "gamma-zero"),
        (scores("fid", 5.0, 2.0, 3.5, 4.0), "declines"),
        (statistics(augment_p=1.0), "augmentation-full"),
    ],
)
def test_each_rule_is_triggered_alone(lines: list[Mapping[str, Any]], name: str) -> None:
    assert found(lines) == {name}


@pytest.mark.parametrize(
    "lines",
    [
        statistics(),
        statistics(variety=0.2)[:1],
        [*statistics(variety=0.2), *statistics(2)],
        scores("recall", 0.0, 0.2),
        [*statistics(copies=0.5)[:1], *statistics()],
        statistics(WINDOW - 1, d_sign=1.0, d_real=9.0, d_fake=-9.0),
        statistics(d_sign=1.0),
        [*statistics(gamma_g16=0.001)[1:], *statistics(1)],
        scores("fid", 5.0, 2.0, 3.5),
        scores("fid", 5.0, 2.0, 2.5, 2.9),
        [],
        [{"step": 5, "kind": "evaluation", "values": {"fid": 3.0}}],
    ],
)
def test_a_healthy_run_has_no_finding(lines: list[Mapping[str, Any]]) -> None:
    assert found(lines) == set()


def test_the_beginning_is_not_judged() -> None:
    history = History(2000, {})
    for step in range(50, 500, 50):
        history.add({"step": step, **HEALTHY, "variety": 0.1, "gamma_g16": 0.0})
    assert diagnose(history) == []
    history.add({"step": 500, **HEALTHY, "variety": 0.1, "gamma_g16": 0.0})
    assert {rule.name for rule, _ in diagnose(history)} == {"variety-lost", "gamma-zero"}


def test_logits_of_a_wasserstein_critic_say_nothing() -> None:
    lines = statistics(d_sign=1.0, d_real=90.0, d_fake=-90.0)
    assert found(lines, loss="wasserstein") == set()
    assert found(lines, loss="hinge") == {"d-wins"}


def test_a_finding_is_told_once_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info = RunInfo(tmp_path, {"train": {"loss": "relativistic"}}, 2000)
    Run(tmp_path).write({})
    logger = Diagnosis(info)
    logger.start(0)
    for step in range(1000, 1200, 50):
        logger.statistics(step, HEALTHY | {"variety": 0.1})
    again = Diagnosis(info)
    again.start(1200)
    again.statistics(1250, HEALTHY | {"variety": 0.1})
    again.statistics(1300, HEALTHY | {"variety": 0.1})
    (line,) = Run(tmp_path).metrics()
    assert (line["kind"], line["name"], line["step"]) == ("finding", "variety-lost", 1050)
    (said,) = capsys.readouterr().err.splitlines()
    assert "step 1050: samples of a class resemble each other: their variety is 0.10" in said
    assert "docs/troubleshooting.md, variety-lost" in said


def test_the_checkpoint_before_the_trouble_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path)
    run.write({})
    for step in (1000, 1100, 1200, 1300):
        folder = run.checkpoints / f"{step:08d}"
        folder.mkdir(parents=True)
        (folder / "checkpoint.json").write_text("{}", encoding="utf-8")
    logger = Diagnosis(RunInfo(tmp_path, {"train": {"loss": "relativistic"}}, 2000))
    for step in range(1000, 1350, 50):
        logger.statistics(step, HEALTHY | {"variety": 0.8 if step < 1200 else 0.1})
    assert run.read()["kept"] == {"step": 1100, "because": "variety-lost"}
    assert f"the checkpoint before that is kept: {run.checkpoints / '00001100'}" in capsys.readouterr().err


def test_a_kept_checkpoint_is_not_deleted_and_is_the_best(tmp_path: Path) -> None:
    data = idx_folder(tmp_path / "idx")
    tiny = ("--data", data, "--size", 16, "--width", 2, "--latent", 4, "--batch", 4, "--save-every", 1)
    ok("train", *tiny, "--out", "r", "--steps", 2, "-q", cwd=tmp_path)
    run = Run(tmp_path / "r")
    run.update(kept={"step": 1, "because": "d-wins"})
    ok("train", "--resume", "r", "--steps", 4, "--keep", 1, "-q", cwd=tmp_path)
    assert [int(path.name) for path in run.checkpoint_steps()] == [1, 4]
    assert b"step 1 of 4" in ok("info", "r/best", cwd=tmp_path)


@pytest.mark.parametrize("file", sorted(RECORDED.glob("*.jsonl")), ids=lambda file: file.stem)
def test_recorded_runs(file: Path) -> None:
    # The first line has the settings of the run and the findings that belong to it.
    first, *lines = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    history, seen = History(first["steps"], first["train"]), set()
    for line in lines:
        history.add(line)
        seen |= {rule.name for rule, _ in diagnose(history)}
    assert seen >= set(first["findings"])
    if not first["findings"]:
        assert seen == set()


def test_each_rule_is_explained() -> None:
    text = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    for rule in RULES:
        assert f"## {rule.name}\n" in text


def test_findings_are_in_the_description_of_a_run(tmp_path: Path) -> None:
    data = idx_folder(tmp_path / "idx")
    tiny = ("--data", data, "--size", 16, "--width", 2, "--latent", 4, "--batch", 4, "--steps", 2)
    ok("train", *tiny, "--out", "r", "-q", cwd=tmp_path)
    finding = {"kind": "finding", "step": 2, "name": "d-wins", "text": "D wins", "remedy": "lower --d-lr"}
    Run(tmp_path / "r").append_metrics(finding)
    assert b"step 2: D wins; lower --d-lr" in ok("info", "r", cwd=tmp_path)
    (told,) = json.loads(ok("info", "r", "--json", cwd=tmp_path))["findings"]
    assert told == {name: finding[name] for name in ("step", "name", "text", "remedy")}
