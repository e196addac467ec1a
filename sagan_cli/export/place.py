"""Where an export goes: made beside its place first, and put there whole."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sagan_cli.errors import SaganError
from sagan_cli.files import TEMPORARY, sync_directory, write_stream


@contextmanager
def workshop(out: Path | None) -> Iterator[Path]:
    """An empty directory on the disk where `out` will lie, gone at the end; for no path, where temporary files lie.

    Raises:
        SaganError: it cannot be made.
    """
    place = None if out is None else out.absolute().parent
    try:
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=place))
    except OSError as e:
        raise SaganError(f"{place or tempfile.gettempdir()}: cannot be written: {e.strerror or e}") from e
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def put_file(made: Path, out: Path) -> None:
    """Make `out` the file `made`, at once.

    Raises:
        SaganError: it cannot be written.
    """
    with made.open("rb") as f:
        write_stream(out, lambda target: shutil.copyfileobj(f, target, 1 << 20))


def put_folder(made: Path, out: Path) -> None:
    """Make the folder `made` appear as `out` whole; into one that is there already each file goes at once.

    What else lies in that one is left alone.

    Raises:
        SaganError: it cannot be written.
    """
    try:
        made.rename(out)  # as good where an empty directory stands
        sync_directory(out.absolute().parent)
    except OSError as e:
        if not out.is_dir():
            raise SaganError(f"{out}: cannot be written: {e.strerror or e}") from e
        for file in files_in(made):
            put_file(made / file, out / file)


def files_in(folder: Path) -> list[str]:
    """Every file in a folder and those below, by its path within, in order."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
