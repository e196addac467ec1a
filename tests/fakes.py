"""Plugins that were never built: a module and the metadata that pip would have written beside it."""

from __future__ import annotations

import textwrap
from pathlib import Path


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
