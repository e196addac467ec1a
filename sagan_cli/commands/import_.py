"""`sagan import`: a generator that another project trained becomes a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sagan_cli import console
from sagan_cli.errors import UsageError, closest
from sagan_cli.importing.naming import AUTO, FORMATS


def import_(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The generator's .pth: a state dict, alone or in a training checkpoint."),
    ],
    format_: Annotated[
        str,
        typer.Option("--format", metavar="NAME", help=f"{', '.join(FORMATS)}; auto goes by the tensors' names."),
    ] = AUTO,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Run directory; default runs/NNN-<format>-<arch><size>.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only on stderr.")] = False,
) -> None:
    """Import a generator trained with another project.

    It samples, is scored, shown and exported like any other. It cannot be trained: the file holds no discriminator and
    no optimiser of ours. Only tensors are read from the file, never code.

    Examples:

      sagan import G_ema.pth

      sagan import model=G-best-weights-step=920000.pth --format studiogan --out runs/studio

      sagan eval-fid runs/studio --data imagenet/val
    """
    console.set_quiet(quiet)
    if format_ != AUTO and format_ not in FORMATS:
        raise UsageError(f"--format {format_}: choose {', '.join((AUTO, *FORMATS))}{closest(format_, FORMATS)}")

    from sagan_cli.importing.formats import convert
    from sagan_cli.importing.reading import read
    from sagan_cli.importing.writing import checked, vacant, write

    if out is not None:
        vacant(out)
    loaded = read(file)
    found, converted = convert(loaded, format_)
    state = checked(converted, file)
    run = write(loaded, found, converted, state, out)
    spec, checkpoint = converted.spec, run.checkpoint_steps()[-1]
    attention = ", ".join(map(str, spec.attn_at)) or "none"
    console.note(f"read   {file}: {FORMATS[found]}, {len(loaded.tensors)} tensors, step {loaded.step}")
    console.note(
        f"model  {converted.arch} {spec.height}x{spec.width}x{spec.channels}, width {spec.base_width}, latent "
        f"{spec.latent}, {spec.num_classes or 'no'} classes, attention at {attention}"
    )
    if json_:
        console.emit_json({
            "run": str(run.path), "checkpoint": str(checkpoint), "format": found, "step": loaded.step,
            "arch": converted.arch, "height": spec.height, "width": spec.width, "channels": spec.channels,
            "base_width": spec.base_width, "latent": spec.latent, "num_classes": spec.num_classes,
            "attn_at": list(spec.attn_at), "options": dict(spec.options), "sha256": loaded.sha256,
        })  # fmt: skip
    else:
        console.result(str(run.path))
        console.note(f"next: sagan sample {run.path} -n 64 --out grid.png")
