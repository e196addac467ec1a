"""The command `sagan import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sagan_cli import console
from sagan_cli.commands.options import Json, Quiet
from sagan_cli.importing.formats import AUTO, FORMATS, convert, require_format


def import_(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The generator's .pth: a state dict, alone or in a training checkpoint."),
    ],
    format_: Annotated[
        str,
        typer.Option(
            "--format", metavar="NAME", help=f"{', '.join(FORMATS)}; auto recognises the names of the tensors."
        ),
    ] = AUTO,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Run directory; default runs/NNN-<format>-<arch><size>.")
    ] = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Import a generator trained with another project.

    The run can be sampled, scored, visualized and exported. It cannot be trained, because the file has no discriminator
    and no optimiser state. Only tensors are read from the file, never code.

    Examples:

      sagan import G_ema.pth

      sagan import model=G-best-weights-step=920000.pth --format studiogan --out runs/studio

      sagan eval-fid runs/studio --data imagenet/val
    """
    console.set_quiet(quiet)
    require_format(format_)

    from sagan_cli.importing.foreign import read
    from sagan_cli.importing.imported_run import checked, require_empty, write

    if out is not None:
        require_empty(out)
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
