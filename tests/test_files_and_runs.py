"""Atomic writing, run directories, and what survives a crash."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from sagan_cli import runs
from sagan_cli.errors import SaganError, UsageError
from sagan_cli.files import write_atomic, write_directory, write_stream
from sagan_cli.runs import Run


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    write_atomic(file, b"old")

    def fail(f: object) -> None:
        f.write(b"half")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_stream(file, fail)
    assert file.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def half(work: Path) -> None:
        (work / "one").write_text("1")
        raise RuntimeError("crash")

    with pytest.raises(RuntimeError):
        write_directory(tmp_path / "d", half)
    assert names(tmp_path) == []
    assert write_directory(tmp_path / "d", lambda work: (work / "one").write_text("1"))
    assert not write_directory(tmp_path / "d", lambda work: (work / "two").write_text("2"))
    assert names(tmp_path) == ["d"]
    assert names(tmp_path / "d") == ["one"]


def test_an_unwritable_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SaganError, match="cannot be written"):
        write_atomic(tmp_path / "file" / "x", b"")


def test_run_directories_are_numbered_and_never_shared(tmp_path: Path) -> None:
    assert runs.create(tmp_path, "a b/ü-sagan32").path.name == "001-a-b-sagan32"
    made: list[Path] = []
    threads = [threading.Thread(target=lambda: made.append(runs.create(tmp_path, "x").path)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 8


def test_metrics_survive_a_cut_line_and_rewind(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for step in (10, 20, 30):
        run.append_metrics({"step": step})
    with (tmp_path / "metrics.jsonl").open("a") as f:
        f.write('{"step": 40, "d_lo')
    run.rewind_metrics(20)
    assert [m["step"] for m in run.metrics()] == [10, 20]
    run.append_metrics({"step": 30})
    assert [m["step"] for m in run.metrics()] == [10, 20, 30]


def test_one_process_trains_in_a_run(tmp_path: Path) -> None:
    with (
        Run(tmp_path).lock(),
        pytest.raises(SaganError, match="another process is training here"),
        Run(tmp_path).lock(),
    ):
        raise AssertionError("unreachable")
    with Run(tmp_path).lock():
        pass


def test_finding_the_newest_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="sagan train"):
        runs.newest(tmp_path / "runs")
    for i, name in enumerate(("002-b", "001-a")):
        run = Run(tmp_path / name)
        run.path.mkdir()
        run.write({"status": "training"})
        os.utime(run.path / "run.json", (i + 1, i + 1))
    assert runs.newest(tmp_path).path.name == "001-a"


@pytest.mark.parametrize(
    ("text", "says"), [("{", "damaged"), (json.dumps({"format": 99}), "run format 99"), ("[]", "run format None")]
)
def test_a_foreign_run_json_is_named(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(SaganError, match=says):
        runs.open_run(tmp_path)
    with pytest.raises(SaganError, match="not a run directory"):
        Run(tmp_path / "elsewhere").read()
