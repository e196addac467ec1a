"""Find the files of onnxruntime-web: in a given folder, in the cache, or from npm with a checked digest."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from sagan_cli.data.packing.pack import cache_dir
from sagan_cli.errors import SaganError, UsageError
from sagan_cli.files import write_atomic, write_directory

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
"""The version that the page is tested with and that npm fetches."""
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Digest of that version's archive, as published by the registry."""

# The WebAssembly backend as a module with its loader. More than one thread would need a server with isolation headers.
SCRIPT, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
LICENCE = "LICENSE"
# Names in the page's folder. `.js`, because some servers send `.mjs` with a type that browsers do not run.
_HERE = {SCRIPT: f"{PACKAGE}.js", WASM: f"{PACKAGE}.wasm", LICENCE: f"{PACKAGE}.LICENSE.txt"}
_SECONDS = 600
_BANNER = re.compile(r"ONNX Runtime Web v(\d+\.\d+\.\d+[\w.+-]*)")


@dataclass(frozen=True)
class WebRuntime:
    """The files of one version."""

    version: str
    files: dict[str, bytes]
    """Name in the package (SCRIPT, WASM, LICENCE) -> contents."""

    def write(self, folder: Path) -> None:
        """Write the files to a page's folder, under the names in `facts`."""
        for name, data in self.files.items():
            write_atomic(folder / _HERE[name], data)

    def facts(self) -> dict[str, Any]:
        """Return the entry of model.json."""
        return {
            "name": PACKAGE,
            "version": self.version,
            "script": {"file": _HERE[SCRIPT], "bytes": len(self.files[SCRIPT])},
            "wasm": {"file": _HERE[WASM], "bytes": len(self.files[WASM])},
        }


def find_runtime(given: Path | None, notify: Callable[[str], None]) -> WebRuntime:
    """Return the runtime in `given`, else the cached one, else npm's, which is then cached.

    Raises:
        UsageError: `given` is no folder.
        SaganError: the files are not in `given`; or none is cached, and npm is missing or fails.
    """
    if given is not None:
        found = _read(given)
        if found.version != VERSION:
            notify(f"--runtime {given}: {PACKAGE} {found.version}; the page was tested with {VERSION}")
        return found
    kept = cache_dir() / "runtimes" / f"{PACKAGE}-{VERSION}"
    if not all((kept / name).is_file() for name in (SCRIPT, WASM)):
        notify(f"fetching {PACKAGE} {VERSION} with npm, once; it is kept in {kept}")
        files = _unpacked(_packed())
        if not write_directory(kept, lambda work: _fill(work, files)):
            _fill(kept, files)  # an incomplete one
    return _read(kept)


def _read(folder: Path) -> WebRuntime:
    if not folder.is_dir():
        raise UsageError(f"--runtime {folder}: no such folder")
    place = next((p for p in (folder, folder / "dist") if (p / SCRIPT).is_file() and (p / WASM).is_file()), None)
    if place is None:
        raise SaganError(
            f"--runtime {folder}: has no {SCRIPT} and {WASM}: name an unpacked {PACKAGE} package, or its dist folder"
        )
    try:
        files = {name: (place / name).read_bytes() for name in (SCRIPT, WASM)}
        own = next((p for p in (place / LICENCE, place.parent / LICENCE) if p.is_file()), None)
        # The package has the MIT licence and comes without its text.
        licence = own or resources.files("sagan_cli.export").joinpath("web_licence.txt")
        files[LICENCE] = licence.read_bytes()
    except OSError as e:
        raise SaganError(f"--runtime {folder}: cannot be read: {e.strerror or e}") from e
    banner = _BANNER.search(files[SCRIPT][:1000].decode("utf-8", "replace"))
    if banner is None or not files[WASM].startswith(b"\0asm"):
        raise SaganError(f"--runtime {folder}: {SCRIPT} and {WASM} are not those of {PACKAGE}")
    return WebRuntime(banner[1], files)


def _packed() -> bytes:
    """Return the package's archive, fetched by npm, which is configured for the user's registry."""
    by_hand = f"unpack {PACKAGE} {VERSION} somewhere and name that folder by --runtime DIR"
    npm = shutil.which("npm")
    if os.environ.get("SAGAN_OFFLINE", "").strip().lower() in ("1", "true", "yes", "on"):
        raise SaganError(f"the page needs {PACKAGE} {VERSION}, and SAGAN_OFFLINE forbids fetching it: {by_hand}")
    if npm is None:
        raise SaganError(f"the page needs {PACKAGE} {VERSION}: install npm, which fetches it, or {by_hand}")
    with tempfile.TemporaryDirectory() as work:
        try:
            subprocess.run(
                [npm, "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", "--loglevel=error", "--fetch-retries=1"],
                cwd=work, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=True,
            )  # fmt: skip
            (archive,) = Path(work).glob("*.tgz")
            data = archive.read_bytes()
        except subprocess.CalledProcessError as e:
            lines = [line for line in e.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
            said = " ".join(lines[0].split())[:200] if lines else f"exit code {e.returncode}"
            raise SaganError(f"npm cannot fetch {PACKAGE} {VERSION} ({said}): try again, or {by_hand}") from e
        except (OSError, ValueError, subprocess.TimeoutExpired) as e:
            raise SaganError(f"npm cannot fetch {PACKAGE} {VERSION} ({type(e).__name__}): {by_hand}") from e
    if base64.b64encode(hashlib.sha512(data).digest()).decode() != SHA512:
        raise SaganError(f"the digest of what npm fetched is not that of {PACKAGE} {VERSION}: {by_hand}")
    return data


def _unpacked(archive: bytes) -> dict[str, bytes]:
    files = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for name in (SCRIPT, WASM):
            member = tar.extractfile(f"package/dist/{name}")
            assert member is not None, name  # the digest was checked
            files[name] = member.read()
    return files


def _fill(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        write_atomic(folder / name, data)
