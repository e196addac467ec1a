"""Networks of a ModelSpec: built from the registry, seeded and placed on a device; their schedules, size and memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sagan_cli.config.schedule import parse_schedule
from sagan_cli.config.schema import TrainConfig
from sagan_cli.contracts import ModelSpec
from sagan_cli.errors import UsageError
from sagan_cli.model.attention_placement import AttentionBlocks
from sagan_cli.model.ema import EMA
from sagan_cli.objectives.adaptive import AdaptiveStrength
from sagan_cli.ops.randomness import generator
from sagan_cli.plugins import registry


@dataclass
class Networks:
    """The two networks and their optimisers."""

    generator: nn.Module
    discriminator: nn.Module
    opt_g: torch.optim.Optimizer
    opt_d: torch.optim.Optimizer
    adaptive: AdaptiveStrength | None = None
    """State of `--ada`; None: the augmentations have their own probabilities."""
    frozen: frozenset[nn.Parameter] = frozenset()
    """Weights of D that are never trained: those of `--freeze-d`, and those that the architecture fixes."""

    max_norm: float = 0.0
    """Largest norm of a network's gradient (`--grad-clip`); 0: no limit."""

    def limit_gradient(self, network: nn.Module) -> None:
        """Scale a network's gradient down to `max_norm` if it is larger."""
        if self.max_norm:
            nn.utils.clip_grad_norm_(network.parameters(), self.max_norm)

    def train_discriminator(self, on: bool) -> None:
        """Compute the gradients of D's weights, or not; those of frozen weights never."""
        for weight in self.discriminator.parameters():
            weight.requires_grad_(on and weight not in self.frozen)


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
    frozen = early_weights(d, train.freeze_d, arch) | {p for p in d.parameters() if not p.requires_grad}
    # Fused Adam is one pass over each weight; Metal has none. The rates are set before each step (`Schedules`).
    fused = device.type in ("cpu", "cuda")
    opt_g, opt_d = (torch.optim.Adam(n.parameters(), betas=(train.beta1, 0.9), fused=fused) for n in (g, d))
    adaptive = AdaptiveStrength(train.ada, train.ada_images, train.batch).to(device) if train.ada else None
    networks, ema = Networks(g, d, opt_g, opt_d, adaptive, frozen, train.grad_clip), EMA(g, warm_up=not train.init_from)
    networks.train_discriminator(True)
    Schedules(train).apply(networks, ema, 0)
    return networks, ema


def early_weights(discriminator: nn.Module, blocks: int, arch: str) -> frozenset[nn.Parameter]:
    """Return the weights that D uses before its block number `blocks`, counted from the image.

    These are the first `blocks` blocks, and the attention layers between them (FreezeD, Mo et al. 2020,
    arXiv 2002.10964).

    Raises:
        UsageError: the network has no list `blocks`, or no further ones.
    """
    if not blocks:
        return frozenset()
    found = getattr(discriminator, "blocks", None)
    if not isinstance(found, nn.ModuleList):
        raise UsageError(f"--freeze-d {blocks}: architecture '{arch}' has no list of blocks; leave it out")
    if blocks >= len(found):
        raise UsageError(f"--freeze-d {blocks}: the discriminator has {len(found)} blocks, and one must be trained")
    early: list[nn.Module] = list(found[:blocks])
    attention = getattr(discriminator, "attention", None)
    if isinstance(attention, AttentionBlocks):
        early += [attention.after(n) for n in range(blocks - 1)]
    return frozenset(weight for module in early for weight in module.parameters())


def check_frozen(arch: str, spec: ModelSpec, blocks: int) -> None:
    """Refuse a number of frozen blocks that `early_weights` refuses, before anything is written.

    Raises:
        UsageError: as for `early_weights`.
    """
    if blocks:
        with torch.device("meta"):
            _, discriminator = build(arch, spec)
        early_weights(discriminator, blocks, arch)


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


def gradient_norms(networks: Networks) -> dict[str, float]:
    """Return the norm of each network's last gradients, after `--grad-clip`: {"g_grad": ..., "d_grad": ...}.

    Empty before any update.
    """
    found = {}
    for letter, network in (("g", networks.generator), ("d", networks.discriminator)):
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        if gradients:
            found[f"{letter}_grad"] = float(torch.nn.utils.get_total_norm(gradients))
    return found


def diverged(networks: Networks, ema: EMA) -> str | None:
    """Return the name of a network whose weights or buffers are not finite, or so large that their norm is not."""
    for name, network in (("generator", networks.generator), ("discriminator", networks.discriminator),
                          ("EMA", ema.module)):  # fmt: skip
        tensors = [t for t in (*network.parameters(), *network.buffers()) if t.is_floating_point()]
        if tensors and not torch.isfinite(torch.nn.utils.get_total_norm(tensors)):
            return name
    return None


