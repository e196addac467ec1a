"""Housekeeping of the user's caches: what killed processes left, what is damaged, what cannot be written."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from sagan_cli.errors import SaganError
from sagan_cli.files import TEMPORARY

_STALE_AFTER = 3600
"""Seconds without a write after which a half-written entry has no writer any more."""


def sweep(folder: Path) -> None:
    """Remove what killed processes left half-written."""
    for left in folder.glob(f"{TEMPORARY}*"):
        try:
            touched = max(p.stat().st_mtime for p in (left, *left.iterdir()))
        except OSError:
            continue  # its owner finished or removed it just now
        if touched < time.time() - _STALE_AFTER:
            shutil.rmtree(left, ignore_errors=True)


def discard(path: Path) -> None:
    """Take a damaged entry away in one step, so that no other process sees it half-removed.

    Raises:
        SaganError: the cache cannot be written.
    """
    aside = path.with_name(f"{TEMPORARY}damaged-{os.getpid()}-{time.time_ns()}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return  # another process was faster
    except OSError as e:
        raise unwritable(path, e.strerror or str(e)) from e
    shutil.rmtree(aside, ignore_errors=True)


def unwritable(path: Path, reason: str) -> SaganError:
    """The error for a cache that cannot be written, with the way out."""
    return SaganError(f"{path}: the cache cannot be written ({reason}): set SAGAN_CACHE to a folder that can")
