"""Generators to export, made in milliseconds: small, with every part of them alive."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sagan_cli.contracts import ModelSpec
from sagan_cli.engine.sample import ready
from sagan_cli.export.trained_model import TrainedModel
from sagan_cli.model.sagan import build


def tiny(height: int = 16, width: int = 16, **own: Any) -> TrainedModel:
    """A `sagan` whose attention takes part and whose batch norms have seen something."""
    spec = ModelSpec(height, width, **{"latent": 20, "base_width": 2, "attn_at": (8,), **own})
    torch.manual_seed(5)
    return trained(build(spec)[0], spec)


def trained(generator: nn.Module, spec: ModelSpec, arch: str = "sagan") -> TrainedModel:
    with torch.no_grad():
        for module in generator.modules():
            if isinstance(gamma := getattr(module, "gamma", None), nn.Parameter):
                gamma.fill_(0.8)
            if isinstance(mean := getattr(module, "running_mean", None), torch.Tensor):
                mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)  # type: ignore[operator, union-attr]
    data = {"source": "/home/somebody/pictures", "digest": "0" * 64, "count": 24}
    names = tuple(f"kind {i}" for i in range(spec.num_classes))
    made = ready(generator, torch.device("cpu"))
    return TrainedModel(made, spec, names, arch, f"{arch}-package 1.0", "ema", 7, data, "a test")


class Plain(nn.Module):
    """What a plugin may bring: PyTorch's own layers, classes by an embedding, no attention."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.shape = (8, spec.height // 2, spec.width // 2)
        self.embed = nn.Embedding(spec.num_classes, spec.latent)
        self.linear = nn.Linear(spec.latent, 8 * self.shape[1] * self.shape[2])
        self.paint = nn.Sequential(
            nn.BatchNorm2d(8), nn.Upsample(scale_factor=2), nn.LeakyReLU(0.2), nn.Conv2d(8, spec.channels, 3, padding=1)
        )

    def forward(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        h: torch.Tensor = self.linear(z * self.embed(y))
        return torch.tanh(self.paint(h.reshape(h.shape[0], *self.shape)))


class Fixed(Plain):
    """The same with a habit that ties a graph to the batch that it was traced with."""

    def forward(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        h: torch.Tensor = self.linear(z * self.embed(y))
        return torch.tanh(self.paint(h.reshape(len(h), *self.shape)))
