"""Runs whose files are damaged or cannot be written: nothing is lost, and nothing wrong is saved or reported."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from support.cli import fails, ok, sagan
from support.image_files import fill

from sagan_cli import files
from sagan_cli.engine import checkpoint
from sagan_cli.engine.runtime import Runtime
from sagan_cli.errors import CheckpointError
from sagan_cli.runs import Run

TINY = ("--size", 16, "--width", 2, "--latent", 4, "--batch", 4, "--device", "cpu", "--save-every", 2, "-q")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("images"), {"": 12})


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of four steps with the checkpoints of steps 2 and 4."""
    home = tmp_path_factory.mktemp("home")
    ok("train", "--data", images, *TINY, "--steps", 4, "--log-every", 1, "--out", "run", cwd=home)
    return Run(home / "run")


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    """A copy to damage."""
    shutil.copytree(trained.path, tmp_path / "run")
    return Run(tmp_path / "run")


def test_a_half_last_line_does_not_swallow_the_next_record(run: Run) -> None:
    file = run.path / "metrics.jsonl"
    lines = len(run.metrics())
    with file.open("ab") as f:
        f.write(b'{"step": 4, "d_lo')
    run.append_metrics({"step": 5, "note": "kept"})
    assert run.metrics()[-1] == {"step": 5, "note": "kept"}
    assert len(run.metrics()) == lines + 1


@pytest.mark.parametrize("line", [b"\xff\xfe", b"7", b"[1]", b'{"step": "four"}', b"{", b"null"])
def test_a_damaged_line_is_skipped(run: Run, line: bytes, tmp_path: Path) -> None:
    lines = run.metrics()
    with (run.path / "metrics.jsonl").open("ab") as f:
        f.write(line + b"\n")
    assert run.metrics() == lines
    ok("info", run.path, cwd=tmp_path)
    ok("train", "--resume", run.path, "--steps", 6, "-q", cwd=tmp_path)


@pytest.mark.parametrize("change", [
    lambda r: [r], lambda r: {**r, "config": None, "sources": 3}, lambda r: {**r, "config": [1]},
    lambda r: {**r, "best": 5}, lambda r: {**r, "format": 99},
])  # fmt: skip
def test_a_damaged_record_is_named_and_blocks_no_other_run(
    run: Run, images: Path, change: Callable[[dict[str, Any]], Any], tmp_path: Path
) -> None:
    record = run.path / "run.json"
    record.write_text(json.dumps(change(json.loads(record.read_text()))))
    assert str(record) in fails(1, "train", "--resume", run.path, cwd=tmp_path)
    (tmp_path / "runs").mkdir()
    shutil.move(run.path, tmp_path / "runs/001-images-sagan16")
    ok("train", "--data", images, *TINY, "--steps", 1, cwd=tmp_path)
    assert len(list((tmp_path / "runs").iterdir())) == 2


@pytest.mark.parametrize(("key", "value"), [
    ("spec.base_width", 10_000_000), ("spec.latent", 2**63), ("spec.height", 0), ("spec.num_classes", 1.5),
    ("sha256", [1]), ("data", "x"), ("step", "x"), ("spec", None),
])  # fmt: skip
def test_damaged_facts_are_refused_at_once(run: Run, key: str, value: Any) -> None:
    file = run.checkpoint_steps()[-1] / "checkpoint.json"
    facts = json.loads(file.read_text())
    table = facts
    *sections, name = key.split(".")
    for section in sections:
        table = table[section]
    table[name] = value
    del facts["digest"]  # as in checkpoints of earlier versions
    file.write_text(json.dumps(facts))
    begun = time.monotonic()
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.read_facts(file.parent)
    assert time.monotonic() - begun < 1


def test_a_checkpoint_belongs_to_its_run_seed_and_step(run: Run, images: Path, tmp_path: Path) -> None:
    ok("train", "--data", images, *TINY, "--steps", 4, "--seed", 7, "--out", "other", cwd=tmp_path)
    last, backup = run.checkpoints / "00000004", tmp_path / "backup"
    last.rename(backup)
    resume = ("train", "--resume", run.path, "--steps", 6, "-q")
    shutil.copytree(tmp_path / "other/checkpoints/00000004", last)
    assert f"{last}: is of run " in fails(1, *resume, cwd=tmp_path)
    shutil.rmtree(last)
    shutil.copytree(run.checkpoints / "00000002", last)
    assert f"{last}: is of step 00000002, and this run's is 00000004" in fails(1, *resume, cwd=tmp_path)
    facts = json.loads((last / "checkpoint.json").read_text())
    (last / "checkpoint.json").write_text(json.dumps({**facts, "step": 4}))
    assert "changed after it was written" in fails(1, *resume, cwd=tmp_path)
    shutil.rmtree(last)
    backup.rename(last)
    ok(*resume, cwd=tmp_path)


