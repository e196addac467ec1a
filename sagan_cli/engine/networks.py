"""From a ModelSpec to networks on a device: looked up in the registry, seeded, laid out for speed."""

from __future__ import annotations

import torch
from torch import nn

from sagan_cli.config.schema import TrainConfig
from sagan_cli.contracts import ModelSpec
from sagan_cli.engine.step import Players
from sagan_cli.model.ema import EMA
from sagan_cli.ops.randomness import generator
from sagan_cli.plugins import registry


def build(arch: str, spec: ModelSpec) -> tuple[nn.Module, nn.Module]:
    """The generator and discriminator of an architecture by its registered name.

    Raises:
        UsageError: unknown name, or a spec that the architecture refuses.
        PluginError: the plugin does not load.
    """
    factory = registry.load("architectures", arch)
    generator_, discriminator = factory(spec)
    return generator_, discriminator


def create(arch: str, spec: ModelSpec, train: TrainConfig, device: torch.device) -> tuple[Players, EMA]:
    """Freshly initialised networks, their optimisers and the moving average: a function of the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(train.seed, "weights").initial_seed())
        networks = build(arch, spec)  # on the CPU, so that every device starts from the same numbers
    g, d = (laid_out(n, device).train() for n in networks)
    betas = (train.beta1, train.beta2)
    # The fused step is one pass over each weight; Metal has none.
    fused = device.type in ("cpu", "cuda")
    opt_g = torch.optim.Adam(g.parameters(), lr=train.g_lr, betas=betas, fused=fused)
    opt_d = torch.optim.Adam(d.parameters(), lr=train.d_lr, betas=betas, fused=fused)
    return Players(g, d, opt_g, opt_d), EMA(g, train.ema)


ALIGNMENT = 64
"""Bytes. MKL's matrix-vector products round differently at different alignments on some processors, and a tensor read
from a safetensors file lies at any multiple of 8 bytes; PyTorch allocates at multiples of 64."""


def laid_out(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to its device, in channels-last layout, every tensor at a multiple of `ALIGNMENT` bytes.

    Equal weights therefore compute equal bits, whether they come from a checkpoint, an exported file or a pipe.
    """
    network = network.to(device).to(memory_format=torch.channels_last)
    if device.type == "cpu":
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.data_ptr() % ALIGNMENT:
                tensor.data = tensor.data.clone()
    return network


def attention_gammas(players: Players) -> dict[str, float]:
    """gamma of every attention block that has one: {"gamma_g32": ..., "gamma_d32": ...}."""
    found = {}
    for letter, network in (("g", players.generator), ("d", players.discriminator)):
        layers: dict[str, nn.Module] = getattr(network, "attention_layers", dict)()
        for name, layer in layers.items():
            if isinstance(gamma := getattr(layer, "gamma", None), torch.Tensor):
                found[f"gamma_{letter}{name}"] = gamma.item()
    return found
