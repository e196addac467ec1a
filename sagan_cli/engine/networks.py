"""Build networks of a ModelSpec: looked up in the registry, seeded, on their device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from sagan_cli.config.schedule import parse_schedule
from sagan_cli.config.schema import TrainConfig
from sagan_cli.contracts import ModelSpec
from sagan_cli.model.ema import EMA
from sagan_cli.ops.randomness import generator
from sagan_cli.plugins import registry


@dataclass
class Networks:
    """The two networks and their optimisers."""

    generator: nn.Module
    discriminator: nn.Module
    opt_g: torch.optim.Optimizer
    opt_d: torch.optim.Optimizer


def build(arch: str, spec: ModelSpec) -> tuple[nn.Module, nn.Module]:
    """Build the generator and discriminator of an architecture by its registered name.

    Raises:
        UsageError: unknown name, or a spec that the architecture refuses.
        PluginError: the plugin does not load.
    """
    factory = registry.load("architectures", arch)
    generator_, discriminator = factory(spec)
    return generator_, discriminator


def create(arch: str, spec: ModelSpec, train: TrainConfig, device: torch.device) -> tuple[Networks, EMA]:
    """Initialise networks, optimisers and EMA as a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(train.seed, "weights").initial_seed())
        built = build(arch, spec)  # on the CPU, so that every device starts from the same numbers
    g, d = (laid_out(n, device).train() for n in built)
    # Fused Adam is one pass over each weight; Metal has none. The rates are set before each step (`Schedules`).
    fused = device.type in ("cpu", "cuda")
    opt_g, opt_d = (torch.optim.Adam(n.parameters(), betas=(train.beta1, 0.9), fused=fused) for n in (g, d))
    networks, ema = Networks(g, d, opt_g, opt_d), EMA(g)
    Schedules(train).apply(networks, ema, 0)
    return networks, ema


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


def attention_gammas(networks: Networks) -> dict[str, float]:
    """Return gamma of every attention block that has one: {"gamma_g32": ..., "gamma_d32": ...}."""
    found = {}
    for letter, network in (("g", networks.generator), ("d", networks.discriminator)):
        layers: dict[str, nn.Module] = getattr(network, "attention_layers", dict)()
        for name, layer in layers.items():
            if isinstance(gamma := getattr(layer, "gamma", None), torch.Tensor):
                found[f"gamma_{letter}{name}"] = gamma.item()
    return found


class Schedules:
    """The scheduled settings of the optimisers and the EMA."""

    def __init__(self, cfg: TrainConfig) -> None:
        names = ("g_lr", "d_lr", "beta2", "ema", "ema_halflife")
        self.cfg = cfg
        self.of = {name: parse_schedule(getattr(cfg, name), f"--{name.replace('_', '-')}") for name in names}

    def apply(self, networks: Networks, ema: EMA, step: int) -> None:
        """Set learning rates, beta 2 and the EMA's decay for the step after `step` generator updates.

        With `train.decay_steps` the learning rates fall linearly from step `train.decay_from` to 0 there.
        """
        first, last = self.cfg.decay_from, self.cfg.decay_steps
        left = min(1.0, max(0.0, 1 - (step - first) / (last - first))) if last else 1.0
        now = {name: schedule.at(step * self.cfg.batch) for name, schedule in self.of.items()}
        for optimiser, rate in ((networks.opt_g, now["g_lr"]), (networks.opt_d, now["d_lr"])):
            for group in optimiser.param_groups:
                group["lr"] = rate * left
                group["betas"] = (self.cfg.beta1, now["beta2"])
        halflife = now["ema_halflife"]
        ema.decay = 0.5 ** (self.cfg.batch / halflife) if halflife else now["ema"]
