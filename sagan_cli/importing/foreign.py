"""A foreign state dict that is read tensor by tensor: each of the right shape, each sound, none left over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sagan_cli.contracts import ModelSpec
from sagan_cli.errors import CheckpointError


class Foreign:
    """The tensors of one file, with an account of those that were read."""

    def __init__(self, path: Path, tensors: Mapping[str, Tensor], title: str) -> None:
        """`title` names the format in messages: `StudioGAN`."""
        self.path, self.title = path, title
        self._tensors = tensors
        self._read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        """The shape of a tensor whose sides are not known beforehand.

        Raises:
            CheckpointError: no such tensor, or of another number of dimensions, or empty.
        """
        found = tuple(self._found(name).shape)
        if len(found) != dimensions or 0 in found:
            raise CheckpointError(f"{self.path}: '{name}' is {found}: expected {dimensions} dimensions, none of them 0")
        return found

    def dimensions(self, name: str) -> int:
        """Of a tensor that may be a scalar in one version of a project and a vector of one number in another.

        Raises:
            CheckpointError: no such tensor.
        """
        return self._found(name).dim()

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor of exactly this shape, in float64, so that what is computed of it is rounded once.

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
        """Tensors that may be there and have no part in the function: counters and logs."""
        self._read.update(names)

    def refuse(self, name: str, why: str) -> CheckpointError:
        """The error that names a tensor, for the caller to raise."""
        return CheckpointError(f"{self.path}: '{name}': {why}")

    def finish(self) -> None:
        """Check that every tensor was read.

        Raises:
            CheckpointError: one was not, so this is another network than it was taken for.
        """
        rest = sorted(set(self._tensors) - self._read)
        if rest:
            more = f" and {len(rest) - 1} more" if len(rest) > 1 else ""
            raise CheckpointError(f"{self.path}: '{rest[0]}'{more}: no part of the generator of {self.title}")

    def _found(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise CheckpointError(f"{self.path}: no tensor '{name}', which the generator of {self.title} has")
        return self._tensors[name]


@dataclass(frozen=True)
class Converted:
    """A generator of ours that is, in evaluation, the same function as a foreign one."""

    arch: str
    spec: ModelSpec
    state: dict[str, Tensor]
    """The generator's state dict, in any floating-point type."""
