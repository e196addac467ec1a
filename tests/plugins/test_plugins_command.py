"""`sagan plugins`, and plugin commands in help and completion, with plugins that must not be imported for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.fake_plugins import call, install

import sagan_cli


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that raises as soon as it is imported."""
    folder = tmp_path_factory.mktemp("site")
    points = "[sagan.commands]\nghost = fake_ghost:run\n[sagan.datasets]\nghost = fake_ghost:build\n"
    install(folder, "fake-ghost", points, fake_ghost="raise RuntimeError('imported')\n")
    return folder


def test_root_help_lists_plugin_commands_without_importing_them(site: Path):
    done = call("--help", path=site)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ghost" in done.stdout
    assert "fake-ghost tests [fake-ghost]" in done.stdout


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
