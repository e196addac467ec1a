"""How exports are named: formats, file names, and what is an exported generator by its looks. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from sagan_cli import runs
from sagan_cli.errors import UsageError, closest

MODEL = "model.safetensors"
"""The weights in a hub folder; a checkpoint directory has a file of that name as well."""
CARD = "README.md"
FORMATS = {
    "safetensors": "model.safetensors", "onnx": "model.onnx", "pt2": "model.pt2", "hf": "model-hf", "web": "model-web",
}  # fmt: skip
"""Format -> where it goes without --out."""
FOLDERS = ("hf", "web")
"""Formats that are a folder."""


def exported_file(path: Path) -> Path | None:
    """The file of an exported generator: itself, or the one in its hub folder; None for anything else."""
    if path.is_dir():
        return None if (path / runs.CHECKPOINT_FACTS).exists() or not (path / MODEL).is_file() else path / MODEL
    return path if path.suffix.lower() == ".safetensors" and path.is_file() and not in_checkpoint(path) else None


def in_checkpoint(path: Path) -> bool:
    """Whether a path is a file of a checkpoint directory."""
    return path.is_file() and (path.parent / runs.CHECKPOINT_FACTS).is_file()


def format_of(out: str | None, given: str | None) -> str:
    """The format that `--out` and `--format` come to.

    Raises:
        UsageError: they contradict each other, or leave it open.
    """
    if given is not None and given not in FORMATS:
        raise UsageError(f"--format {given}: choose one of {', '.join(FORMATS)}{closest(given, FORMATS)}")
    if out is None or out == "-":
        found = given or "safetensors"
        if out == "-" and found in FOLDERS:
            raise UsageError(f"--format {found} is a folder, which cannot go to stdout: name one with --out")
        return found
    suffix = Path(out).suffix.lower().lstrip(".")
    by_suffix = suffix if suffix in FORMATS and suffix not in FOLDERS and not out.endswith("/") else None
    if given is None:
        if by_suffix is None:
            raise UsageError(
                f"--out {out}: add --format hf or web for a folder, or end it in .safetensors, .onnx or .pt2"
            )
        return by_suffix
    if by_suffix not in (None, given):
        raise UsageError(f"--format {given} contradicts --out {out}")
    return given


def refuse_existing(out: Path, format_: str, force: bool) -> None:
    """Refuse to replace anything without `force`, and ever to replace a folder by a file or a file by a folder.

    Raises:
        UsageError: naming what is there.
    """
    if format_ in FOLDERS:
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