def test_folders_that_are_no_checkpoints_are_ignored(run: Run, tmp_path: Path) -> None:
    for name in ("²", "٣x", "notes"):
        (run.checkpoints / name).mkdir()
        (run.checkpoints / name / "checkpoint.json").write_text("{}")
    assert [p.name for p in run.checkpoint_steps()] == ["00000002", "00000004"]
    ok("sample", run.path, "-n", 1, "--out", tmp_path / "x.png", cwd=tmp_path)


def test_a_broken_last_checkpoint_is_made_again(run: Run, trained: Run, tmp_path: Path) -> None:
    last = run.checkpoints / "00000004"
    (last / "checkpoint.json").unlink()
    (last / "model.safetensors").write_bytes(b"half")
    told = json.loads(ok("train", "--resume", run.path, "-q", "--json", cwd=tmp_path))
    assert told["finished"]
    for name in ("model.safetensors", "state.safetensors"):
        assert (last / name).read_bytes() == (trained.checkpoints / "00000004" / name).read_bytes()
    assert checkpoint.read_facts(last).step == 4
    assert not list(run.checkpoints.glob(".tmp-*"))


def test_diverged_weights_are_never_saved(images: Path, tmp_path: Path) -> None:
    said = fails(1, "train", "--data", images, *TINY, "--steps", 4, "--g-lr", "1e30", "--out", "run", cwd=tmp_path)
    assert "diverged at step" in said
    assert "lower --d-lr and --g-lr" in said
    assert Run(tmp_path / "run").checkpoint_steps() == []


def test_weights_follow_the_umask(trained: Run) -> None:
    for path in (trained.checkpoints / "00000004").iterdir():
        assert path.stat().st_mode & 0o777 == (trained.path / "run.json").stat().st_mode & 0o777, path


