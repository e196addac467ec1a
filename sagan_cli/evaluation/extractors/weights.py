"""Weights of published extractors: their files, where they are searched, and how they are downloaded and checked.

A file counts as published if its sha256 is the one in `PUBLISHED`. No pickle is executed: `.pth` files are read with
`torch.load(weights_only=True)` and must contain only tensors by name.
"""

from __future__ import annotations

import hashlib
import http.client
import pickle
import struct
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from sagan_cli.errors import SaganError, UsageError
from sagan_cli.files import sha256_of, write_stream

if TYPE_CHECKING:  # torch is imported in functions, so that the names of the extractors are available without it
    from torch import Tensor

FLAG, VARIABLE = "--weights", "SAGAN_FID_WEIGHTS"
INCEPTION = "inception-v3-compat"
TIMEOUT = 20.0
"""Seconds without any data, or with fewer than SLOWEST bytes, after which a download is aborted.

`torch.hub.download_url_to_file` has neither limit: a stalled server blocks it forever.
"""
SLOWEST = 1 << 16

Progress = Callable[[str, int], AbstractContextManager[Callable[[int, int], None]]]
"""progress(label, total) -> with ... as tick; tick(done, total)."""


@dataclass(frozen=True)
class Published:
    """The published file of an extractor."""

    url: str
    sha256: str
    files: tuple[str, ...]
    """Names of the file in $TORCH_HOME/hub/checkpoints; a download gets the first."""


def _clip(file: str, sha256: str) -> tuple[str, Published]:
    name = f"clip-{file.lower()}"
    url = f"https://openaipublic.azureedge.net/clip/models/{sha256}/{file}.pt"
    return name, Published(url, sha256, (f"{name}-{sha256}.pt",))


