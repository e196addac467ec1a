"""Where `sagan sample` puts its pictures: what a path means, what it must not replace, and the writing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from sagan_cli import console
from sagan_cli.errors import UsageError, closest
from sagan_cli.files import write_atomic, write_stream

if TYPE_CHECKING:
    import numpy as np

    from sagan_cli.engine.sample import Request

    Batches = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]

FORMATS = ("png", "jpg", "webp", "dir", "zip", "npz")


def kind_of(out: str, format_: str | None) -> str:
    if format_ is not None and format_ not in FORMATS:
        raise UsageError(f"--format {format_}: choose one of {', '.join(FORMATS)}{closest(format_, FORMATS)}")
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
    """Draw and write.

    Args:
        batches: yields uint8 (n, H, W, C) and labels (n,), in the order of `requests`.
        names: a file name for each picture, for directories and archives.
        about: what the text inside a PNG says besides seed and class.
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
            # A grid of one is that picture's own file, to the byte.
            which = {"seed": seeds[0], "class": int(labels[0])} if len(seeds) == 1 else {"seeds": seeds}
            f.write(encode(grid(images, columns), kind, {**about, **which}))

    if out == "-":
        console.write_streamed(fill)
    else:
        write_stream(Path(out), fill)
