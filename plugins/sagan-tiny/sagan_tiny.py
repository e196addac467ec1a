"""The architecture `tiny`: similar to DCGAN, with spectral norm in D, class projection and optional attention.

Radford et al., arXiv:1511.06434; Miyato and Koyama, arXiv:1802.05637 (projection), arXiv:1802.05957 (spectral norm).
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagan_cli.config.schema import option_text
from sagan_cli.contracts import ModelSpec
from sagan_cli.errors import UsageError

SAGAN_PLUGIN_API = 1
"""The version of sagan's plugin contract that this package was written for."""

MAX_FACTOR = 4
"""Channels double with every halving of the map, up to this multiple of the base width."""


class MultiHeadAttention(nn.Module):
    """x + gamma * attention(x) over the positions of a map (N, C, H, W); gamma starts at 0."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def maps(self, x: Tensor) -> Tensor:
        """Return the attention maps that `forward` uses for x, averaged over the heads: (N, H W, H W)."""
        q, k, _ = self._project(x)
        return (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1).mean(1)

    def _project(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return queries, keys and values, (N, heads, H W, C / heads) each."""
        n, c, h, w = x.shape
        return self.qkv(x).reshape(n, 3, self.heads, c // self.heads, h * w).transpose(3, 4).unbind(1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q, k, v = self._project(x)
        y = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(n, c, h, w)
        return x + self.gamma * self.out(y)


class SpectralConv2d(nn.Conv2d):
    """A convolution whose weight is divided by its largest singular value.

    `advance_`, which sagan calls once per update, improves the estimate; `forward` does not change it.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding)
        self.register_buffer("u", F.normalize(torch.randn(outputs), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(self.weight[0].numel()), dim=0))
        for _ in range(10):
            self.advance_()

    @torch.no_grad()
    def advance_(self) -> None:
        """Run one power iteration."""
        weight = self.weight.flatten(1)
        self.v.copy_(F.normalize(weight.t() @ self.u, dim=0))
        self.u.copy_(F.normalize(weight @ self.v, dim=0))

    def forward(self, x: Tensor) -> Tensor:
        # Products and a sum instead of a matrix product, because autocast keeps these in float32.
        sigma = (self.weight.flatten(1) * self.u[:, None] * self.v).sum()
        return self._conv_forward(x, self.weight / sigma, self.bias)


class Generator(nn.Module):
    """Generator: z (N, latent), y (N,) or None -> images (N, C, H, W) in [-1, 1]."""

    def __init__(self, spec: ModelSpec, stages: int) -> None:
        super().__init__()
        self.start = (spec.height >> stages, spec.width >> stages)
        widths = [_width(spec, stage) for stage in range(stages, -1, -1)]
        self.embed = nn.Embedding(spec.num_classes, spec.latent) if spec.num_classes else None
        self.project = nn.Linear(
            spec.latent * (2 if spec.num_classes else 1), widths[0] * self.start[0] * self.start[1]
        )
        self.attention = nn.ModuleDict()
        self.blocks = nn.ModuleList()
        for doublings, (before, after) in enumerate(itertools.pairwise(widths), start=1):
            convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
            self.blocks.append(
                nn.Sequential(nn.Upsample(scale_factor=2), convolution, nn.BatchNorm2d(after), nn.ReLU())
            )
            _attend(self.attention, spec, stages - doublings, after)
        self.paint = nn.Conv2d(widths[-1], spec.channels, 3, padding=1)

    def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
        if self.embed is not None:
            z = torch.cat([z, self.embed(y)], 1)
        x = F.relu(self.project(z)).reshape(z.shape[0], -1, *self.start)
        for block in self.blocks:
            x = _at(self.attention, block(x))
        return torch.tanh(self.paint(x))

    def attention_layers(self) -> dict[str, nn.Module]:
        """Longer side of the map -> its attention block."""
        return dict(self.attention.items())


class Discriminator(nn.Module):
    """Discriminator: images (N, C, H, W), y (N,) or None -> logits (N,)."""

    def __init__(self, spec: ModelSpec, stages: int) -> None:
        super().__init__()
        widths = [_width(spec, stage) for stage in range(stages + 1)]
        self.look = SpectralConv2d(spec.channels, widths[0], 3, padding=1)
        self.attention = nn.ModuleDict()
        self.blocks = nn.ModuleList()
        for halvings, (before, after) in enumerate(itertools.pairwise(widths), start=1):
            self.blocks.append(nn.Sequential(SpectralConv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)))
            _attend(self.attention, spec, halvings, after)
        self.judge = nn.Linear(widths[-1], 1)
        self.embed = nn.Embedding(spec.num_classes, widths[-1]) if spec.num_classes else None

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        h = F.leaky_relu(self.look(x), 0.2)
        for block in self.blocks:
            h = _at(self.attention, block(h))
        h = h.mean((2, 3))
        logits = self.judge(h).squeeze(1)
        if self.embed is not None:
            logits = logits + (self.embed(y) * h).sum(1)
        return logits.float()

    def attention_layers(self) -> dict[str, nn.Module]:
        """Longer side of the map -> its attention block."""
        return dict(self.attention.items())


def build(spec: ModelSpec) -> tuple[Generator, Discriminator]:
    """Return the generator and discriminator of a spec.

    Raises:
        UsageError: a size that cannot be halved twice, a map that does not exist at this size, or an unknown option.
    """
    stages = _stages(spec.height, spec.width)
    if stages < 2:
        raise UsageError(
            f"--size {spec.height}x{spec.width}: tiny needs sides that can be halved twice and stay 3 or more"
        )
    for name, value in spec.options.items():
        if name != "heads":
            raise UsageError(f"{option_text(name, value)}: architecture 'tiny' has one option, heads")
    # Neither the start grid nor the full picture: no block of both networks ends there.
    sites = [max(spec.height, spec.width) >> stage for stage in range(stages - 1, 0, -1)]
    for side in spec.attn_at:
        if side not in sites:
            raise UsageError(f"--attn-at {side}: tiny has maps {', '.join(map(str, sites))} at this size (or none)")
    return Generator(spec, stages), Discriminator(spec, stages)


def _stages(height: int, width: int) -> int:
    """Return how often both sides can be halved with the shorter one staying at 3 or more."""
    stages = 0
    while height % 2 == width % 2 == 0 and min(height, width) >= 6:
        height, width, stages = height // 2, width // 2, stages + 1
    return stages


def _width(spec: ModelSpec, halvings: int) -> int:
    """Return the channels of the map after the given number of halvings."""
    return spec.base_width * min(2**halvings, MAX_FACTOR)


def _attend(layers: nn.ModuleDict, spec: ModelSpec, halvings: int, channels: int) -> None:
    """Add attention on the map after the given number of halvings, if it is in `spec.attn_at`."""
    side = max(spec.height, spec.width) >> halvings
    if side not in spec.attn_at:
        return
    heads = spec.options.get("heads", 1)
    if not isinstance(heads, int) or heads < 1 or channels % heads:
        raise UsageError(f"--set model.options.heads={heads}: write a divisor of the map's {channels} channels")
    layers[str(side)] = MultiHeadAttention(channels, heads)


def _at(layers: nn.ModuleDict, x: Tensor) -> Tensor:
    """Return the map after its attention, if it has one."""
    side = str(max(x.shape[2:]))
    attended: Tensor = layers[side](x) if side in layers else x
    return attended
