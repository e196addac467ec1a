"""What a conversion comes to: an architecture of this package, its specification, and its generator's tensors."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sagan_cli.contracts import ModelSpec


@dataclass(frozen=True)
class Converted:
    """A generator of ours that is, in evaluation, the same function as a foreign one."""

    arch: str
    spec: ModelSpec
    state: dict[str, Tensor]
    """The generator's state dict, in any floating-point type."""