def test_a_full_disk_is_named_and_the_last_checkpoint_remains(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    said = fails(1, "train", "--resume", run.path, "--steps", 6, "-q", cwd=tmp_path)
    assert f"{run.checkpoints / '00000006'}: cannot be written: no space left on the disk" in said
    monkeypatch.undo()
    assert [p.name for p in run.checkpoint_steps()] == ["00000002", "00000004"]
    assert sagan("train", "--resume", run.path, "--steps", 6, "-q", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("flags", [
    ("--set", "model.options.x=1"), ("--graph", "on"), ("--width", 99_999_999), ("--attn-at", 5), ("--accumulate", 3),
    ("--loss", "nope"), ("--logger", "nope"), ("--device", "cuda:77"), ("--holdout", 12), ("--batch", 13),
    ("--eval-every", "²"), ("--eval-every", 2, "--eval-extractor", "nope"), ("--eval-extractor", "nope"),
])  # fmt: skip
def test_a_refused_setting_leaves_nothing(images: Path, flags: tuple[object, ...], tmp_path: Path) -> None:
    done = sagan("train", "--data", images, *TINY, "--steps", 1, *flags, "--out", "run", cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert len(done.stderr.decode().strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_run_that_never_began_is_taken_over(images: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()
    (tmp_path / "run" / ".tmp-abc").write_bytes(b"half")
    ok("train", "--data", images, *TINY, "--steps", 2, "--out", "run", cwd=tmp_path)
    shutil.rmtree(tmp_path / "run" / "checkpoints")  # killed before its first checkpoint
    ok("train", "--data", images, *TINY, "--steps", 2, "--seed", 5, "--out", "run", cwd=tmp_path)
    assert Run(tmp_path / "run").read()["config"]["train"]["seed"] == 5
    assert "begun with --seed 5" in fails(
        2, "train", "--data", images, *TINY, "--seed", 6, "--out", "run", cwd=tmp_path
    )


def test_a_run_keeps_its_number_of_threads(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run.read()["machine"]["threads"] == torch.get_num_threads() == 1
    runtime = Runtime(torch.device("cpu"), "fp32")
    said: list[str] = []
    used: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4))
    runtime.keep_threads(2, said.append)
    assert said.pop() == "this run began with 2 CPU threads; with 1 its bits differ, not its quality"
    monkeypatch.delenv("OMP_NUM_THREADS")
    for recorded in (2, 1, None, 8):
        runtime.keep_threads(recorded, said.append)
    assert used == [2]
    assert len(said) == 1
    run.update(machine={"threads": 5})
    monkeypatch.undo()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    again = sagan("train", "--resume", run.path, "--steps", 5, cwd=tmp_path)
    assert b"began with 5 CPU threads" in again.stderr


def test_fewer_steps_than_a_run_has_are_refused(run: Run, tmp_path: Path) -> None:
    said = fails(2, "train", "--resume", run.path, "--steps", 3, cwd=tmp_path)
    assert f"--steps 3: {run.path} has 4 steps already: give --steps 4 or more, or another run" in said
    assert run.read()["config"]["train"]["steps"] == 4
    ok("train", "--resume", run.path, "--steps", 4, "-q", cwd=tmp_path)


def test_what_killed_processes_left_is_removed_by_the_next_write(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = files._prefix().rsplit("-", 2)[0]
    left = [tmp_path / f"{host}-{dead.pid}-abc", tmp_path / f"{host}-{dead.pid}-folder"]
    kept = [tmp_path / f"{host}-{os.getpid()}-abc", tmp_path / f".tmp-00000000-{dead.pid}-abc", tmp_path / ".tmp-x"]
    for path in (left[0], *kept):
        path.write_bytes(b"half")
    left[1].mkdir()
    (left[1] / "part").touch()
    files.write_atomic(tmp_path / "new", b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {"new", *(path.name for path in kept)}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_ended_command_leaves_no_temporary_file(run: Run, number: int, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-m", "sagan_cli", "sample", run.path, "-n", "200000", "--out", out / "many.zip"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        begun = time.monotonic()
        while not any(path.stat().st_size for path in out.iterdir()) and time.monotonic() - begun < 60:
            time.sleep(0.05)
        assert [path.name[:5] for path in out.iterdir()] == [".tmp-"]
        process.send_signal(number)
        assert process.wait(timeout=10) == 128 + number
    assert not list(out.iterdir())


def test_a_run_keeps_the_order_of_its_classes(tmp_path: Path) -> None:
    data = fill(tmp_path / "data", {"cat": 4, "dog": 4})
    flags = ("train", "--data", data, *TINY, "--out", "run")
    ok(*flags, "--steps", 2, cwd=tmp_path)
    (data / "dog").rename(data / "ape")
    said = fails(1, *flags, "--steps", 4, cwd=tmp_path)
    assert "run: was begun with the classes cat, dog, and the images now have ape, cat: use --new" in said


def test_class_names_with_odd_spaces_are_exported(tmp_path: Path) -> None:
    data = fill(tmp_path / "data", {"big\u00a0cat": 4, "dog\u2009s": 4})
    ok("train", "--data", data, *TINY, "--steps", 1, "--out", "run", cwd=tmp_path)
    ok("export", "run", "--out", "m.safetensors", "-q", cwd=tmp_path)
    ok("sample", "m.safetensors", "--class", "big\u00a0cat", "-n", 1, "--out", "x.png", cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [b"caf\xe9", "grün 🦊".encode()])
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_paths_of_any_bytes_are_trained_on_and_printed(name: bytes, locale: str, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(name)
    fill(folder / "images", {"": 6})
    env = {**os.environ, "LC_ALL": locale, "PYTHONUTF8": "0"}

    def run(*words: object) -> bytes:
        command = [sys.executable, "-m", "sagan_cli", *map(str, words)]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    out = folder / "run"
    if locale == "C.UTF-8":
        assert run("train", "--data", folder / "images", *TINY, "--steps", 1, "--out", out) == os.fsencode(out) + b"\n"
    else:
        run("train", "--data", folder / "images", *TINY, "--steps", 1, "--out", out)
    run("sample", out, "-n", 1, "--out", folder / "x.png", "-q")
    run("export", out, "--out", folder / "m.safetensors", "-q")
    run("sample", folder / "m.safetensors", "-n", 1, "--out", folder / "y.png", "-q")
    data = json.loads(run("info", out, "--json"))["data"]
    assert data.encode("utf-8", "surrogateescape") == os.fsencode(folder / "images")