PUBLISHED: Mapping[str, Published] = {
    INCEPTION: Published(
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        # the names of torch-fidelity and of pytorch-fid for the same bytes
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


DINO = {
    "dinov2-vit-s-14": "dinov2_vits14",
    "dinov2-vit-b-14": "dinov2_vitb14",
    "dinov2-vit-l-14": "dinov2_vitl14",
    "dinov2-vit-g-14": "dinov2_vitg14",
}
"""Extractor -> name in the hub repository facebookresearch/dinov2."""
EXTRACTORS: tuple[str, ...] = (*PUBLISHED, *DINO)
"""torch-fidelity's extractors, as `--extractor` names them."""
OFFLINE = ("SAGAN_OFFLINE", "HF_HUB_OFFLINE")


@dataclass(frozen=True)
class Weights:
    """A file of weights, and the sha256 of its bytes when it was found."""

    path: Path
    sha256: str
    published: bool


def find_weights(
    name: str,
    given: Path | None,
    *,
    environ: Mapping[str, str],
    progress: Progress,
    notify: Callable[[str], None],
) -> Weights:
    """Return the file for a published extractor: `given`, else one in torch's cache, else a download.

    For Inception, `given` may also come from $SAGAN_FID_WEIGHTS. A given file may have other weights; the caller warns
    if `Weights.published` is False. A file in torch's cache is used only if it has the published sha256; otherwise
    `notify` names it.

    Raises:
        UsageError: the given file does not exist.
        SaganError: there are no weights on this machine, and the download is forbidden or failed; the message lists the
            alternatives.
    """
    import torch

    wanted = PUBLISHED[name]
    source = FLAG
    if given is None and name == INCEPTION and environ.get(VARIABLE):
        given, source = Path(environ[VARIABLE]).expanduser(), VARIABLE
    if given is not None:
        if not given.is_file():
            raise UsageError(f"{source} {given}: {'not a file' if given.exists() else 'no such file'}")
        sha256 = _sha256(given)
        return Weights(given, sha256, sha256 == wanted.sha256)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    for path in (folder / file for file in wanted.files):
        if path.is_file():
            if (sha256 := _sha256(path)) == wanted.sha256:
                return Weights(path, sha256, True)
            notify(f"{path} is not used: its sha256 is {sha256[:16]}..., the published one {wanted.sha256[:16]}...")
    path = folder / wanted.files[0]
    if set_by := offline(environ):
        raise SaganError(f"--extractor {name}: no weights on this machine, and {set_by} is set: {ways_out(name)}")
    notify(f"downloading {wanted.url} to {path}")
    write_stream(path, lambda f: fetch(name, f, progress))
    return Weights(path, wanted.sha256, True)


def offline(environ: Mapping[str, str]) -> str | None:
    """Return the variable that forbids downloads, if one is set to 1, true, yes or on."""
    return next((v for v in OFFLINE if environ.get(v, "").strip().lower() in ("1", "true", "yes", "on")), None)


@contextmanager
def opened(weights: Weights) -> Iterator[IO[bytes]]:
    """Open the file after checking that it has not changed since it was hashed.

    Raises:
        SaganError: it changed, or cannot be read.
    """
    try:
        f = weights.path.open("rb")
    except OSError as e:
        raise _unreadable(weights.path, e) from e
    with f:
        if hashlib.file_digest(f, "sha256").hexdigest() != weights.sha256:
            raise SaganError(f"{weights.path}: changed while it was being read; try again")
        f.seek(0)
        yield f


def load_tensors(weights: Weights) -> dict[str, Tensor]:
    """Read a `.safetensors` file, or a `.pth` file with a flat dict of tensors, to the CPU.

    Raises:
        SaganError: the file contains anything else, or a number that is not finite.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = weights.path
    with opened(weights) as f, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch on unusual bytes; the errors below report them
        try:
            if path.suffix.lower() == ".safetensors":
                found = load(f.read())
            else:
                found = torch.load(f, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as e:
            raise SaganError(f"{path}: refused: it is damaged, or holds more than tensors (code may hide there)") from e
        except (
            SafetensorError, RuntimeError, OSError, EOFError, ValueError, TypeError, LookupError, AttributeError,
            AssertionError, ArithmeticError, MemoryError, struct.error,
        ) as e:  # fmt: skip
            raise SaganError(f"{path}: not a file of weights: {_reason(e)}") from e
    if not isinstance(found, dict) or not found:
        raise SaganError(f"{path}: not a file of weights: expected tensors by name, found {type(found).__name__}")
    for key, value in found.items():
        if not isinstance(key, str) or not _plain(value):
            raise SaganError(f"{path}: not a file of weights: {str(key)[:80]!r} is no plain tensor")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise SaganError(f"{path}: damaged: {key!r} holds numbers that are not finite")
    return dict(found)


def _plain(value: object) -> bool:
    """Return whether the value is a dense tensor with numbers."""
    import torch

    if not isinstance(value, torch.Tensor):
        return False
    return value.layout == torch.strided and not value.is_meta and not value.is_quantized


def fetch(name: str, sink: IO[bytes], progress: Progress) -> None:
    """Download the published file of an extractor to `sink`; `progress` counts megabytes.

    Raises:
        SaganError: no connection, a stalled or very slow server, or another file. The message lists the alternatives.
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
                chunk = response.read1(1 << 18)  # the data that has arrived, without waiting for more
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
        raise _failed(name, f"the server sent another file, sha256 {digest.hexdigest()}")


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
    """Return the ways to provide weights without a download, for the end of a message."""
    wanted = PUBLISHED[name]
    variable = f" or set {VARIABLE}=FILE" if name == INCEPTION else ""
    return (
        f"pass {FLAG} FILE{variable}, FILE being {wanted.url} (sha256 {wanted.sha256}); "
        "--extractor classifier needs no download"
    )


def _mb(count: int) -> int:
    return -(-count // 10**6)


def _sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as e:
        raise _unreadable(path, e) from e


def _unreadable(path: Path, e: OSError) -> SaganError:
    return SaganError(f"{path}: cannot be read: {e.strerror or e}")


def _reason(e: BaseException) -> str:
    """Return the first sentence of a library's message, or the type of the error if there is none."""
    return (str(e).strip() or f"damaged ({type(e).__name__})").splitlines()[0].split(". ")[0][:160]
