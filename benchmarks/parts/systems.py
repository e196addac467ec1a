"""The systems that are timed: which network, at which size and batch, and the textbook's form of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from textbook import dcgan, residual

from sagan_cli.contracts import ModelSpec


@dataclass(frozen=True)
class System:
    """One network pair at one size and batch."""

    name: str
    title: str
    arch: str
    """Of `sagan_cli`."""
    spec: ModelSpec
    batch: int
    rounds: int
    """Of the interleaved measurement."""

    def textbook(self) -> tuple[Any, Any]:
        """The same two networks as ports write them, freshly initialised."""
        if self.arch == "sagan-dcgan":
            width = self.spec.base_width
            return dcgan.Generator(self.spec.latent, width), dcgan.Discriminator(width)
        plan = self.plan()
        return residual.Generator(plan), residual.Discriminator(plan)

    def plan(self) -> residual.Plan:
        """Widths and places of the residual networks."""
        spec = self.spec
        if self.arch == "sagan-cifar":
            return replace(residual.cifar(spec.base_width, spec.num_classes), latent=spec.latent)
        plan = residual.released(spec.height, spec.base_width, spec.num_classes, spec.attn_at[0])
        return replace(plan, latent=spec.latent)

    def textbook_step(self, device: torch.device) -> Callable[..., Any]:
        """The textbook's update of both networks."""
        g, d = self.textbook()
        if isinstance(g, dcgan.Generator):
            return dcgan.Step(g, d, device)
        return residual.Step(g, d, device)


def _spec(size: int, width: int, classes: int, attention: int) -> ModelSpec:
    return ModelSpec(size, size, num_classes=classes, latent=128, base_width=width, attn_at=(attention,))


SYSTEMS = {
    s.name: s
    for s in (
        System("dcgan-64", "DCGAN-shaped, 64 pixels", "sagan-dcgan", _spec(64, 64, 0, 32), 16, 15),
        # 256 channels throughout G and 128 in D: the CIFAR-10 network whose step counts 18.1 GFLOP a picture.
        System("sagan-32", "SAGAN-32, CIFAR-10's network", "sagan-cifar", _spec(32, 64, 10, 16), 16, 11),
        System("laptop-32", "SAGAN-32, the `laptop` preset", "sagan", _spec(32, 32, 6, 16), 32, 11),
        System("sagan-64", "SAGAN-64", "sagan", _spec(64, 64, 10, 32), 8, 9),
        System("sagan-128", "SAGAN-128, 1000 classes", "sagan", _spec(128, 64, 1000, 32), 4, 5),
    )
}
"""On a CPU."""

CUDA_SYSTEMS = {
    s.name: s
    for s in (
        replace(SYSTEMS["dcgan-64"], batch=64, rounds=20),
        replace(SYSTEMS["sagan-32"], batch=64, rounds=20),
        replace(SYSTEMS["sagan-128"], batch=256, rounds=10),
    )
}


def systems_for(device: str) -> dict[str, System]:
    """The systems of a device's table."""
    return CUDA_SYSTEMS if device == "cuda" else SYSTEMS
