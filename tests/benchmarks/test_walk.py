"""A reader who follows a command from its first function to its result opens few files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import image_files
from support.benchmarks_path import BENCHMARKS
from support.cli import ok


def walked(*args: object, cwd: Path) -> int:
    """Files outside the networks that a command runs through, as `benchmarks/walk.py` counts them."""
    command = [sys.executable, str(BENCHMARKS / "walk.py"), *map(str, args), "-q"]
    done = subprocess.run(command, cwd=cwd, env=dict(os.environ), capture_output=True, text=True, timeout=300)
    found = re.search(r"^(\d+) files, ", done.stderr, re.MULTILINE)
    assert found, done.stderr
    return int(found[1])


@pytest.mark.slow
def test_walks_are_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGAN_CACHE", str(tmp_path / "cache"))
    image_files.fill(tmp_path / "data", {"a": 12, "b": 12})
    flags = ("--data", "data", "--size", 32, "--width", 4, "--batch", 4, "--steps", 2)
    # It ends at the first batch. Six files are the recipe, the mirror test, the strength of augmentation, the held-out
    # images, the diagnosis and the checks of the samples.
    assert walked("train", *flags, "--out", "walked", cwd=tmp_path) <= 34
    ok("train", *flags, "--out", "run", "-q", cwd=tmp_path)
    assert walked("sample", "run", "-n", 4, "--out", "grid.png", cwd=tmp_path) <= 14
    evaluation = ("eval-fid", "run", "--extractor", "classifier", "-n", 20, "--metrics", "fid")
    assert walked(*evaluation, cwd=tmp_path) <= 33  # with the self-check of the extractor, once per machine
    assert walked(*evaluation, cwd=tmp_path) <= 31
