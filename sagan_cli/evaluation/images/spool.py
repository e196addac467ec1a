"""Bytes that must be read twice and come only once: put into a temporary file that is gone when it is closed."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable
from typing import IO, cast

from sagan_cli.errors import DataError, SaganError

MAGIC = b"PK\x03\x04"
"""The first bytes of every .npz that holds an array."""

_CHUNK = 1 << 20


def spooled(stream: IO[bytes], where: str) -> IO[bytes]:
    """What comes on a pipe, in a temporary file that is gone when it is closed.

    Raises:
        DataError: nothing, or not an .npz; said after the first bytes.
        SaganError: no room for it.
    """
    start = stream.read(len(MAGIC))
    if start != MAGIC:
        found = f"what comes on stdin is not an .npz (it starts with {start!r})" if start else "nothing comes on stdin"
        raise DataError(f"{where}: {found}: pipe one in, as from `sagan sample --format npz --out -`")
    return poured(itertools.chain([start], iter(lambda: stream.read(_CHUNK), b"")))


def poured(chunks: Iterable[bytes]) -> IO[bytes]:
    """A temporary file of these bytes."""
    try:
        f = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            f.writelines(chunks)
            f.seek(0)
        except BaseException:
            f.close()
            raise
    except OSError as e:
        raise SaganError(
            f"{tempfile.gettempdir()}: cannot hold the pictures while they are read ({e.strerror or e}): "
            "set TMPDIR to a folder with room"
        ) from e
    return cast(IO[bytes], f)
