"""`sagan sample`: draw images from a trained generator into a grid, a folder, an archive or a pipe."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from sagan_cli import console
from sagan_cli.commands import startup
from sagan_cli.commands.options import Device, Force, Json, Quiet, Raw
from sagan_cli.errors import UsageError, closest
from sagan_cli.files import write_atomic, write_stream
from sagan_cli.generators import find_model, open_found

if TYPE_CHECKING:
    import numpy as np

    from sagan_cli.engine.sample import Request, Sampler

    Batches = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]


MOST_SEEDS = 10_000_000
LAST_SEED = 10**18


def sample(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN|CHECKPOINT|FILE|-]",
            help="A run or checkpoint, an exported .safetensors or its folder, or - to read one from stdin. "
            "Default: the newest run under runs/.",
        ),
    ] = None,
    n: Annotated[
        int | None, typer.Option("-n", "--count", min=1, max=MOST_SEEDS, help="Number of images (default 64).")
    ] = None,
    out: Annotated[
        str,
        typer.Option(
            metavar="PATH|-", help="A grid (.png, .jpg, .webp), a directory of images, .zip, .npz, or - for stdout."
        ),
    ] = "grid.png",
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="KIND",
            help=f"Output format if the suffix of --out does not give it: {', '.join(FORMATS)} (default png).",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=LAST_SEED, help="First seed (default 0): image i has seed SEED + i.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(metavar="LIST", help="Seeds, such as 0-99,107.")] = None,
    class_: Annotated[
        str | None,
        typer.Option(
            "--class",
            metavar="NAME|INDEX|all",
            help="Class to draw, by name, or by index from 0 if no class has that name; all draws each seed for every "
            "class, one class per row. Default: drawn from the seed.",
        ),
    ] = None,
    truncation: Annotated[
        float | None,
        typer.Option(metavar="T", help="Limit latents to [-T, T]: less variety, fewer failures. Off by default."),
    ] = None,
    columns: Annotated[int | None, typer.Option(min=1, help="Columns of the grid.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Batch size; does not change the images.")] = 64,
    raw: Raw = False,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="fp32, bf16 or auto.")] = "fp32",
    force: Force = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw images from a trained generator.

    Examples:

      sagan sample -n 64 --out grid.png

      sagan sample --class all -n 100 --out kinds.png

      sagan sample --seeds 0-9 --out images/

      sagan export --format safetensors --out - | sagan sample - -n 4 --out -
    """  # fmt: skip
    console.set_quiet(quiet)
    kind = kind_of(out, format_)
    if out == "-":
        console.refuse_terminal()
    if out == "-" and json_:
        raise UsageError("--json and --out - both write to stdout: write the images to a file")
    if out == "-" and kind == "dir":
        raise UsageError("--format dir cannot go to stdout: choose png, zip or npz")
    if truncation is not None and not 0 < truncation < float("inf"):
        raise UsageError(f"--truncation {truncation}: must be above 0")
    if seeds is not None and (n is not None or seed is not None):
        raise UsageError("--seeds cannot be combined with -n and --seed: use one or the other")
    listed = parse_seeds(seeds) if seeds is not None else None
    if out != "-":
        refuse_existing(Path(out), kind, force)
    found = find_model(target)

    from sagan_cli.engine.runtime import open_runtime
    from sagan_cli.engine.sample import pictures

    with open_runtime(device, precision) as runtime:
        sampler = open_found(found, runtime, raw=raw)
        requests, per_row = requests_of(sampler, n, seed or 0, listed, class_)
        names = [_file_name(r, sampler, class_ is not None) for r in requests]
        if kind == "dir":
            refuse_files(Path(out), names, force)
        if target is None:
            console.note(f"sampling {found.parent.parent}, step {sampler.facts.step}")

        def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            drawn = 0
            with console.progress("drawing", len(requests)) as tick:
                for part in pictures(
                    sampler.generator, sampler.spec, requests, runtime, truncation=truncation, batch=batch
                ):
                    yield part
                    tick(drawn := drawn + len(part[0]))

        about = {"step": sampler.facts.step, "weights": sampler.weights, "sha256": sampler.facts.digests}
        if truncation is not None:
            about["truncation"] = truncation
        write(out, kind, batches, requests, names, columns or per_row, about)
    if json_:
        console.emit_json({
            "out": out, "format": kind, "count": len(requests), "seeds": [r.seed for r in requests],
            "classes": list(sampler.class_names), "checkpoint": str(found), "step": sampler.facts.step,
            "weights": sampler.weights, "truncation": truncation,
        })  # fmt: skip
    elif out != "-":
        console.result(out)
    startup.exit_quickly()