class Schedules:
    """The scheduled settings of the optimisers and the EMA."""

    def __init__(self, cfg: TrainConfig) -> None:
        names = ("g_lr", "d_lr", "beta2", "ema", "ema_halflife")
        self.cfg = cfg
        total = cfg.steps * cfg.batch
        self.of = {
            name: parse_schedule(getattr(cfg, name), f"--{name.replace('_', '-')}").over(total) for name in names
        }

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


@dataclass(frozen=True)
class NetworkSummary:
    """Parameters and attention layers of one network."""

    parameters: int
    """Number of trained parameters, without buffers."""
    attention: tuple[str, ...]
    """Names of its attention layers, in forward order."""


def summarize(arch: str, spec: ModelSpec) -> tuple[NetworkSummary, NetworkSummary]:
    """Return the summaries of the generator and the discriminator, built on the meta device.

    Raises:
        UsageError: unknown architecture, or a specification that it refuses.
        PluginError: the plugin does not load.
    """
    with torch.device("meta"):
        g, d = build(arch, spec)
    return _summary(g), _summary(d)


def require_memory(arch: str, spec: ModelSpec, device: torch.device) -> None:
    """Refuse networks that the architecture refuses, or whose weights and optimisers exceed the device's memory.

    Raises:
        UsageError: naming the option, or `--width`.
        PluginError: the plugin does not load.
    """
    count = sum(network.parameters for network in summarize(arch, spec))
    needed = 16 * count  # weights, gradients and Adam's two moments, in fp32
    if device.type == "cuda":
        present = torch.cuda.get_device_properties(device).total_memory
    elif hasattr(os, "sysconf"):
        present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    else:
        return
    if needed > present:
        raise UsageError(
            f"--width {spec.base_width}: weights and optimisers of {count:,} parameters take {needed / 2**30:,.0f} GiB "
            f"and {device.type} has {present / 2**30:,.0f}: choose a smaller --width or --size"
        )


def describe_attention(arch: str, spec: ModelSpec) -> str:
    """Return the feature maps with attention: `none`, `32`, or `G 16, 32; D 8, 4` if the networks differ.

    The `residual` variant has no attention maps; its sides are those of the specification.

    Raises:
        UsageError, PluginError: as for `summarize`.
    """
    if not spec.attn_at:
        return "none"
    in_g, in_d = (", ".join(sorted(network.attention, key=_number)) for network in summarize(arch, spec))
    if in_g == in_d:
        return in_g or ", ".join(map(str, spec.attn_at))
    return "; ".join(f"{letter} {sides}" for letter, sides in zip("GD", (in_g, in_d), strict=True) if sides)


def _number(name: str) -> tuple[int, str]:
    return (int(name) if name.isdecimal() else 0), name


def _summary(network: nn.Module) -> NetworkSummary:
    layers: dict[str, nn.Module] = getattr(network, "attention_layers", dict)()
    return NetworkSummary(sum(p.numel() for p in network.parameters()), tuple(layers))


@dataclass(frozen=True)
class Cost:
    """Parameters, and the memory of one process."""

    g_parameters: int
    d_parameters: int
    weights_mib: float
    """Weights, gradients, Adam's two moments and the moving average."""
    activations_mib: float
    """Kept for the backward pass of this process's share of the batch, in the more expensive update."""


def estimate_cost(arch: str, spec: ModelSpec, batch: int, precision: str) -> Cost:
    """Estimate the cost on the meta device, where tensors have shapes and no contents."""
    with torch.device("meta"):
        g, d = build(arch, spec)
    counts = [sum(p.numel() for p in net.parameters()) for net in (g, d)]
    weights = 4 * (4 * counts[0] + 4 * counts[1] + counts[0])
    z = torch.empty(batch, spec.latent, device="meta")
    y = torch.zeros(batch, dtype=torch.long, device="meta") if spec.num_classes else None
    x = torch.empty(2 * batch, spec.channels, spec.height, spec.width, device="meta")
    both = None if y is None else torch.cat([y, y])
    d_update = _saved_bytes(lambda: d(x, both))
    d.requires_grad_(False)
    g_update = _saved_bytes(lambda: d(g(z, y), y))
    # Under autocast the large tensors are half as wide; weights' copies and fp32 norms make up part of the difference.
    narrower = 0.6 if precision == "bf16" else 1.0
    return Cost(counts[0], counts[1], weights / 2**20, max(d_update, g_update) * narrower / 2**20)


def _saved_bytes(forward: Callable[[], torch.Tensor]) -> int:
    """Return the bytes that autograd keeps of one forward pass, each storage counted once."""
    sizes: dict[int, tuple[Any, int]] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        sizes[storage._cdata] = (storage, storage.nbytes())  # held, so that no later storage takes its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        out = forward()
    del out
    return sum(size for _, size in sizes.values())
