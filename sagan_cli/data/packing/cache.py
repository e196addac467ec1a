"""The directory of packs: where it is, and whether there is room."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from sagan_cli.errors import SaganError
from sagan_cli.files import unwritable


def cache_dir(environ: Mapping[str, str] | None = None) -> Path:
    """SAGAN_CACHE, else XDG_CACHE_HOME/sagan, else ~/.cache/sagan; empty values count as absent."""
    env = os.environ if environ is None else environ
    if own := env.get("SAGAN_CACHE"):
        return Path(own).expanduser()
    shared = env.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "sagan"


def ready(cache: Path) -> Path:
    """The cache directory, made where it does not exist.

    Raises:
        SaganError: it cannot be made; the message names SAGAN_CACHE.
    """
    try:
        for name in ("packs", "fingerprints"):
            (cache / name).mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise unwritable(cache, e.strerror or str(e)) from e
    return cache


def check_room(packs: Path, needed: int) -> None:
    """Refuse before the first picture what would fail after the last.

    Raises:
        SaganError: the directory cannot be written, or its disk lacks `needed` bytes.
    """
    if not os.access(packs, os.W_OK):
        raise unwritable(packs, "permission denied")
    free = shutil.disk_usage(packs).free
    if needed > free:
        raise SaganError(
            f"{packs}: packing needs {needed / 1e9:.1f} GB where {free / 1e9:.1f} GB are free: "
            "make room, or set SAGAN_CACHE to a folder on another disk"
        )
