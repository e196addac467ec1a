"""A foreign .pth read without running any code in it: the tensors of its generator, by name."""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from sagan_cli.errors import CheckpointError, UsageError

WRAPPINGS = ("state_dict", "G_state_dict", "generator_state_dict", "G", "generator", "netG", "model")
"""Keys under which a training script puts its generator's state dict beside other things; the first one counts."""
PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""
_STEP_IN_NAME = re.compile(r"step=(\d{1,12})|^(\d{1,12})_G\b|_ckpt_(\d{1,12})\b")


@dataclass(frozen=True)
class Loaded:
    """What a file holds."""

    path: Path
    sha256: str
    tensors: Mapping[str, Tensor]
    step: int
    """As the file says, by a number `step` beside the state dict or in its name; 0 where it does not."""


def read(path: Path) -> Loaded:
    """The state dict in a .pth (or .safetensors), out of the common wrappings.

    Raises:
        UsageError: no such file.
        CheckpointError: it holds more than tensors, is damaged, or holds no state dict.
    """
    if not path.is_file():
        raise UsageError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    try:
        with path.open("rb") as f:
            sha256 = hashlib.file_digest(f, "sha256").hexdigest()
        found = _parsed(path)
    except OSError as e:
        raise CheckpointError(f"{path}: cannot be read: {e.strerror or e}") from e
    inner, step = found, None
    while isinstance(inner, dict) and not _flat(inner):
        if type(inner.get("step")) is int and inner["step"] >= 0:
            step = inner["step"]
        key = next((k for k in WRAPPINGS if isinstance(inner.get(k), dict)), None)
        if key is None:
            break
        inner = inner[key]
    if not isinstance(inner, dict) or not _flat(inner):
        raise CheckpointError(f"{path}: holds no state dict: {_what(inner)}; save network.state_dict() alone")
    return Loaded(path, sha256, _stripped(inner), _step_in_name(path) if step is None else step)


def _parsed(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch on odd bytes; the verdict below is ours
        try:
            if path.suffix.lower() == ".safetensors":
                return load_safetensors(path.read_bytes())
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as e:
            raise CheckpointError(
                f"{path}: refused: it is damaged, or holds more than tensors (code may hide there); where it was made, "
                "save network.state_dict() alone"
            ) from e
        except (
            SafetensorError, RuntimeError, EOFError, ValueError, TypeError, LookupError, AttributeError,
            AssertionError, ArithmeticError, MemoryError, struct.error,
        ) as e:  # fmt: skip
            reason = (str(e).strip() or f"damaged ({type(e).__name__})").splitlines()[0].split(". ")[0][:160]
            raise CheckpointError(f"{path}: not a file of weights: {reason}") from e


def _flat(found: dict[Any, Any]) -> bool:
    """Whether it is tensors by name and nothing else."""
    return bool(found) and all(isinstance(k, str) and _plain(v) for k, v in found.items())


def _plain(value: object) -> bool:
    if not isinstance(value, Tensor):
        return False
    return value.layout == torch.strided and not value.is_meta and not value.is_quantized


def _what(found: Any) -> str:
    if not isinstance(found, dict):
        return f"a {type(found).__name__}"
    if not found:
        return "an empty dict"
    odd = next((k for k, v in found.items() if not (isinstance(k, str) and _plain(v))), None)
    return f"{str(odd)[:80]!r} is a {type(found[odd]).__name__}"


def _stripped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes that all names share."""
    while True:
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in tensors)), None)
        if prefix is None:
            return dict(tensors)
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _step_in_name(path: Path) -> int:
    match = _STEP_IN_NAME.search(path.name)
    return int(next(filter(None, match.groups()))) if match else 0
