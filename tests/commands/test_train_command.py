"""`sagan train` as a user runs it: what it writes, how it resumes, how it stops, what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from support.cli import TINY, command, fails, ok, sagan
from support.idx_files import idx_folder, picture_folder


@pytest.fixture(scope="module")
def idx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return idx_folder(tmp_path_factory.mktemp("data") / "idx")


def tiny(idx: Path, *more: object) -> tuple[object, ...]:
    return ("train", "--data", idx, "--size", 16, *TINY, *more)


def weights(run: Path, step: int) -> dict[str, bytes]:
    """Every tensor of a checkpoint, as bytes."""
    folder = run / "checkpoints" / f"{step:08d}"
    files = ("model.safetensors", "state.safetensors")
    return {k: v.tobytes() for name in files for k, v in load_file(folder / name).items()}


def test_a_run_directory_says_all_of_itself(idx: Path, tmp_path: Path) -> None:
    out = ok(
        *tiny(idx, "--steps", 6, "--log-every", 2, "--grid-every", 3, "--save-every", 2, "--keep", 2), cwd=tmp_path
    )
    assert out == b"runs/001-idx-sagan16\n"  # stdout carries the result and nothing else
    run = tmp_path / "runs/001-idx-sagan16"
    assert sorted(p.name for p in run.iterdir()) == [
        ".lock", "checkpoints", "config.toml", "metrics.jsonl", "run.json", "samples",
    ]  # fmt: skip
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["00000004", "00000006"]
    assert sorted(p.name for p in (run / "samples").iterdir()) == [
        f"step-{n:08d}.png" for n in (0, 3, 6)
    ]  # fmt: skip
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["step"] == 6
    assert record["config"]["train"]["batch"] == 4
    assert record["sources"]["train.batch"] == "--batch"
    assert record["sources"]["train.beta1"] == "default"
    assert record["model"]["num_classes"] == 3
    assert record["model"]["attn_at"] == [8]
    assert record["data"]["count"] == 24
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [m["step"] for m in metrics] == [2, 4, 6]
    short = tmp_path / "short"
    ok(*tiny(idx, "--steps", 1, "--log-every", 50, "--out", short), cwd=tmp_path)
    assert len((short / "metrics.jsonl").read_text().splitlines()) == 1  # the last step is always told
    wanted = {"d_loss", "g_loss", "d_real", "d_fake", "gamma_g8", "gamma_d8", "images_per_second", "memory_mib"}
    assert wanted <= set(metrics[-1])
    assert tomllib.loads((run / "config.toml").read_text())["train"]["steps"] == 6


@pytest.mark.parametrize("flags", [(), ("--unconditional",), ("--d-steps", 2), ("--attn-at", "none", "--flip")])
def test_resuming_gives_the_bits_of_the_uninterrupted_run(flags: tuple[object, ...], idx: Path, tmp_path: Path) -> None:
    command = tiny(idx, *flags, "--steps", 7, "--save-every", 3, "--keep", 9)
    ok(*command, "--out", "whole", cwd=tmp_path)
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    for step in (6, 7):
        shutil.rmtree(tmp_path / f"killed/checkpoints/{step:08d}")
    ok(*command, "--out", "killed", cwd=tmp_path)
    assert weights(tmp_path / "whole", 7) == weights(tmp_path / "killed", 7)
    assert weights(tmp_path / "whole", 7) != weights(tmp_path / "whole", 3)


def test_more_steps_of_constant_rates_give_the_bits_of_the_longer_run(idx: Path, tmp_path: Path) -> None:
    flags = ("--preset", "laptop-hinge")
    whole = tiny(idx, *flags, "--steps", 7, "--save-every", 3, "--keep", 9)
    ok(*whole, "--out", "whole", cwd=tmp_path)
    ok(*tiny(idx, *flags, "--steps", 3), "--out", "parts", cwd=tmp_path)
    ok(*tiny(idx, *flags, "--steps", 5), "--out", "parts", cwd=tmp_path)
    ok("train", "--resume", "parts", "--steps", 7, cwd=tmp_path)
    assert weights(tmp_path / "whole", 3) == weights(tmp_path / "parts", 3)
    assert weights(tmp_path / "whole", 7) == weights(tmp_path / "parts", 7)


def test_the_same_command_again_resumes_and_another_begins_anew(idx: Path, tmp_path: Path) -> None:
    assert ok(*tiny(idx, "--steps", 2), cwd=tmp_path) == b"runs/001-idx-sagan16\n"
    again = sagan(*tiny(idx, "--steps", 3), cwd=tmp_path)
    assert again.stdout == b"runs/001-idx-sagan16\n"
    assert b"resumed" in again.stderr
    assert b"packing" not in again.stderr
    done = sagan(*tiny(idx, "--steps", 3), cwd=tmp_path)
    assert b"--new begins another" in done.stderr
    assert ok(*tiny(idx, "--steps", 2, "--seed", 1), cwd=tmp_path) == b"runs/002-idx-sagan16\n"
    assert ok(*tiny(idx, "--steps", 2, "--new"), cwd=tmp_path) == b"runs/003-idx-sagan16\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_step_and_saves(number: int, code: int, idx: Path, tmp_path: Path) -> None:
    args = tiny(
        idx, "--preset", "laptop-hinge", "--steps", 100_000, "--log-every", 1, "--save-every", 100_000, "--out", "run"
    )
    process = subprocess.Popen(command(*args), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") >= 3):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr.decode()
    assert b"Traceback" not in stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "interrupted"
    step = record["step"]
    assert (tmp_path / "run" / "checkpoints" / f"{step:08d}" / "checkpoint.json").is_file()
    # What was saved goes on as if nothing had happened.
    ok(*tiny(idx, "--preset", "laptop-hinge", "--steps", step + 2, "--out", "run"), cwd=tmp_path)
    ok(*tiny(idx, "--preset", "laptop-hinge", "--steps", step + 2, "--out", "whole"), cwd=tmp_path)
    assert weights(tmp_path / "run", step + 2) == weights(tmp_path / "whole", step + 2)


def test_a_run_goes_on_from_another_directory(idx: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    ok("train", "--data", idx.name, "--size", 16, *TINY, "--steps", 1, "--out", tmp_path / "run", cwd=idx.parent)
    ok("train", "--resume", tmp_path / "run", "--steps", 2, cwd=elsewhere)
    assert (tmp_path / "run/checkpoints/00000002").is_dir()
    sources = json.loads((tmp_path / "run/run.json").read_text())["sources"]
    # Each value keeps the place that it first came from.
    assert [sources[k] for k in ("train.batch", "train.beta1", "train.beta2", "train.loss", "train.steps")] == [
        "--batch", "default", "preset laptop", "recipe", "--steps",
    ]  # fmt: skip


def test_settings_come_from_flags_variables_files_and_are_printed(idx: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[train]\nsteps = 11\nbatch = 12\n[run]\nkeep = 7\n")
    env = {**os.environ, "SAGAN_BATCH": "13"}
    args = ("train", "--config", "c.toml", "--set", "model.latent=9", "--preset", "laptop", "--print-config")
    printed = ok(*args, cwd=tmp_path, env=env)
    values = tomllib.loads(printed.decode())
    assert (values["train"]["steps"], values["train"]["batch"], values["run"]["keep"], values["model"]["latent"]) == (
        11,
        13,
        7,
        9,
    )
    (tmp_path / "again.toml").write_bytes(printed)
    second = ok("train", "--config", "again.toml", "--print-config", cwd=tmp_path)
    assert tomllib.loads(second.decode()) == values


def test_dry_run_tells_the_plan_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("SAGAN_CACHE", str(cache))
    data = picture_folder(tmp_path / "photos")
    before = sorted(tmp_path.rglob("*"))
    args = ("train", "--data", data, "--size", 128, "--width", 64, "--batch", 4, "--qk-norm", "none", "--dry-run")
    plan = json.loads(ok(*args, "--json", cwd=tmp_path))
    assert plan["d_parameters"] == 39_463_618 - 1000 * 1024  # SAGAN-128 without its class embedding
    assert plan["pictures"] == 12
    assert plan["weights_mib"] > 1000
    assert plan["activations_mib"] > 100
    assert "parameters   G" in ok(*args, cwd=tmp_path).decode()
    assert sorted(p for p in tmp_path.rglob("*") if cache not in (p, *p.parents)) == before


def test_json_is_the_only_thing_on_stdout(idx: Path, tmp_path: Path) -> None:
    result = json.loads(ok(*tiny(idx, "--steps", 1, "--json"), cwd=tmp_path))
    assert result["finished"] is True
    assert (tmp_path / result["checkpoint"] / "model.safetensors").is_file()
    assert (tmp_path / result["grid"]).is_file()


def test_a_photo_folder_trains_and_its_second_start_packs_nothing(tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "celeba", count=9)
    first = json.loads(ok("train", "--data", data, "--size", "16x24", *TINY, "--steps", 1, "--json", cwd=tmp_path))
    assert "16x24" in first["run"]
    second = sagan("train", "--data", data, "--size", "16x24", *TINY, "--steps", 2, cwd=tmp_path)
    assert second.returncode == 0
    assert b"packing" not in second.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--data", "nowhere/at/all"), "--data nowhere/at/all"),
        (("--data", "quadruped"), "did you mean 'quadrupeds'?"),
        (("--size", "33"), "--size 33"),
        (("--size", "big"), "--size big"),
        (("--attn-at", "20"), "--attn-at 20"),
        (("--batch", "0"), "--batch"),
        (("--arch", "sagn"), "sagn"),
        (("--device", "tpu"), "--device tpu"),
        (("--device", "cuda:99"), "--device cuda:99"),
        (("--preset", "fast"), "--preset fast"),
        (("--config", "none.toml"), "none.toml"),
        (("--set", "train.stepz=1"), "train.stepz"),
        (("--resume", "nothing"), "nothing"),
        (("--steps", "1", "--kimg", "1"), "--kimg"),
        (("--stepz", "1"), "--stepz"),
        (("extra",), "extra"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_2(args: tuple[str, ...], says: str, tmp_path: Path) -> None:
    assert says in fails(2, "train", *args, cwd=tmp_path)
    assert not (tmp_path / "runs").exists()


def test_a_run_is_not_turned_into_another(idx: Path, tmp_path: Path) -> None:
    ok(*tiny(idx, "--steps", 1, "--out", "run"), cwd=tmp_path)
    line = fails(2, *tiny(idx, "--steps", 2, "--out", "run", "--seed", 5), cwd=tmp_path)
    assert "--seed 0, not 5" in line
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("precious")
    assert "--out other" in fails(2, *tiny(idx, "--steps", 2, "--out", "other"), cwd=tmp_path)
    assert (tmp_path / "other" / "thesis.txt").read_text() == "precious"


def test_a_damaged_checkpoint_is_found_and_named(idx: Path, tmp_path: Path) -> None:
    ok(*tiny(idx, "--steps", 2, "--save-every", 1, "--out", "run"), cwd=tmp_path)
    file = tmp_path / "run/checkpoints/00000002/state.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    done = sagan(*tiny(idx, "--steps", 3, "--out", "run"), cwd=tmp_path)
    assert done.returncode == 1
    assert b"state.safetensors: damaged or replaced" in done.stderr
    assert b"Traceback" not in done.stderr


def test_fewer_pictures_than_a_batch(idx: Path, tmp_path: Path) -> None:
    done = sagan("train", "--data", idx, "--size", 16, "--batch", 25, "--steps", 1, cwd=tmp_path)
    assert done.returncode == 1
    assert b"--batch 25" in done.stderr
    assert not list(tmp_path.iterdir())  # nothing half-made is left


@pytest.mark.parametrize("layout", ["empty", "single", "nested", "bad"])
def test_data_that_cannot_be_trained_on_is_one_line_and_leaves_nothing(layout: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    work = tmp_path / "work"
    work.mkdir()
    if layout == "empty":
        data.mkdir()
    elif layout == "single":
        picture_folder(data / "cats")
    elif layout == "nested":
        picture_folder(data / "train" / "cats")
        picture_folder(data / "train" / "dogs")
    else:
        picture_folder(data)
        (data / "000.jpg").write_bytes(b"")
    line = fails(1, "train", "--data", data, "--size", 16, *TINY, "--steps", 1, cwd=work)
    assert {"empty": str(data), "single": "--unconditional", "nested": "train", "bad": "--max-bad"}[layout] in line
    assert not list(work.iterdir())
    if layout == "bad":
        ok("train", "--data", data, "--size", 16, *TINY, "--steps", 1, "--max-bad", 0.2, cwd=work)


def test_divergence_stops_the_run_and_keeps_the_last_good_checkpoint(idx: Path, tmp_path: Path) -> None:
    done = sagan(*tiny(idx, "--steps", 50, "--out", "run", "--g-lr", "1e38", "--log-every", 1), cwd=tmp_path)
    assert done.returncode == 1
    assert b"diverged at step" in done.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"
