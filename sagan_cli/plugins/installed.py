"""Whether any installed distribution can have entry points of ours: a glance, where `importlib.metadata` is a look.

Importing `importlib.metadata` takes a third as long as importing typer, and few installations have plugins.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def may_have(prefix: str) -> bool:
    """Whether an `entry_points.txt` on sys.path has `prefix` in it.

    False is certain. Whatever is out of the ordinary gives True, and leaves it to `importlib.metadata`: a file or an
    unreadable folder on sys.path, a file that cannot be read or is no UTF-8, a finder that knows other distributions.
    """
    for finder in sys.meta_path:
        if hasattr(finder, "find_distributions") and getattr(finder, "__name__", "") != "PathFinder":
            return True
    try:
        return any(_holds(Path(folder), prefix) for folder in dict.fromkeys(sys.path))
    except (OSError, ValueError):
        return True


def _holds(folder: Path, prefix: str) -> bool:
    """Whether a distribution in this folder has it; a folder that is not there has none.

    Raises:
        OSError, ValueError: it cannot be told.
    """
    try:
        names = os.listdir(folder)  # noqa: PTH208 - texts: a Path for each of hundreds would take longer than the rest
    except FileNotFoundError:
        return False
    for name in names:
        if name.lower().endswith((".dist-info", ".egg-info")) or name.lower() == "egg-info":
            try:
                text = (folder / name / "entry_points.txt").read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                continue
            if prefix in text.decode("utf-8"):
                return True
    return False
