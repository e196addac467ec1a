"""Names of exports: formats, file names, and how an exported generator is recognised. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from sagan_cli.contracts import Exporter
from sagan_cli.errors import PluginError, UsageError, closest
from sagan_cli.plugins import registry

CARD = "README.md"


def exporter(name: str) -> Exporter:
    """Return the export format of a name.

    Raises:
        UsageError: an unknown name.
        PluginError: a plugin's format that cannot be loaded.
    """
    found: Exporter = registry.load("exporters", name)
    return found


def _endings() -> dict[str, str]:
    """Return format -> file name ending, "" for a folder; formats that cannot be loaded are left out."""
    found: dict[str, str] = {}
    for entry in registry.entries("exporters"):
        try:
            row: Exporter = registry.load_entry(entry)
        except PluginError:
            continue
        found.setdefault(entry.name, Path(row.default_name).suffix)
    return found


def format_of(out: str | None, given: str | None) -> str:
    """Return the format that `--out` and `--format` mean.

    Raises:
        UsageError: they contradict each other, or leave it open.
    """
    known = registry.names("exporters")
    if given is not None and given not in known:
        raise UsageError(f"--format {given}: choose one of {', '.join(known)}{closest(given, known)}")
    if out is None or out == "-":
        found = given or "safetensors"
        if out == "-" and exporter(found).folder:
            raise UsageError(f"--format {found} is a folder, which cannot go to stdout: name one with --out")
        return found
    suffix = "" if out.endswith("/") else Path(out).suffix.lower()
    endings = _endings()
    by_suffix = next((name for name, ending in endings.items() if ending and ending == suffix), None)
    if given is None:
        if by_suffix is None:
            files = ", ".join(ending for ending in endings.values() if ending)
            folders = " or ".join(name for name, ending in endings.items() if not ending)
            raise UsageError(f"--out {out}: add --format {folders} for a folder, or end it in one of {files}")
        return by_suffix
    if by_suffix not in (None, given):
        raise UsageError(f"--format {given} contradicts --out {out}")
    return given


def refuse_existing(out: Path, format_: str, force: bool) -> None:
    """Refuse to replace anything without `force`, and ever to replace a folder by a file or a file by a folder.

    Raises:
        UsageError: naming what is there.
    """
    if exporter(format_).folder:
        if out.exists() and not out.is_dir():
            raise UsageError(f"--out {out}: is a file, and --format {format_} makes a folder")
        if out.is_dir() and any(out.iterdir()) and not force:
            raise UsageError(f"--out {out}: is there already and not empty; --force replaces its files")
        return
    if out.is_dir():
        raise UsageError(f"--out {out}: is a directory; name a file in it")
    for path in (out, card_beside(out)):
        if path.exists() and not force:
            raise UsageError(f"--out {out}: {path} exists already; --force replaces it")


def card_beside(out: Path) -> Path:
    """The model card of a file: `model.onnx.md` of `model.onnx`, so that each format of a model has its own."""
    return out.with_name(f"{out.name}.md")
