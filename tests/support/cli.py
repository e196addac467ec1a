"""`sagan` as a user runs it, from bytes in to bytes out and an exit code.

`sagan` calls the program's own entry in this process, which saves loading PyTorch a hundred times; `process` starts a
real one, for what only a process shows: signals, pipes, start-up.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from unittest import mock

TINY = ("--width", "2", "--latent", "4", "--batch", "4", "--device", "cpu", "--precision", "fp32")
"""A network that trains in milliseconds a step."""

Done = subprocess.CompletedProcess[bytes]


def sagan(*args: object, cwd: Path, env: dict[str, str] | None = None) -> Done:
    """Run it to its end in this process."""
    from sagan_cli.cli import run

    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    argv = [str(a) for a in args]
    with (
        chdir(cwd),
        mock.patch.object(sys, "stdout", out),
        mock.patch.object(sys, "stderr", err),
        mock.patch.object(sys, "argv", ["sagan", *argv]),
        mock.patch.dict(os.environ, env or {}),
    ):
        code = run(argv)
    return Done(argv, code, out.buffer.getvalue(), err.buffer.getvalue())  # type: ignore[attr-defined]


def command(*args: object) -> list[str]:
    """The same as words for a process."""
    return [sys.executable, "-m", "sagan_cli", *map(str, args)]


def process(*args: object, cwd: Path, stdin: bytes | None = None) -> Done:
    """Run it to its end in a process of its own."""
    return subprocess.run(command(*args), cwd=cwd, input=stdin, capture_output=True, timeout=300, check=False)


def ok(*args: object, cwd: Path, env: dict[str, str] | None = None) -> bytes:
    """Its standard output, after checking that it succeeded."""
    done = sagan(*args, cwd=cwd, env=env)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def fails(code: int, *args: object, cwd: Path) -> str:
    """Its one line of complaint, after checking the exit code, the silence of stdout, and that it is one line."""
    done = sagan(*args, cwd=cwd)
    text = done.stderr.decode()
    assert done.returncode == code, (done.returncode, text)
    assert done.stdout == b""
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    assert lines[0].startswith("sagan")
    return lines[0]
