"""The residual SAGAN as its PyTorch ports write it, class-conditional, for square pictures from 32 pixels up.

Doubling is nearest-neighbour followed by a 3x3 convolution, halving a 3x3 convolution followed by average pooling, and
the 1x1 convolution of a shortcut runs on the larger map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from textbook.attention import PooledAttention


@dataclass(frozen=True)
class Plan:
    """Widths of both networks, and the blocks that attention follows (counted from 1)."""

    g_widths: tuple[int, ...]
    """Channels of G's maps, from 4x4 to the picture's size."""
    d_widths: tuple[int, ...]
    """Channels that D's blocks end on."""
    d_halves: int
    """So many of D's blocks halve the map, the first ones."""
    g_attention: int
    d_attention: int
    classes: int
    latent: int = 128


def released(size: int, width: int, classes: int, attention: int) -> Plan:
    """The authors' network: channels double with each halving, up to 16 times `width`; `attention` is a map's side."""
    stages = (size // 4).bit_length() - 1
    widths = [width * min(16, 2**k) for k in range(stages + 1)]
    after = (attention // 4).bit_length() - 1
    return Plan(tuple(reversed(widths)), tuple(widths), stages, after, stages - after, classes)


def cifar(width: int, classes: int) -> Plan:
    """The network for CIFAR-10: 256 channels in G and 128 in D at width 64, attention on the maps of 16."""
    return Plan((4 * width,) * 4, (2 * width,) * 4, 2, 2, 1, classes)


class ConditionalBatchNorm(nn.Module):
    """Batch norm, then a gain and a bias of each class from one embedding."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.channels = channels
        self.bn = nn.BatchNorm2d(channels, affine=False)
        self.embed = nn.Embedding(classes, 2 * channels)
        self.embed.weight.data[:, :channels].fill_(1.0)
        self.embed.weight.data[:, channels:].zero_()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out = self.bn(x)
        gain, bias = self.embed(y).chunk(2, dim=1)
        return gain.view(-1, self.channels, 1, 1) * out + bias.view(-1, self.channels, 1, 1)


class UpBlock(nn.Module):
    """G's block: (B, I, H, W) -> (B, O, 2H, 2W)."""

    def __init__(self, i: int, o: int, classes: int) -> None:
        super().__init__()
        self.norm0, self.norm1 = ConditionalBatchNorm(i, classes), ConditionalBatchNorm(o, classes)
        self.conv0 = spectral_norm(nn.Conv2d(i, o, 3, padding=1))
        self.conv1 = spectral_norm(nn.Conv2d(o, o, 3, padding=1))
        self.shortcut = spectral_norm(nn.Conv2d(i, o, 1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = F.interpolate(F.relu(self.norm0(x, y)), scale_factor=2, mode="nearest")
        h = self.conv1(F.relu(self.norm1(self.conv0(h), y)))
        return h + self.shortcut(F.interpolate(x, scale_factor=2, mode="nearest"))


class DownBlock(nn.Module):
    """D's block: (B, I, H, W) -> (B, O, H/2, W/2), or the size kept without `down`."""

    def __init__(self, i: int, o: int, down: bool, first: bool) -> None:
        super().__init__()
        self.down, self.first = down, first
        self.conv0 = spectral_norm(nn.Conv2d(i, o, 3, padding=1))
        self.conv1 = spectral_norm(nn.Conv2d(o, o, 3, padding=1))
        self.shortcut = spectral_norm(nn.Conv2d(i, o, 1)) if down or i != o else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.relu(self.conv0(x if self.first else F.relu(x))))
        if self.down:
            h = F.avg_pool2d(h, 2)
        if self.shortcut is None:
            return h + x
        if self.first:  # the one place where ports pool before the convolution
            return h + self.shortcut(F.avg_pool2d(x, 2))
        skip = self.shortcut(x)
        return h + (F.avg_pool2d(skip, 2) if self.down else skip)


class Generator(nn.Module):
    """z (B, latent), y (B,) -> pictures (B, 3, H, W) in [-1, 1]."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        widths = plan.g_widths
        self.linear = spectral_norm(nn.Linear(plan.latent, widths[0] * 16))
        self.blocks = nn.ModuleList(UpBlock(widths[k], widths[k + 1], plan.classes) for k in range(len(widths) - 1))
        self.attend_after = plan.g_attention
        self.attention = PooledAttention(widths[plan.g_attention])
        self.norm = nn.BatchNorm2d(widths[-1])
        self.last = spectral_norm(nn.Conv2d(widths[-1], 3, 3, padding=1))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        h = self.linear(z).view(z.size(0), -1, 4, 4)
        for k, block in enumerate(self.blocks, start=1):
            h = block(h, y)
            if k == self.attend_after:
                h = self.attention(h)
        return torch.tanh(self.last(F.relu(self.norm(h))))


class Discriminator(nn.Module):
    """Pictures (B, 3, H, W), y (B,) -> logits (B,), by projection."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        widths = (3, *plan.d_widths)
        self.blocks = nn.ModuleList(
            DownBlock(widths[k], widths[k + 1], down=k < plan.d_halves, first=k == 0) for k in range(len(widths) - 1)
        )
        self.attend_after = plan.d_attention
        self.attention = PooledAttention(widths[plan.d_attention])
        self.linear = spectral_norm(nn.Linear(widths[-1], 1))
        self.embed = spectral_norm(nn.Embedding(plan.classes, widths[-1]))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = x
        for k, block in enumerate(self.blocks, start=1):
            h = block(h)
            if k == self.attend_after:
                h = self.attention(h)
        h = torch.sum(F.relu(h), dim=[2, 3])
        return self.linear(h).squeeze(1) + torch.sum(self.embed(y) * h, dim=1)


class Step:
    """One update of D and one of G, as the best-known collection of GANs takes them.

    Gradients are switched off for the network that is not updated, and fakes are detached: no backward pass is wasted.
    """

    def __init__(self, generator: Generator, discriminator: Discriminator, device: torch.device) -> None:
        self.generator, self.discriminator = generator.to(device).train(), discriminator.to(device).train()
        self.g_optimizer = torch.optim.Adam(generator.parameters(), 1e-4, (0.0, 0.9))
        self.d_optimizer = torch.optim.Adam(discriminator.parameters(), 4e-4, (0.0, 0.9))

    def __call__(self, x: Tensor, y: Tensor, z_d: Tensor, z_g: Tensor) -> tuple[float, float]:
        """x (B, 3, H, W) real pictures and y (B,) classes of real and fake; z_d, z_g (B, latent) -> losses."""
        self._train(self.discriminator, self.generator)
        self.d_optimizer.zero_grad()
        fake = self.generator(z_d, y).detach()
        d_real = self.discriminator(x, y)
        d_fake = self.discriminator(fake, y)
        d_loss = torch.mean(F.relu(1.0 - d_real)) + torch.mean(F.relu(1.0 + d_fake))
        d_loss.backward()
        self.d_optimizer.step()

        self._train(self.generator, self.discriminator)
        self.g_optimizer.zero_grad()
        g_loss = -torch.mean(self.discriminator(self.generator(z_g, y), y))
        g_loss.backward()
        self.g_optimizer.step()
        return d_loss.item(), g_loss.item()

    @staticmethod
    def _train(this: nn.Module, other: nn.Module) -> None:
        for p in this.parameters():
            p.requires_grad = True
        for p in other.parameters():
            p.requires_grad = False
