"""The command `sagan shapes-sheet`: a contact sheet of the dataset, one row per class."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import typer

SAGAN_PLUGIN_API = 1


def sheet(
    out: Annotated[str, typer.Argument(help="PNG file to write; - for stdout.", metavar="FILE")],
    columns: Annotated[int, typer.Option(help="Images per class.", min=1, max=100)] = 8,
    size: Annotated[int, typer.Option(help="Side of an image in pixels.", min=8, max=1024)] = 64,
    split: Annotated[str, typer.Option(help="train or test.")] = "train",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Draw a contact sheet of the dataset `shapes`, one row per class."""
    import numpy as np
    from PIL import Image

    from sagan_cli import console
    from sagan_cli.errors import UsageError
    from sagan_cli.files import write_atomic
    from sagan_shapes import CLASS_NAMES, build

    if out == "-":
        console.refuse_terminal("shapes-sheet -")
    elif Path(out).exists() and not force:
        raise UsageError(f"{out} exists: choose another name, or add --force")
    shapes = build(Path(), split=split, height=size, width=size)
    rows = [
        np.concatenate([shapes.read(label + column * len(CLASS_NAMES))[0] for column in range(columns)], axis=1)
        for label in range(len(CLASS_NAMES))
    ]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(rows)).save(buffer, "PNG")
    if out == "-":
        console.write_bytes(buffer.getvalue())
    else:
        write_atomic(Path(out), buffer.getvalue())
        console.result(out)
