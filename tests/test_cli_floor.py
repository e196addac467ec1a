"""`sagan` as a process: what it imports and how long it takes to start, its exit codes, and one line per failure."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import install

import sagan_cli
from sagan_cli import cli, console, registry
from sagan_cli.commands.loading import real_command

REPOSITORY = Path(sagan_cli.__file__).parents[1]
HEAVY = ("torch", "torchvision", "torch_fidelity", "numpy", "PIL", "safetensors")
REPORT = """
import sys
from sagan_cli.cli import main
try:
    main(sys.argv[1:])
finally:
    print("IMPORTED", *sorted(sys.modules), file=sys.stderr)
"""


def call(*args: str, path: Path | None = None, code: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `sagan`, or `code`, in a fresh process that finds the plugins of `path`."""
    places = [str(p) for p in (path, REPOSITORY) if p]
    program = ["-c", code] if code else ["-m", "sagan_cli"]
    return subprocess.run(
        [sys.executable, *program, *args],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places), **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


def imported(*args: str) -> set[str]:
    done = call(*args, code=REPORT)
    assert "Traceback" not in done.stderr, done.stderr
    return set(done.stderr.split("IMPORTED", 1)[1].split())


def command_modules() -> list[str]:
    """The built-in commands that this version has."""
    names = registry.names("commands")
    return [n for n in names if importlib.util.find_spec(f"sagan_cli.commands.{n}")]


@pytest.mark.parametrize(
    "args",
    [(), ("--help",), ("-h",), ("--version",), ("plugins",), ("plugins", "--json"), ("no-such-command",)],
    ids=str,
)
def test_the_floor_imports_nothing_heavy(args: tuple[str, ...]):
    modules = imported(*args)
    assert "sagan_cli.cli" in modules
    assert not modules & {*HEAVY, "rich", "pydantic"}


@pytest.mark.parametrize("name", ["train", "sample", "plugins"])
def test_the_help_of_a_command_imports_nothing_heavy(name: str):
    if name not in command_modules():
        pytest.skip(f"this version has no {name}")
    modules = imported(name, "--help")
    assert f"sagan_cli.commands.{name}" in modules
    assert not modules & {*HEAVY, "rich"}


def test_starting_takes_at_most_three_times_typer_and_rich():
    def seconds(*args: str) -> float:
        begun = time.perf_counter()
        subprocess.run([sys.executable, *args], env=env, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - begun

    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    measured = {"base": ("-c", "import typer, rich")}
    measured |= {flag: ("-m", "sagan_cli", flag) for flag in ("--help", "--version", "plugins")}
    # Interleaved, so that a busy machine is busy for all of them.
    rounds = [{name: seconds(*args) for name, args in measured.items()} for _ in range(5)]
    base, *times = (statistics.median(r[name] for r in rounds) for name in measured)
    assert max(times) <= 3 * base, dict(zip(measured, (base, *times), strict=True))


def test_root_help_and_version():
    shown = call("--help")
    assert shown.returncode == 0
    assert shown.stderr == ""
    listed = [
        line.split()[0] for line in shown.stdout.partition("Commands:\n")[2].splitlines() if line.startswith("  ")
    ]
    assert listed[: len(command_modules())] == command_modules()
    assert "Exit codes: 0 done, 1 failed, 2 wrong command line, 130 interrupted" in shown.stdout
    version = call("--version").stdout.splitlines()
    assert version[0] == f"sagan {sagan_cli.__version__}"
    assert "PyTorch " in version[1]


def test_no_arguments_is_help_on_stderr_and_a_wrong_command_line():
    done = call()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: sagan")


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("trian",), "sagan: error: no such command 'trian' (did you mean 'train'?); see 'sagan --help'"),
        (("--nope",), "sagan: error: no such option --nope; see 'sagan --help'"),
        (
            ("plugins", "--chek"),
            "sagan plugins: error: no such option --chek (did you mean --check?); see 'sagan plugins --help'",
        ),
        (("plugins", "x"), "sagan plugins: error: got unexpected extra argument(s) (x); see 'sagan plugins --help'"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_2(args: tuple[str, ...], line: str):
    done = call(*args)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line + "\n")


def test_every_command_and_option_has_help():
    for name in command_modules():
        command = real_command(registry.find("commands", name))
        assert command.help, name
        for param in command.params:
            assert getattr(param, "help", None), f"sagan {name} {param.name}"


@pytest.mark.skipif("train" not in command_modules(), reason="this version has no train")
def test_the_help_of_train_is_grouped():
    lines = call("train", "--help").stdout.splitlines()
    headings = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert len(headings) >= 4
    assert headings[-1] == "Options:"


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


def test_root_help_lists_plugin_commands_without_importing_them(site: Path):
    done = call("--help", path=site)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ghost" in done.stdout
    assert "fake-ghost tests [fake-ghost]" in done.stdout


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
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(site), str(REPOSITORY)))},
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
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "sagan: error: No space left on device; free some space\n")


def test_plugins_lists_everything_while_every_plugin_is_broken(site: Path):
    done = call("plugins", path=site)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert rows[0] == ["KIND", "NAME", "PACKAGE", "VERSION", "BUILT-IN"]
    assert ["datasets", "ghost", "fake-ghost", "1.0", "no"] in rows
    assert ["architectures", "sagan", "sagan-cli", sagan_cli.__version__, "yes"] in rows


def test_check_says_which_are_broken(tmp_path: Path):
    install(tmp_path, "fake-ghost", "[sagan.datasets]\nghost = fake_ghost:build\n", fake_ghost="import nothing_such\n")
    done = call("plugins", "--check", "--json", path=tmp_path, SAGAN_PLUGINS="fake-ghost,absent")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert (report["schema_version"], report["api"]) == (1, 1)
    assert report["faults"] == ["SAGAN_PLUGINS names 'absent': no plugin package of that name is installed"]
    wrong = [p for p in report["plugins"] if p["status"] == "error"]
    assert [(p["kind"], p["name"], p["package"], p["builtin"]) for p in wrong] == [
        ("datasets", "ghost", "fake-ghost", False)
    ]
    assert "No module named 'nothing_such'" in wrong[0]["error"]
    assert {p["status"] for p in report["plugins"] if p["builtin"]} == {"ok"}
    assert call("plugins", "--check", path=tmp_path, SAGAN_PLUGINS="").returncode == 0


def test_completion_offers_commands_without_importing_plugins(site: Path):
    done = call(path=site, _SAGAN_COMPLETE="complete_bash", COMP_WORDS="sagan g", COMP_CWORD="1")
    assert done.stdout.split() == ["ghost"], done.stderr


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_ctrl_c_ends_quietly(tmp_path: Path):
    source = "import time\ndef wait():\n    print('ready', flush=True)\n    time.sleep(30)\n"
    install(tmp_path, "fake-wait", "[sagan.commands]\nwait = fake_wait:wait\n", fake_wait=source)
    process = subprocess.Popen(
        [sys.executable, "-m", "sagan_cli", "wait"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(REPOSITORY)))},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "")


def test_console_is_the_only_file_that_writes():
    """Of the package's own code; a `print` anywhere is refused by ruff as well."""
    own = Path(console.__file__)
    for file in own.parent.rglob("*.py"):
        if file != own:
            text = file.read_text()
            assert not re.search(r"\b(sys\.)?(stdout|stderr)\.(buffer\.)?write|\bprint\(|\becho\(", text), file
