"""The documents say what is true of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.cli import ok

from sagan_cli import __version__
from sagan_cli.config.presets import PRESETS
from sagan_cli.config.schema import SETTINGS

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("plugins/*/README.md")])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_pictures_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text) + re.findall(r'src="([^"]+)"', text):
        if not target.startswith(("http:", "https:")):
            assert (path.parent / target).exists(), f"{path.name} points to {target}"


def test_the_map_names_rooms_that_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text[text.index("## To change X, open Y") : text.index("## Plugins")]
    rows = [line for line in table.splitlines() if line.startswith("| ") and "`" in line]
    assert len(rows) > 10
    for row in rows:
        folder = ROOT
        for name in re.findall(r"`([^`]+)`", row.split("|")[2]):
            # "`sagan_cli/a/b.py`, `c.py`" means c.py beside b.py.
            path = ROOT / name if name.startswith("sagan_cli") else folder / name
            assert path.exists(), f"the map sends to {name}"
            folder = path.parent


def test_the_map_leaves_out_no_room() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    packages = [path.parent.name for path in (ROOT / "sagan_cli").glob("*/__init__.py")]
    assert len(packages) > 10
    for room in packages:
        assert f"{room}/" in text


def test_help_shows_every_setting_and_its_default(tmp_path: Path) -> None:
    text = " ".join(ok("train", "--help", cwd=tmp_path).decode().split())
    for s in SETTINGS.values():
        assert f"--{s.flag}" in text
        assert s.help.split(",")[0].split(";")[0] in text
    for preset in PRESETS:
        assert preset in text


def test_the_version_is_told_once() -> None:
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"version: {__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_presets_are_valid_settings() -> None:
    for name, (text, values) in PRESETS.items():
        assert text, name
        assert set(values) <= set(SETTINGS), name