def parse_seeds(text: str) -> list[int]:
    """Parse `0-3,7` to [0, 1, 2, 3, 7], in the given order.

    Raises:
        UsageError: the text is no such list, repeats a seed, or has more than MOST_SEEDS seeds.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,18})(?:-(\d{1,18}))?\s*", part)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise UsageError(f"--seeds {text}: write numbers and ranges, as in 0-99,7")
        first, last = int(match[1]), int(match[2] or match[1])
        if len(seeds) + last - first >= MOST_SEEDS:
            raise UsageError(f"--seeds {text}: more than {MOST_SEEDS:,} images; draw them in parts")
        seeds.extend(range(first, last + 1))
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds {text}: a seed is listed twice, which would draw the same image twice")
    return seeds


def requests_of(
    sampler: Sampler, n: int | None, first: int, listed: list[int] | None, class_: str | None
) -> tuple[list[Request], int | None]:
    """Return the images to draw, and the images per row if each row is a class."""
    from sagan_cli.engine.sample import Request

    names = sampler.class_names
    if class_ is None:
        seeds = listed if listed is not None else list(range(first, first + (n or 64)))
        return [Request(s) for s in seeds], None
    if not names:
        raise UsageError(f"--class {class_}: this model has no classes")
    if class_ != "all":
        label = label_of(class_, names)
        seeds = listed if listed is not None else list(range(first, first + (n or 64)))
        return [Request(s, label) for s in seeds], None
    if listed is None:
        n = n or 8 * len(names)
        if n % len(names):
            near = max(1, round(n / len(names))) * len(names)
            raise UsageError(f"-n {n}: --class all needs a multiple of the {len(names)} classes; try -n {near}")
        listed = list(range(first, first + n // len(names)))
    return [Request(s, label) for label in range(len(names)) for s in listed], len(listed)


def label_of(text: str, names: tuple[str, ...]) -> int:
    if text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    raise UsageError(f"--class {text}: not one of {shown}, 0 to {len(names) - 1}, or all{closest(text, names)}")


def _file_name(request: Request, sampler: Sampler, by_class: bool) -> str:
    if not by_class or request.label is None:
        return f"seed{request.seed:06d}.png"
    safe = re.sub(r"[^\w.-]+", "_", sampler.class_names[request.label])
    return f"seed{request.seed:06d}-class{request.label:03d}-{safe}.png"


FORMATS = ("png", "jpg", "webp", "dir", "zip", "npz")


def kind_of(out: str, format_: str | None) -> str:
    if format_ is not None and format_ not in FORMATS:
        raise UsageError(f"--format {format_}: choose one of {', '.join(FORMATS)}{closest(format_, FORMATS)}")
    if not out.strip():
        raise UsageError("--out: empty; name a file or a folder, or - for standard output")
    suffix = Path(out).suffix.lower().lstrip(".").replace("jpeg", "jpg")
    if out == "-":
        return format_ or "png"
    if out.endswith("/") or Path(out).is_dir() or not suffix:
        found = "dir"
    elif suffix in FORMATS:
        found = suffix
    elif format_ is None:
        raise UsageError(f"--out {out}: '.{suffix}' is not one of .png .jpg .webp .zip .npz (or give --format)")
    else:
        found = format_
    if format_ not in (None, found) and suffix in FORMATS:
        raise UsageError(f"--format {format_} contradicts --out {out}")
    return format_ or found


def refuse_existing(path: Path, kind: str, force: bool) -> None:
    if kind == "dir":
        if path.exists() and not path.is_dir():
            raise UsageError(f"--out {path}: is a file, not a directory")
    elif path.is_dir():
        raise UsageError(f"--out {path}: is a directory; name a file in it")
    elif path.exists() and not force:
        raise UsageError(f"--out {path}: exists already; --force replaces it")


def refuse_files(folder: Path, names: list[str], force: bool) -> None:
    if force or not folder.is_dir():
        return
    there = {p.name for p in folder.iterdir()}
    if clash := [name for name in names if name in there]:
        raise UsageError(f"--out {folder}: {clash[0]} exists already ({len(clash)} in all); --force replaces them")


def write(
    out: str, kind: str, batches: Batches, requests: list[Request], names: list[str], columns: int | None,
    about: dict[str, Any],
) -> None:  # fmt: skip
    """Draw the images and write them.

    Args:
        batches: yields uint8 (n, H, W, C) and labels (n,), in the order of `requests`.
        names: a file name for each image, for directories and archives.
        about: metadata of a PNG in addition to seed and class.
    """
    import numpy as np

    from sagan_cli.engine.sample import encode, grid, write_npz, write_zip

    def files() -> Iterator[tuple[str, bytes]]:
        place = 0
        for images, labels in batches():
            for image, label in zip(images, labels, strict=True):
                own = {**about, "seed": requests[place].seed, "class": int(label)}
                yield names[place], encode(image, "png", own)
                place += 1

    if kind == "dir":
        for name, data in files():
            write_atomic(Path(out) / name, data, durable=False)
        return

    seeds = [r.seed for r in requests]

    def fill(f: IO[bytes]) -> None:
        if kind == "zip":
            write_zip(f, files())
        elif kind == "npz":
            write_npz(f, batches(), len(requests), seeds)
        else:
            parts = list(batches())
            images, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
            # A grid of one image equals the file of that image, byte for byte.
            which = {"seed": seeds[0], "class": int(labels[0])} if len(seeds) == 1 else {"seeds": seeds}
            f.write(encode(grid(images, columns), kind, {**about, **which}))

    if out == "-":
        console.write_streamed(fill)
    else:
        write_stream(Path(out), fill)
