"""The house rules about imports, read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "sagan_cli"
FILES = sorted(PACKAGE.rglob("*.py"))

FLOOR = {"__init__", "__version__", "resume", "contracts", "errors", "files", "geometry", "plugins", "runs", "config"}
"""No torch: every package may import these."""
ALLOWED = {
    "ops": set(),
    "objectives": {"ops"},
    "model": {"ops"},
    "data": {"ops"},
    "quadrupeds": {"data"},
    "loggers": {"console"},
    "diagnosis": {"console"},
    "engine": {"loggers", "model", "objectives", "data", "ops"},
    "generators": {"engine"},
    "export": {"attention", "engine", "evaluation", "model", "data", "ops"},
    "importing": {"engine", "model", "data", "ops"},
    "evaluation": {"generators", "engine", "model", "data", "ops"},
    "attention": {"generators", "engine", "evaluation", "data", "ops", "console"},
    "ablation": {"attention", "objectives", "evaluation", "engine", "model", "data", "ops", "console"},
    "api": {"evaluation", "engine", "data", "generators", "console"},
    "commands": {
        "api",
        "ablation",
        "attention",
        "evaluation",
        "importing",
        "export",
        "generators",
        "engine",
        "data",
        "console",
        "diagnosis",
        "testing",
    },
}
"""Package -> packages that it may import, besides itself and the floor."""
FOREIGN = {"evaluation/extractors/weights.py", "importing/foreign.py"}
"""The files that read .pth files of others, tensors only."""
TALKERS = {"cli", "console", "commands"}
"""What may be imported by `cli` and `commands` alone."""


def room(path: Path) -> str:
    """Folder of a file, or the file's own name on the ground floor."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


def imports(path: Path) -> set[str]:
    """Second part of every `sagan_cli.x` that a file imports, anywhere in it, `if TYPE_CHECKING` included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "sagan_cli" else [f"sagan_cli.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        else:
            continue
        found |= {n.split(".")[1] for n in names if n.startswith("sagan_cli.")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    here = room(path)
    for name in imports(path):
        if here in ALLOWED and name != here and name not in FLOOR:
            assert name in ALLOWED[here], f"{path.name} in {here} imports {name}"


def test_the_ground_floor_leans_on_nothing_above() -> None:
    for path in FILES:
        if path.parent == PACKAGE and path.stem not in ("cli", "__main__", "__init__", "generators", "api"):
            assert not imports(path) & {"commands", "engine", "model", "evaluation", "data", "ops"}, path.name


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_console_prints_and_only_the_seams_touch_the_world(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    if path.relative_to(PACKAGE).as_posix() in FOREIGN:
        calls = [n for n in calls if not (ast.unparse(n.func) == "torch.load" and _tensors_only(n))]
    called = {ast.unparse(n.func) for n in calls}
    banned = {"print", "pickle.load", "torch.load"}
    if path.name != "cli.py":
        banned.add("sys.exit")
    if room(path) != "testing" and path.name != "build.py":
        banned.add("pickle.loads")  # the kit tries it on the author's own object, a worker on what its parent sent
    assert not called & banned
    for module in ("sys.stdout", "sys.stderr"):
        if module in text:
            assert path.name in ("console.py", "cli.py", "torchvision_sets.py", "registry.py"), path.name


def _tensors_only(call: ast.Call) -> bool:
    """Whether a call says weights_only=True, in so many words."""
    return any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in call.keywords)


def test_files_stay_small() -> None:
    for path in FILES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 420, path.name


def test_every_file_says_what_it_is() -> None:
    for path in FILES:
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
