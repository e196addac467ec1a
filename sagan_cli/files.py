"""Atomic writing of files and directories: after a crash there is the old one or the new one, complete."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from sagan_cli.errors import SaganError

TEMPORARY = ".tmp-"
"""Prefix of temporary files and directories; they may be deleted when no process writes them."""


def _prefix() -> str:
    """Return the prefix of this process's temporary files and directories: `.tmp-<host>-<process id>-`."""
    host = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
    return f"{TEMPORARY}{host}-{os.getpid()}-"


@functools.cache
def remove_abandoned(folder: Path) -> None:
    """Delete temporary files and directories whose process, on this machine, has ended.

    Further calls for the same folder do nothing.
    """
    host = _prefix().rsplit("-", 2)[0] + "-"
    for left in folder.glob(f"{host}*"):
        process = left.name.removeprefix(host).split("-")[0]
        if process.isdecimal() and not _alive(int(process)):
            remove(left)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # of another user
    return True


def remove(path: Path) -> None:
    """Remove a file or directory, as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def write_atomic(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace `path` by `data`: temporary file in the same directory, fsync, rename.

    `durable=False` omits the fsync, for many small files that can be written again.

    Raises:
        SaganError: the directory cannot be written, or the disk is full.
    """
    write_stream(path, lambda f: f.write(data), durable=durable)


def encoded(text: str) -> bytes:
    """Return JSON or TOML as UTF-8; a byte of a path that is not UTF-8 becomes an escape, which JSON reads back."""
    return text.encode("utf-8", "backslashreplace")


@contextlib.contextmanager
def utf8_name(path: Path) -> Iterator[Path]:
    """Yield a UTF-8 path of the file, which libraries written in Rust require: its own, or a symbolic link to it."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder) / f"link{path.suffix}"
            link.symlink_to(path.absolute())
            yield link
    else:
        yield path


def write_stream(path: Path, fill: Callable[[IO[bytes]], object], *, durable: bool = True) -> None:
    """Replace `path` by what `fill` writes, as `write_atomic`; no file is left if `fill` raises."""
    with _said(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent)
        handle, name = tempfile.mkstemp(prefix=_prefix(), dir=path.parent)
        try:
            with os.fdopen(handle, "w+b") as f:
                fill(f)
                f.flush()
                if durable:
                    os.fsync(f.fileno())
            Path(name).chmod(0o666 & ~_umask())  # mkstemp sets 0600
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        if durable:
            sync_directory(path.parent)


def write_directory(path: Path, fill: Callable[[Path], None]) -> bool:
    """Create the directory `path` atomically: `fill` writes into a temporary one, which is then renamed.

    Returns:
        Whether this call created it; False if a directory that is not empty exists, which is left unchanged.

    Raises:
        SaganError: it cannot be written.
    """
    with _said(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent)
        work = Path(tempfile.mkdtemp(prefix=_prefix(), dir=path.parent))
        try:
            work.chmod(0o777 & ~_umask())
            fill(work)
            for item in work.iterdir():
                if item.is_file():
                    item.chmod(0o666 & ~_umask())  # safetensors creates files that only their owner can read
                with item.open("rb") as f:
                    os.fsync(f.fileno())
            sync_directory(work)
            try:
                work.rename(path)
            except OSError:
                if not path.is_dir():
                    raise
                shutil.rmtree(work)
                return False
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
        sync_directory(path.parent)
        return True


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def sync_directory(path: Path) -> None:
    """Make renames within a directory survive a power failure; no effect on Windows."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _said(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise SaganError(f"{path}: cannot be written: {e.strerror or e}") from e


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_STALE_AFTER = 3600
"""Seconds without a write after which a temporary entry is considered abandoned."""


def sweep(folder: Path) -> None:
    """Remove temporary entries that killed processes left."""
    for left in folder.glob(f"{TEMPORARY}*"):
        try:
            touched = max(p.stat().st_mtime for p in (left, *left.iterdir()))
        except OSError:
            continue  # its owner has just finished or removed it
        if touched < time.time() - _STALE_AFTER:
            shutil.rmtree(left, ignore_errors=True)


def discard(path: Path) -> None:
    """Remove a damaged entry of a cache by one rename, so that no other process sees a part of it.

    Raises:
        SaganError: the cache cannot be written.
    """
    aside = path.with_name(f"{TEMPORARY}damaged-{os.getpid()}-{time.time_ns()}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return  # another process was faster
    except OSError as e:
        raise unwritable(path, e.strerror or str(e)) from e
    shutil.rmtree(aside, ignore_errors=True)


def unwritable(path: Path, reason: str) -> SaganError:
    """Return the error for a cache that cannot be written."""
    return SaganError(f"{path}: the cache cannot be written ({reason}): set SAGAN_CACHE to a folder that can")


@contextlib.contextmanager
def temporary_beside(out: Path | None) -> Iterator[Path]:
    """Yield an empty directory next to `out`, on the same disk, and delete it at the end; None: the system's temporary
    folder.

    Raises:
        SaganError: it cannot be created.
    """
    parent = None if out is None else out.absolute().parent
    try:
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
            remove_abandoned(parent)
        work = Path(tempfile.mkdtemp(prefix=_prefix(), dir=parent))
    except OSError as e:
        raise SaganError(f"{parent or tempfile.gettempdir()}: cannot be written: {e.strerror or e}") from e
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def replace_file(made: Path, out: Path) -> None:
    """Replace `out` by the file `made` in one step.

    Raises:
        SaganError: it cannot be written.
    """
    with made.open("rb") as f:
        write_stream(out, lambda target: shutil.copyfileobj(f, target, 1 << 20))


def replace_folder(made: Path, out: Path) -> None:
    """Rename the folder `made` to `out`; in an existing `out`, replace each of its files in one step and keep others.

    Raises:
        SaganError: it cannot be written.
    """
    try:
        made.rename(out)  # replaces an empty directory as well
        sync_directory(out.absolute().parent)
    except OSError as e:
        if not out.is_dir():
            raise SaganError(f"{out}: cannot be written: {e.strerror or e}") from e
        for file in files_in(made):
            replace_file(made / file, out / file)


def files_in(folder: Path) -> list[str]:
    """Return the relative paths of all files below a folder, sorted."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
