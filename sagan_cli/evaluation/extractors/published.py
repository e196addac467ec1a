"""Which files the published extractors are made of, and fetching one: hashed as it comes, and never for ever."""

from __future__ import annotations

import hashlib
import http.client
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from sagan_cli.errors import SaganError

FLAG, VARIABLE = "--weights", "SAGAN_FID_WEIGHTS"
INCEPTION = "inception-v3-compat"
TIMEOUT = 20.0
"""Seconds of silence from a server, and seconds in which SLOWEST bytes must come, before a download is given up."""
SLOWEST = 1 << 16

Progress = Callable[[str, int], AbstractContextManager[Callable[[int, int], None]]]
"""progress(label, total) -> with ... as tick; tick(done, total)."""


@dataclass(frozen=True)
class Published:
    """A file that everybody's scores rest on."""

    url: str
    sha256: str
    files: tuple[str, ...]
    """Names under which other programs leave it in $TORCH_HOME/hub/checkpoints; a download gets the first."""


def _clip(file: str, sha256: str) -> tuple[str, Published]:
    name = f"clip-{file.lower()}"
    url = f"https://openaipublic.azureedge.net/clip/models/{sha256}/{file}.pt"
    return name, Published(url, sha256, (f"{name}-{sha256}.pt",))


PUBLISHED: Mapping[str, Published] = {
    INCEPTION: Published(
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        # torch-fidelity's name and pytorch-fid's: the same bytes
        ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth"),
    ),
    "vgg16": Published(
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        ("vgg16-397923af.pth",),
    ),
    **dict(
        (
            _clip("RN50", "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"),
            _clip("RN101", "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599"),
            _clip("RN50x4", "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd"),
            _clip("RN50x16", "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa"),
            _clip("RN50x64", "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c"),
            _clip("ViT-B-32", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"),
            _clip("ViT-B-16", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"),
            _clip("ViT-L-14", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"),
            _clip("ViT-L-14-336px", "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"),
        )
    ),
}
"""Extractor -> its file, as torch-fidelity 0.4 names them."""


def fetch(name: str, sink: IO[bytes], progress: Progress) -> None:
    """Write the published file of an extractor to `sink`, in pieces; `progress` counts megabytes.

    Raises:
        SaganError: no connection, a server that falls silent or nearly so, or bytes that are not that file. The message
            says all the ways out.
    """
    wanted = PUBLISHED[name]
    digest, done = hashlib.sha256(), 0
    with _network(name):
        response = urlopen(Request(wanted.url, headers={"User-Agent": "sagan"}), timeout=TIMEOUT)
    length = response.headers.get("Content-Length") or ""
    total = int(length) if length.isdecimal() else 0
    with response, progress(f"downloading {wanted.files[0]}, MB", _mb(total)) as tick:
        since, before = time.monotonic(), 0
        while True:
            with _network(name):
                chunk = response.read1(1 << 18)  # what has come, without waiting for more
            if not chunk:
                break
            sink.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            tick(_mb(done), _mb(max(total, done)))
            if time.monotonic() - since > TIMEOUT:
                if done - before < SLOWEST:
                    raise _failed(name, f"fewer than {SLOWEST >> 10} KiB in {TIMEOUT:g} s")
                since, before = time.monotonic(), done
    if done < total:
        raise _failed(name, f"the connection ended after {done} of {total} bytes")
    if digest.hexdigest() != wanted.sha256:
        raise _failed(name, f"what came is another file, sha256 {digest.hexdigest()}")


@contextmanager
def _network(name: str) -> Iterator[None]:
    try:
        yield
    except HTTPError as e:
        e.close()
        raise _failed(name, f"HTTP {e.code} {e.reason}") from e
    except (OSError, http.client.HTTPException, ValueError) as e:
        raise _failed(name, str(e.reason if isinstance(e, URLError) else e) or type(e).__name__) from e


def _failed(name: str, reason: str) -> SaganError:
    return SaganError(f"--extractor {name}: its weights could not be downloaded ({reason}): {ways_out(name)}")


def ways_out(name: str) -> str:
    """How to give an extractor its weights without a download, to stand at the end of a message."""
    wanted = PUBLISHED[name]
    variable = f" or set {VARIABLE}=FILE" if name == INCEPTION else ""
    return (
        f"pass {FLAG} FILE{variable}, FILE being {wanted.url} (sha256 {wanted.sha256}); "
        "--extractor classifier needs no download"
    )


def _mb(count: int) -> int:
    return -(-count // 10**6)
