"""The directory of packs: where it is, whether there is room, and what killed processes left in it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from sagan_cli.errors import SaganError
from sagan_cli.files import TEMPORARY

_STALE_AFTER = 3600
"""Seconds without a write after which a half-written pack has no writer any more."""


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
        raise _unwritable(cache, e.strerror or str(e)) from e
    return cache


def check_room(packs: Path, needed: int) -> None:
    """Refuse before the first picture what would fail after the last.

    Raises:
        SaganError: the directory cannot be written, or its disk lacks `needed` bytes.
    """
    if not os.access(packs, os.W_OK):
        raise _unwritable(packs, "permission denied")
    free = shutil.disk_usage(packs).free
    if needed > free:
        raise SaganError(
            f"{packs}: packing needs {needed / 1e9:.1f} GB where {free / 1e9:.1f} GB are free: "
            "make room, or set SAGAN_CACHE to a folder on another disk"
        )


def sweep(packs: Path) -> None:
    """Remove what killed processes left half-written."""
    for left in packs.glob(f"{TEMPORARY}*"):
        try:
            touched = max(p.stat().st_mtime for p in (left, *left.iterdir()))
        except OSError:
            continue  # its owner finished or removed it just now
        if touched < time.time() - _STALE_AFTER:
            shutil.rmtree(left, ignore_errors=True)


def discard(path: Path) -> None:
    """Take a damaged pack away in one step, so that no other process sees it half-removed.

    Raises:
        SaganError: the cache cannot be written.
    """
    aside = path.with_name(f"{TEMPORARY}damaged-{os.getpid()}-{time.time_ns()}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return  # another process was faster
    except OSError as e:
        raise _unwritable(path, e.strerror or str(e)) from e
    shutil.rmtree(aside, ignore_errors=True)


def _unwritable(path: Path, reason: str) -> SaganError:
    return SaganError(f"{path}: the cache cannot be written ({reason}): set SAGAN_CACHE to a folder that can")
