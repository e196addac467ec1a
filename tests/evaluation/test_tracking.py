"""`sagan train --eval-every`: scores in the log, the best checkpoint kept, and training untouched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file
from support.cli import TINY, fails, ok, sagan
from support.idx_files import idx_folder

from sagan_cli.evaluation import tracking

ARGS = ("train", "--data", "idx", "--size", 16, *TINY, "--set", "train.g_lr=0.01", "--save-every", 2, "--keep", 1)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    idx_folder(tmp_path / "idx", count=60)
    return tmp_path


def lines(run: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line.get("kind") == "score"]


def test_scores_are_logged_and_the_best_checkpoint_outlives_keep(home: Path) -> None:
    ok(*ARGS, "--steps", 12, "--eval-every", 3, "--eval-n", 32, "--out", "scored", cwd=home)
    run = home / "scored"
    scores = lines(run)
    assert [s["step"] for s in scores] == [3, 6, 9, 12]
    assert all(s["extractor"] == "classifier" and s["n_fake"] == s["n_real"] == 32 for s in scores)
    best = json.loads((run / "run.json").read_text())["best"]
    assert best["fid"] == min(s["fid"] for s in scores)
    kept = {int(p.name) for p in (run / "checkpoints").iterdir()}
    assert kept == {best["step"], 12}
    done = sagan("eval-fid", "scored/best", "--extractor", "classifier", "-n", 32, "--json", cwd=home)
    record = json.loads(done.stdout)
    assert record["step"] == best["step"]
    assert record["value"] == pytest.approx(best["fid"], rel=1e-4)


def test_training_is_the_same_with_and_without(home: Path) -> None:
    ok(*ARGS, "--steps", 6, "--eval-every", 2, "--eval-n", 16, "--out", "with", cwd=home)
    ok(*ARGS, "--steps", 6, "--out", "without", cwd=home)
    files = [home / name / "checkpoints/00000006/model.safetensors" for name in ("with", "without")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert load_file(files[0])


def test_the_best_survives_a_resumption(home: Path) -> None:
    flags = ("--eval-every", 2, "--eval-n", 16, "--out", "run")
    ok(*ARGS, "--steps", 4, *flags, cwd=home)
    first = json.loads((home / "run/run.json").read_text())["best"]
    ok(*ARGS, "--steps", 8, *flags, cwd=home)
    second = json.loads((home / "run/run.json").read_text())["best"]
    assert [s["step"] for s in lines(home / "run")] == [2, 4, 6, 8]
    assert second["fid"] <= first["fid"]
    assert (home / f"run/checkpoints/{second['step']:08d}").is_dir()


def test_auto_stays_within_its_share_of_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    class Alone:
        leads = True

        def any_of(self, flag: bool) -> bool:
            return flag

    clock = [100.0]
    monkeypatch.setattr(tracking.time, "monotonic", lambda: clock[0])
    context: Any = type("Context", (), {"runtime": Alone()})()
    nothing: Any = None
    tracker = tracking.Tracker("auto", 64, nothing, nothing, context, cost=3.0, begun=100.0)

    def measure(*_: Any) -> None:
        clock[0] += 4.0

    monkeypatch.setattr(tracker, "_measure", measure)
    scored = 0
    for _ in range(1000):
        clock[0] += 1.0
        assert not tracker.due(1, saving=False)
        if tracker.due(1, saving=True):
            tracker.score(nothing, nothing)
            scored += 1
    elapsed = clock[0] - 100.0
    assert scored >= 10
    assert 0.04 * elapsed < tracker.spent <= 0.05 * elapsed


def test_what_cannot_be_is_said_before_anything_is_written(home: Path) -> None:
    assert "--eval-every sometimes" in fails(2, *ARGS, "--eval-every", "sometimes", cwd=home)
    assert "--eval-extractor clasifier" in fails(
        2, *ARGS, "--eval-every", 2, "--eval-extractor", "clasifier", "--quiet", "--out", "never", cwd=home
    )
    assert not (home / "never").exists() or not list((home / "never").glob("checkpoints/*"))
