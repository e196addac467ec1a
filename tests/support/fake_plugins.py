"""Plugins that were never built (a module, and the metadata that pip would have written), and `sagan` run with them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import sagan_cli

REPOSITORY = Path(sagan_cli.__file__).parents[1]


def install(folder: Path, package: str, entry_points: str, *, version: str = "1.0", **modules: str) -> None:
    """Put a distribution on `folder`: `entry_points` is entry_points.txt, `modules` are name=source."""
    info = folder / f"{package.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\nSummary: {package} tests\n"
    )
    (info / "entry_points.txt").write_text(textwrap.dedent(entry_points))
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(source))


def call(*args: str, path: Path | None = None, code: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `sagan`, or `code`, in a fresh process that finds the plugins of `path`."""
    places = [str(p) for p in (path, REPOSITORY) if p]
    program = ["-c", code] if code else ["-m", "sagan_cli"]
    return subprocess.run(
        [sys.executable, *program, *args],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places), **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


def environment(path: Path) -> dict[str, str]:
    """Variables under which a process finds the plugins of `path`."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(path), str(REPOSITORY)))}
