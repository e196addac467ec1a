"""Values that look acceptable and are not: one line that names the flag, and nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli import fails, sagan
from support.image_files import fill


@pytest.mark.parametrize(("command", "text"), [
    (("sample", "--out", ""), "--out: empty; name a file or a folder, or - for standard output"),
    (("sample", "--out", " "), "--out: empty"),
    (("sample", "--seeds", ",".join(f"{i}000000-{i}999999" for i in range(1, 13)), "--out", "x"), "than 10,000,000"),
    (("eval-fid", "--max", "nan"), "--max nan: not a number that a score can be compared with"),
    (("eval-fid", "--min", "inf"), "--min inf: not a number"),
    (("train", "--eval-every", "²"), "--eval-every ²: a number of steps, auto or off"),
    (("train", "--device", "cuda:²"), "--device cuda:²: choose auto, cpu, cuda, cuda:N or mps"),
])  # fmt: skip
def test_a_wrong_value_is_refused(command: tuple[str, ...], text: str, tmp_path: Path) -> None:
    assert text in fails(2, *command, cwd=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unknown_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "images", {"": 4})
    monkeypatch.setenv("SAGAN_BATCHES", "7")
    monkeypatch.setenv("SAGAN_CACHE", str(tmp_path / "cache"))
    done = sagan("train", "--data", "images", "--batch", 4, "--print-config", cwd=tmp_path)
    assert done.returncode == 0
    said = done.stderr.decode().splitlines()
    assert [line for line in said if "SAGAN" in line] == [
        "SAGAN_BATCHES is no variable of sagan (did you mean 'SAGAN_BATCH'?); it has no effect"
    ]
