"""Where the weights of published extractors come from, and proof that they are what they are said to be.

A file counts as published when its sha256 is the one in `PUBLISHED`; nothing else about it is believed. No pickle is
ever run: `.pth` goes through `torch.load(weights_only=True)`, and must hold tensors by name and nothing more.
"""

from __future__ import annotations

import hashlib
import pickle
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from sagan_cli.errors import SaganError, UsageError
from sagan_cli.evaluation.extractors.published import FLAG, INCEPTION, PUBLISHED, VARIABLE, Progress, fetch, ways_out
from sagan_cli.files import sha256_of, write_stream

if TYPE_CHECKING:  # torch is imported where it is used: the names of the extractors are wanted without it
    from torch import Tensor

OFFLINE = ("SAGAN_OFFLINE", "HF_HUB_OFFLINE")


@dataclass(frozen=True)
class Weights:
    """A file of weights that has been read once, and the sha256 of its bytes at that time."""

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
    """The file for a published extractor: `given`, else one at hand, else downloaded. For Inception, `given` may also
    come from $SAGAN_FID_WEIGHTS.

    A file that was given need not be the published one; `Weights.published` says, and the caller warns. One that is
    found in torch's cache is used only when its sha256 is right, and named by `notify` when it is not.

    Raises:
        UsageError: the given file does not exist.
        SaganError: no weights here and none to be had; the message says all the ways out.
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
    """The variable that forbids downloads, if one is set to 1, true, yes or on."""
    return next((v for v in OFFLINE if environ.get(v, "").strip().lower() in ("1", "true", "yes", "on")), None)


@contextmanager
def opened(weights: Weights) -> Iterator[IO[bytes]]:
    """The file, at its beginning, after checking that it still holds the bytes that were hashed.

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
    """The tensors of a `.safetensors` file, or of a `.pth` file that holds a flat dict of tensors; on the CPU.

    Raises:
        SaganError: anything else, or a number in it that is not finite.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = weights.path
    with opened(weights) as f, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch on odd bytes; the verdict below is ours
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
    """Whether it is a dense tensor with numbers in it."""
    import torch

    if not isinstance(value, torch.Tensor):
        return False
    return value.layout == torch.strided and not value.is_meta and not value.is_quantized


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over (name, shape, dtype, bytes) of all tensors in the order of their names, on whatever device they are.

    The same for `.pth` and `.safetensors` of the same numbers; bytes are the machine's own (little-endian in practice).
    """
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tuple(tensor.shape)}\0{tensor.dtype}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as e:
        raise _unreadable(path, e) from e


def _unreadable(path: Path, e: OSError) -> SaganError:
    return SaganError(f"{path}: cannot be read: {e.strerror or e}")


def _reason(e: BaseException) -> str:
    """The first sentence of what a library says, or the kind of error when it says nothing."""
    return (str(e).strip() or f"damaged ({type(e).__name__})").splitlines()[0].split(". ")[0][:160]
