"""Read the state dict of another project's generator: from the file to tensors of the expected names and shapes."""

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

from sagan_cli.contracts import ModelSpec
from sagan_cli.errors import CheckpointError, UsageError

WRAPPINGS = ("state_dict", "G_state_dict", "generator_state_dict", "G", "generator", "netG", "model")
"""Keys of a generator's state dict in a training checkpoint; the first one found is used."""
PREFIXES = ("module.", "_orig_mod.")
"""Prefixes of all names under DataParallel and torch.compile."""
_STEP_IN_NAME = re.compile(r"step=(\d{1,12})|^(\d{1,12})_G\b|_ckpt_(\d{1,12})\b")


@dataclass(frozen=True)
class Loaded:
    """The state dict of a file."""

    path: Path
    sha256: str
    tensors: Mapping[str, Tensor]
    step: int
    """From a number `step` next to the state dict, or from the file name; 0 if unknown."""


def read(path: Path) -> Loaded:
    """Read the state dict of a .pth or .safetensors, also inside a training checkpoint; no code in it is run.

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
        warnings.simplefilter("ignore", UserWarning)  # errors are reported below
        try:
            if path.suffix.lower() == ".safetensors":
                return load_safetensors(path.read_bytes())
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as e:
            raise CheckpointError(
                f"{path}: refused: it is damaged, or holds more than tensors, which may be code; where it was made, "
                "save network.state_dict() alone"
            ) from e
        except (
            SafetensorError, RuntimeError, EOFError, ValueError, TypeError, LookupError, AttributeError,
            AssertionError, ArithmeticError, MemoryError, struct.error,
        ) as e:  # fmt: skip
            reason = (str(e).strip() or f"damaged ({type(e).__name__})").splitlines()[0].split(". ")[0][:160]
            raise CheckpointError(f"{path}: not a file of weights: {reason}") from e


def _flat(found: dict[Any, Any]) -> bool:
    """Return whether it has only tensors, by name."""
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
    """Return the tensors without prefixes that all names have."""
    while True:
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in tensors)), None)
        if prefix is None:
            return dict(tensors)
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _step_in_name(path: Path) -> int:
    match = _STEP_IN_NAME.search(path.name)
    return int(next(filter(None, match.groups()))) if match else 0


class Foreign:
    """The tensors of one file; every tensor must be read."""

    def __init__(self, path: Path, tensors: Mapping[str, Tensor], title: str) -> None:
        """`title` names the format in messages: `StudioGAN`."""
        self.path, self.title = path, title
        self._tensors = tensors
        self._read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        """Return the shape of a tensor.

        Raises:
            CheckpointError: no such tensor, or of another number of dimensions, or empty.
        """
        found = tuple(self._found(name).shape)
        if len(found) != dimensions or 0 in found:
            raise CheckpointError(f"{self.path}: '{name}' is {found}: expected {dimensions} dimensions, none of them 0")
        return found

    def dimensions(self, name: str) -> int:
        """Return the number of dimensions of a tensor.

        Raises:
            CheckpointError: no such tensor.
        """
        return self._found(name).dim()

    def take(self, name: str, *shape: int) -> Tensor:
        """Return a tensor of this shape, in float64, so that the results are rounded only once.

        Raises:
            CheckpointError: no such tensor, of another shape, no floating-point one, or a number in it is not finite.
        """
        tensor = self._found(name)
        if tuple(tensor.shape) != shape:
            raise CheckpointError(f"{self.path}: '{name}' is {tuple(tensor.shape)}, not {shape}")
        if not tensor.is_floating_point():
            raise CheckpointError(f"{self.path}: '{name}' holds {tensor.dtype}, not floating-point numbers")
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{self.path}: '{name}' holds numbers that are not finite: its training diverged")
        self._read.add(name)
        return tensor.double()

    def skip(self, *names: str) -> None:
        """Ignore tensors that do not affect the output, such as counters."""
        self._read.update(names)

    def refuse(self, name: str, why: str) -> CheckpointError:
        """Return an error that names a tensor."""
        return CheckpointError(f"{self.path}: '{name}': {why}")

    def finish(self) -> None:
        """Check that every tensor was read.

        Raises:
            CheckpointError: one was not, so the network is another one.
        """
        rest = sorted(set(self._tensors) - self._read)
        if rest:
            more = f" and {len(rest) - 1} more" if len(rest) > 1 else ""
            raise CheckpointError(f"{self.path}: '{rest[0]}'{more}: not in the generator of {self.title}")

    def _found(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise CheckpointError(f"{self.path}: no tensor '{name}', which the generator of {self.title} has")
        return self._tensors[name]


@dataclass(frozen=True)
class Converted:
    """A generator of this package that computes the same function as a foreign one in evaluation."""

    arch: str
    spec: ModelSpec
    state: dict[str, Tensor]
    """The generator's state dict, in any floating-point type."""
