"""How `sagan` ends: one line per failure, the right exit code, and quiet where quiet is due."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from support.fake_plugins import REPOSITORY, call, environment, install

from sagan_cli import cli
from sagan_cli.plugins import registry

COMMANDS = """
import errno, sys
import typer
from sagan_cli import console
from sagan_cli.errors import DataError

def flood():
    "Write more than a pipe holds."
    for i in range(200_000):
        console.result("a line of the result")

def full(): raise OSError(errno.ENOSPC, "No space left on device", "grid.png")
def stop(): raise KeyboardInterrupt
def data(): raise DataError("--data x: no\\npictures")
def wrong(): return {}["missing"]
def number() -> int: return 7
def leave(): raise typer.Exit(5)
def exits(): console.result("kept"); sys.exit(1)
def size(n: int): console.result(str(n + 1))
def odd(x: "no such annotation"): pass
"""
NAMES = ("flood", "full", "stop", "data", "wrong", "number", "leave", "exits", "size", "odd")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plugins that provide commands, most of which come to grief, and one that must never be imported."""
    folder = tmp_path_factory.mktemp("site")
    points = "".join(f"{name} = fake_commands:{name}\n" for name in NAMES)
    install(folder, "fake-commands", f"[sagan.commands]\n{points}", fake_commands=COMMANDS)
    points = "[sagan.commands]\nghost = fake_ghost:run\n[sagan.datasets]\nghost = fake_ghost:build\n"
    install(folder, "fake-ghost", points, fake_ghost="raise RuntimeError('imported')\n")
    return folder


@pytest.mark.parametrize(
    ("args", "code", "line"),
    [
        (("data",), 1, "sagan: error: --data x: no pictures"),
        (("full",), 1, "sagan: error: grid.png: No space left on device; free some space"),
        (("wrong",), 1, "sagan: error: command 'wrong' of fake-commands 1.0 failed: KeyError: 'missing'"),
        (("ghost",), 1, "sagan: error: command 'ghost' of fake-ghost 1.0 cannot be imported: RuntimeError: imported"),
        (("odd",), 1, "sagan: error: command 'odd' of fake-commands 1.0 is not a Typer function: "),
        (("size",), 2, "sagan size: error: missing argument 'n'"),
        (("size", "x"), 2, "sagan size: error: invalid value for 'n'"),
        (("stop",), 130, ""),
        (("number",), 0, ""),
        (("leave",), 5, ""),
    ],
)
def test_every_end_is_one_line_and_its_exit_code(site: Path, args: tuple[str, ...], code: int, line: str):
    done = call(*args, path=site)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == (1 if line else 0), done.stderr


def test_a_plugin_command_works_and_its_results_arrive(site: Path):
    assert call("size", "41", path=site).stdout == "42\n"
    done = call("exits", path=site)
    assert (done.returncode, done.stdout, done.stderr) == (1, "kept\n", "")


def test_debug_shows_the_traceback_and_the_line(site: Path):
    done = call("wrong", path=site, SAGAN_DEBUG="1")
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("sagan: error: command 'wrong'")


def test_a_bug_of_ours_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def broken(kind: str) -> list[str]:
        raise TypeError("an\nunexpected thing")

    monkeypatch.setattr(registry, "entries", broken)
    assert cli.run(["plugins"]) == 1
    assert capsys.readouterr() == (
        "",
        "sagan: bug: TypeError: an unexpected thing (set SAGAN_DEBUG=1 for the traceback)\n",
    )


def test_an_accelerator_out_of_memory_names_the_way_out(capsys: pytest.CaptureFixture[str]):
    error = type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory")
    assert cli.explain(error) == 1
    assert "lower --batch" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error(site: Path):
    process = subprocess.Popen(
        [sys.executable, "-m", "sagan_cli", "flood"],
        env=environment(site),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=30), said) == (1, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_one_line():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sagan_cli", "plugins"],
            env=environment(REPOSITORY), stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "sagan: error: No space left on device; free some space\n")


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_ctrl_c_ends_quietly(tmp_path: Path):
    source = "import time\ndef wait():\n    print('ready', flush=True)\n    time.sleep(30)\n"
    install(tmp_path, "fake-wait", "[sagan.commands]\nwait = fake_wait:wait\n", fake_wait=source)
    process = subprocess.Popen(
        [sys.executable, "-m", "sagan_cli", "wait"],
        env=environment(tmp_path),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "")


@pytest.mark.parametrize("stream", ["2>&-", "2>/dev/full", "2>&- <&-"])
def test_messages_that_cannot_be_written_do_not_stop_the_work(stream: str, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(8):
        Image.new("RGB", (16, 16), (30 * i, 0, 0)).save(folder / f"{i}.png")
    sagan = f"{sys.executable} -m sagan_cli"
    tiny = f"train --data images --size 16 --width 2 --latent 4 --batch 4 --device cpu --steps 2 --out run {stream}"
    done = subprocess.run(["bash", "-c", f"{sagan} {tiny}"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (0, "run\n")
    assert (tmp_path / "run/checkpoints/00000002/checkpoint.json").exists()
    assert subprocess.run(["bash", "-c", f"{sagan} train --steps x {stream}"], cwd=tmp_path).returncode == 2
    assert subprocess.run(["bash", "-c", f"{sagan} info nothing {stream}"], cwd=tmp_path).returncode == 2


def test_a_file_never_takes_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    code = (
        "from sagan_cli import console; console.open_standard_streams()\n"
        "with open('out', 'w') as f: assert f.fileno() > 2, f.fileno()\n"
        "import os; os.write(2, b'a message of a library')"
    )
    done = subprocess.run(["bash", "-c", f'{sys.executable} -c "$0" 2>&- <&- >&-', code], cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "out").read_bytes() == b""
