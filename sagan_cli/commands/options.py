"""Options that several commands share, each with one name and one help text."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors on stderr.")]
Raw = Annotated[bool, typer.Option("--raw", help="Use the trained weights instead of their EMA.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace existing files.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", envvar="SAGAN_DEVICE")]
