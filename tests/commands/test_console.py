"""What reaches standard output and standard error, on a pipe and on a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sagan_cli
from sagan_cli import console
from sagan_cli.contracts import RunInfo
from sagan_cli.loggers import Progress

pty = pytest.importorskip("pty", reason="pseudo-terminals are POSIX")


def progress(steps: int, every: float = console.EVERY) -> Progress:
    """Return the progress logger of a run of so many steps."""
    return Progress(RunInfo(Path("run"), {}, steps), every)


REPOSITORY = Path(sagan_cli.__file__).parents[1]


@pytest.fixture(autouse=True)
def loud():
    console.set_quiet(False)
    yield
    console.set_quiet(False)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of day as a list of one number, for the test to move."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def on_terminal(code: str, *, stdout: bool = False) -> tuple[int, str, str]:
    """Run code with standard error (or standard output) on a terminal: (exit code, other stream, terminal's text)."""
    master, slave = pty.openpty()
    streams = {"stdout": slave, "stderr": subprocess.PIPE} if stdout else {"stdout": subprocess.PIPE, "stderr": slave}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm", "COLUMNS": "100"},
        text=True,
        **streams,
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # Linux's end of a terminal whose other side is closed
            break
        if not part:
            break
        shown += part
    os.close(master)
    out, err = process.communicate(timeout=30)
    return process.returncode, err if stdout else out, shown.decode()


def test_messages_go_to_stderr_and_results_to_stdout(capsys):
    console.note("a note")
    console.warn("careful")
    console.error("two\nlines", "sagan train")
    console.result("the result")
    console.emit_json({"path": Path("a/é"), "n": 1.5})
    out, err = capsys.readouterr()
    assert out == 'the result\n{"path": "a/é", "n": 1.5}\n'
    assert err == "a note\nsagan: warning: careful\nsagan train: error: two lines\n"


def test_json_that_no_parser_reads_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        console.emit_json({"loss": float("nan")})


def test_quiet_leaves_errors_and_results(capsys, clock):
    console.set_quiet(True)
    console.note("a note")
    console.warn("careful")
    with console.progress("packing", 10) as tick:
        clock[0] += 60
        tick(5)
    display = progress(2)
    clock[0] += 60
    display.step(1, 3.0, 4.0, {})
    display.end(1, True)
    console.error("wrong")
    console.result("right")
    assert capsys.readouterr() == ("right\n", "sagan: error: wrong\n")


def test_bytes_go_to_a_pipe(capsysbinary):
    console.result("first")
    console.write_bytes(b"\x89PNG\r\n")
    assert capsysbinary.readouterr().out == b"first\n\x89PNG\r\n"


def test_bytes_are_refused_by_a_terminal():
    code = """
from sagan_cli import console
from sagan_cli.errors import UsageError
try:
    console.write_bytes(b"x")
except UsageError as e:
    console.note(str(e))
"""
    _, said, shown = on_terminal(code, stdout=True)
    assert said == "--out -: standard output is a terminal; name a file, or add a pipe or > FILE\n"
    assert shown == ""


def test_progress_in_a_pipe_is_a_line_every_few_seconds(capsys, clock):
    with console.progress("packing", 12) as tick:
        for done in range(1, 13):
            clock[0] += 1
            tick(done)
    assert capsys.readouterr().err.splitlines() == [
        "packing 5/12  ETA 0:07",
        "packing 10/12  ETA 0:02",
        "packing 12/12",
    ]


def test_progress_takes_a_better_total(capsys, clock):
    with console.progress("packing", 10) as tick:
        clock[0] += 6
        tick(3, 12)
    assert capsys.readouterr().err == "packing 3/12  ETA 0:18\n"


def test_short_work_says_nothing(capsys, clock):
    with console.progress("packing", 3) as tick:
        clock[0] += 1
        tick(3)
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal_is_a_bar_and_leaves_stdout_alone():
    code = """
from sagan_cli import console
with console.progress("packing", 4) as tick:
    tick(2)
    console.result("a result")
    console.note("a note")
    tick(4)
"""
    status, out, shown = on_terminal(code)
    assert (status, out) == (0, "a result\n")
    assert "packing" in shown
    assert "4/4" in shown
    assert "a note" in shown


def test_training_in_a_pipe_is_a_line_every_few_seconds_and_the_last(capsys, clock):
    display = progress(12)
    for step in range(1, 13):
        clock[0] += 1
        display.step(step, 512.4, 12.0 - step, {"d_loss": 0.98765, "gamma_g32": 0.012})
    display.end(12, True)
    display.end(12, True)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["5/12", "10/12", "12/12"]
    assert lines[0] == "step 5/12 (42%)  512 image/s  ETA 0:07  d_loss 0.9877  gamma_g32 0.012"


def test_the_last_line_is_not_told_twice(capsys, clock):
    display = progress(3, every=1)
    clock[0] += 2
    display.step(3, 1.25, 0.0, {})
    display.end(3, True)
    assert capsys.readouterr().err == "step 3/3 (100%)  1.2 image/s  ETA 0:00\n"


def test_training_that_never_stepped_says_nothing(capsys):
    progress(3).end(-1, False)
    assert capsys.readouterr() == ("", "")


def test_training_on_a_terminal_redraws_and_leaves_the_last_state():
    code = """
import time
from sagan_cli import console
from pathlib import Path
from sagan_cli.contracts import RunInfo
from sagan_cli.loggers import Progress
display = Progress(RunInfo(Path("run"), {}, 5))
for step in range(1, 6):
    values = {"d_loss": 1.5, "g_loss": 0.5, "gamma_g32": 0.25, "gamma_d32": 0.125}
    display.step(step, 400.0, 5.0 - step, values)
    time.sleep(0.1)
console.note("saved")
console.result("runs/001")
display.end(5, True)
"""
    status, out, shown = on_terminal(code)
    assert (status, out) == (0, "runs/001\n")
    for part in (
        "step 5/5 (100%)",
        "400 image/s",
        "ETA 0:00",
        "d_loss 1.5",
        "gamma_g32 0.25",
        "gamma_d32 0.125",
        "saved",
    ):
        assert part in shown, part
    assert "\x1b[" in shown, "redrawn in place"


def test_a_dumb_terminal_gets_lines(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    assert not console.terminal()
    monkeypatch.setenv("TERM", "xterm")
    assert console.terminal()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (65, "1:05"),
        (59.6, "1:00"),
        (3725, "1:02:05"),
        (float("inf"), "??"),
        (float("nan"), "??"),
        (-1, "??"),
    ],
)
def test_clock(seconds: float, text: str):
    assert console.clock(seconds) == text
