"""The largest singular value of every weight of a checkpoint, and the estimate that training used.

Spectral norm divides a weight W by sigma = u^T W v, where u and v approximate W's leading singular vectors by one power
iteration per update (Miyato et al. 2018, section 2.1 and algorithm 1). The exact values here are computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sagan_cli.engine import checkpoint, networks
from sagan_cli.errors import SaganError
from sagan_cli.model.layers import SpectralNormed
from sagan_cli.ops.spectral_norm import as_matrix

OURS, TORCH, PLUGIN, OTHER, NONE = "sagan", "torch", "own", "other", "none"
"""The spectral norm of a layer: this package's, PyTorch's (either of its two), or an architecture's own. `other` is
another parametrisation, whose result is measured; `none` is a plain weight."""


@dataclass(frozen=True)
class Spectrum:
    """The spectrum of one weight, reshaped to a matrix as its spectral norm does."""

    network: str
    """`G` or `D`."""
    layer: str
    """Name of the module within its network."""
    shape: tuple[int, ...]
    norm: str
    """`OURS`, `TORCH`, `PLUGIN`, `OTHER` or `NONE`."""
    sigma: float
    """The largest singular value of the stored weight, before normalisation."""
    estimate: float | None
    """u^T W v, the divisor of the network; None without spectral norm."""

    @property
    def ratio(self) -> float | None:
        """Return sigma / estimate, the largest singular value of the normalised weight: 1 for an exact estimate.

        None without an estimate, or if it is 0.
        """
        return self.sigma / self.estimate if self.estimate else None


@dataclass(frozen=True)
class _Weight:
    """A weight as a matrix (O, rest), and the layer's estimates of its leading singular vectors."""

    norm: str
    weight: Tensor
    matrix: Tensor
    u: Tensor | None = None
    v: Tensor | None = None


def open_networks(path: Path) -> tuple[nn.Module, nn.Module]:
    """Return the trained G and D (not the EMA) of a checkpoint directory, on the CPU.

    Raises:
        CheckpointError: damaged, of another format, or of an architecture that is not installed.
    """
    facts = checkpoint.read_facts(path)
    with torch.random.fork_rng(devices=[]):
        pair = networks.build(facts.arch, facts.spec)
    files = (("generator", checkpoint.MODEL), ("discriminator", checkpoint.STATE))
    for network, (name, file) in zip(pair, files, strict=True):
        checkpoint.load_module(network, checkpoint.load_tensors(facts, file, (name,)), name, path)
        network.eval().requires_grad_(False)  # not `sample.ready`, which folds the spectral norms away
    return pair


def count(network: nn.Module) -> int:
    """Return the number of layers that `spectra` lists."""
    return sum(1 for _ in _layers(network))


@torch.no_grad()
def spectra(network: nn.Module, letter: str, tick: Callable[[int], object] = lambda _: None) -> list[Spectrum]:
    """Return the spectrum of every module's `weight` of two or more dimensions, in the order of declaration.

    Gains and biases are left out, and weights under other names.

    Raises:
        SaganError: a weight is not finite.
    """
    found = []
    for name, layer in _layers(network):
        if not torch.isfinite(layer.matrix).all():
            raise SaganError(f"{letter} {name}: a weight is not a number: training diverged; use an earlier checkpoint")
        estimate = None
        if layer.u is not None and layer.v is not None:
            estimate = float(layer.u.double() @ (layer.matrix.double() @ layer.v.double()))
        sigma = float(torch.linalg.svdvals(layer.matrix.double())[0])
        found.append(Spectrum(letter, name, tuple(layer.weight.shape), layer.norm, sigma, estimate))
        tick(len(found))
    return found


def _layers(network: nn.Module) -> Iterator[tuple[str, _Weight]]:
    for name, module in network.named_modules():
        layer = _weight_of(module)
        if layer is not None and layer.weight.numel():
            yield name, layer


@torch.no_grad()
def _weight_of(module: nn.Module) -> _Weight | None:
    """Return the weight of a module; None if it has no matrix."""
    if isinstance(module, SpectralNormed):
        # A folded layer has neither u nor v, and its weight is the normalised one.
        return _Weight(
            OURS if module.u is not None else NONE, module.weight, as_matrix(module.weight), module.u, module.v
        )
    if parametrize.is_parametrized(module, "weight"):
        return _parametrized(module)
    legacy = getattr(module, "weight_orig", None)
    if isinstance(legacy, Tensor):
        return _legacy(module, legacy)
    weight = getattr(module, "weight", None)
    if not isinstance(weight, nn.Parameter) or weight.dim() < 2:
        return None
    return _of_plugin(module, weight) or _Weight(NONE, weight, _matrix(weight, _out_axis(module)))


def _parametrized(module: nn.Module) -> _Weight | None:
    """Return the weight under torch.nn.utils.parametrizations.spectral_norm, or another parametrisation's result."""
    steps: Any = module.parametrizations["weight"]  # type: ignore[index]  # torch types it as Tensor | Module
    original, last = getattr(steps, "original", None), steps[-1]
    if isinstance(original, Tensor) and len(steps) == 1 and hasattr(last, "_u") and hasattr(last, "_v"):
        return _Weight(TORCH, original, _matrix(original, last.dim), last._u, last._v)
    weight = module.weight
    if not isinstance(weight, Tensor) or weight.dim() < 2:
        return None
    return _Weight(OTHER, weight, _matrix(weight, _out_axis(module)))


def _legacy(module: nn.Module, weight: Tensor) -> _Weight:
    """Return the weight under torch.nn.utils.spectral_norm, which is a hook before the forward pass."""
    hook: Any = next((h for h in module._forward_pre_hooks.values() if hasattr(h, "reshape_weight_to_matrix")), None)
    axis = getattr(hook, "dim", _out_axis(module))
    return _Weight(TORCH, weight, _matrix(weight, axis), module.weight_u, module.weight_v)  # type: ignore[arg-type]


def _of_plugin(module: nn.Module, weight: Tensor) -> _Weight | None:
    """Return the weight of a layer that has vectors u and v of matching lengths: an architecture's own spectral norm.

    The order in which it flattens the weight's axes is unknown. Singular vectors match one order only, so the order
    with the largest u^T W v is used.
    """
    u, v = getattr(module, "u", None), getattr(module, "v", None)
    if not (isinstance(u, Tensor) and isinstance(v, Tensor)):
        return None
    u, v = u.flatten(), v.flatten()
    orders = [_matrix(weight, 0), as_matrix(weight), _matrix(weight, 1)]
    fitting = [m for m in orders if m.shape == (u.numel(), v.numel())]
    if not fitting:
        return None
    return _Weight(PLUGIN, weight, max(fitting, key=lambda m: float((u @ (m @ v)).abs())), u, v)


def _matrix(weight: Tensor, axis: int) -> Tensor:
    """Return the weight as (outputs, rest), as PyTorch's spectral norm does."""
    return weight.movedim(axis, 0).flatten(1)


def _out_axis(module: nn.Module) -> int:
    """Return the axis of a weight's outputs: 1 for transposed convolutions."""
    return 1 if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)) else 0
