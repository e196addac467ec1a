"""The documents say what is true of the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from support.cli import ok

from sagan_cli import __version__
from sagan_cli.config.presets import PRESETS
from sagan_cli.config.schema import SETTINGS
from sagan_cli.plugins.registry import GROUPS

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


def imported_from_outside() -> set[str]:
    """Files of the package that a file of another package, or of the top level, imports."""
    package = ROOT / "sagan_cli"
    modules = {}
    for path in package.rglob("*.py"):
        if path.name != "__init__.py":
            modules["sagan_cli." + path.relative_to(package).with_suffix("").as_posix().replace("/", ".")] = path
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            rooms = {path.relative_to(package).parts[0]}
            found |= {
                "sagan_cli/" + modules[name].relative_to(package).as_posix()
                for name in names
                if name in modules and modules[name].relative_to(package).parts[0] not in rooms
            }
    return found


def test_the_map_names_every_module_that_is_imported_from_outside_its_package() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text[text.index("## To change X, open Y") : text.index("## Plugins")]
    found = imported_from_outside()
    assert len(found) > 60
    assert [name for name in sorted(found) if f"`{name}`" not in table] == []


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


def test_the_table_of_plugin_groups_is_that_of_the_registry() -> None:
    text = (ROOT / "docs/plugins.md").read_text(encoding="utf-8")
    assert [group for group in GROUPS.values() if f"`{group}`" not in text and f'"{group}"' not in text] == []
