"""`sagan` as a process: what it imports and how long it takes to start, its help, and wrong command lines."""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.fake_plugins import REPOSITORY, call

import sagan_cli
from sagan_cli import console
from sagan_cli.commands.startup import real_command
from sagan_cli.plugins import registry

HEAVY = ("torch", "torchvision", "torch_fidelity", "numpy", "PIL", "safetensors")
REPORT = """
import sys
from sagan_cli.cli import main
try:
    main(sys.argv[1:])
finally:
    print("IMPORTED", *sorted(sys.modules), file=sys.stderr)
"""


def imported(*args: str) -> set[str]:
    done = call(*args, code=REPORT)
    assert "Traceback" not in done.stderr, done.stderr
    return set(done.stderr.split("IMPORTED", 1)[1].split())


def command_modules() -> list[str]:
    """The built-in commands, each of which has a module of its name."""
    names = registry.names("commands")
    return [n for n in names if importlib.util.find_spec(module_of(n))]


def module_of(name: str) -> str:
    """`eval-fid` lives in `eval_fid`, and `import`, a word of Python's, in `import_`."""
    return f"sagan_cli.commands.{name.replace('-', '_')}{'_' if keyword.iskeyword(name) else ''}"


@pytest.mark.parametrize(
    "args",
    [(), ("--help",), ("-h",), ("--version",), ("plugins",), ("plugins", "--json"), ("no-such-command",)],
    ids=str,
)
def test_the_floor_imports_nothing_heavy(args: tuple[str, ...]):
    modules = imported(*args)
    assert "sagan_cli.cli" in modules
    assert not modules & {*HEAVY, "rich", "pydantic"}


@pytest.mark.parametrize("name", command_modules())
def test_the_help_of_a_command_imports_nothing_heavy(name: str):
    modules = imported(name, "--help")
    assert module_of(name) in modules
    assert not modules & {*HEAVY, "rich"}


def test_starting_takes_at_most_twice_typer_and_rich(tmp_path: Path):
    def seconds(*args: str) -> float:
        begun = time.perf_counter()
        subprocess.run([sys.executable, *args], env=env, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - begun

    # Compiled files of their own for all of them, wherever the environment stands and whatever it says of writing them.
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONPYCACHEPREFIX": str(tmp_path)}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    measured = {"base": ("-c", "import typer, rich")}
    measured |= {flag: ("-m", "sagan_cli", flag) for flag in ("--help", "--version", "plugins")}
    # Interleaved, so that a busy machine is busy for all of them; the first round compiles.
    rounds = [{name: seconds(*args) for name, args in measured.items()} for _ in range(8)][1:]
    base, *times = (statistics.median(r[name] for r in rounds) for name in measured)
    assert max(times) <= 2 * base, dict(zip(measured, (base, *times), strict=True))


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


def test_the_help_of_train_is_grouped():
    lines = call("train", "--help").stdout.splitlines()
    headings = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert len(headings) >= 4
    assert headings[-1] == "Options:"


def test_console_is_the_only_file_that_writes():
    """Of the package's own code; a `print` anywhere is refused by ruff as well."""
    own = Path(console.__file__)
    for file in own.parent.rglob("*.py"):
        if file != own:
            text = file.read_text()
            assert not re.search(r"\b(sys\.)?(stdout|stderr)\.(buffer\.)?write|\bprint\(|\becho\(", text), file
