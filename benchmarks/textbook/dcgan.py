"""The DCGAN-shaped SAGAN of the well-known port, for 64 pixels: attention after the third and the fourth stage."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from textbook.attention import FullAttention


class Generator(nn.Module):
    """z (B, latent) -> pictures (B, 3, 64, 64) in [-1, 1] and the two maps."""

    def __init__(self, latent: int = 128, width: int = 64) -> None:
        super().__init__()
        self.stage1 = self._stage(latent, width * 8, stride=1, padding=0)
        self.stage2 = self._stage(width * 8, width * 4)
        self.stage3 = self._stage(width * 4, width * 2)
        self.stage4 = self._stage(width * 2, width)
        self.attention1 = FullAttention(width * 2)
        self.attention2 = FullAttention(width)
        self.last = nn.Sequential(nn.ConvTranspose2d(width, 3, 4, 2, 1), nn.Tanh())

    @staticmethod
    def _stage(i: int, o: int, stride: int = 2, padding: int = 1) -> nn.Sequential:
        return nn.Sequential(spectral_norm(nn.ConvTranspose2d(i, o, 4, stride, padding)), nn.BatchNorm2d(o), nn.ReLU())

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out = self.stage1(z.view(z.size(0), z.size(1), 1, 1))
        out = self.stage3(self.stage2(out))
        out, map1 = self.attention1(out)
        out, map2 = self.attention2(self.stage4(out))
        return self.last(out), map1, map2


class Discriminator(nn.Module):
    """Pictures (B, 3, 64, 64) -> logits (B,) and the two maps."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.stage1 = self._stage(3, width)
        self.stage2 = self._stage(width, width * 2)
        self.stage3 = self._stage(width * 2, width * 4)
        self.stage4 = self._stage(width * 4, width * 8)
        self.attention1 = FullAttention(width * 4)
        self.attention2 = FullAttention(width * 8)
        self.last = nn.Conv2d(width * 8, 1, 4)

    @staticmethod
    def _stage(i: int, o: int) -> nn.Sequential:
        return nn.Sequential(spectral_norm(nn.Conv2d(i, o, 4, 2, 1)), nn.LeakyReLU(0.1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out = self.stage3(self.stage2(self.stage1(x)))
        out, map1 = self.attention1(out)
        out, map2 = self.attention2(self.stage4(out))
        out = self.last(out)
        return out.view(out.size(0)), map1, map2


class Step:
    """One update of D and one of G, as the port's trainer takes them.

    Fakes are not detached in D's update, so its backward pass runs through G as well; D's gradients are computed in
    G's update, and thrown away by the next `zero_grad`.
    """

    def __init__(self, generator: Generator, discriminator: Discriminator, device: torch.device) -> None:
        self.generator, self.discriminator = generator.to(device).train(), discriminator.to(device).train()
        self.g_optimizer = torch.optim.Adam(generator.parameters(), 1e-4, (0.0, 0.9))
        self.d_optimizer = torch.optim.Adam(discriminator.parameters(), 4e-4, (0.0, 0.9))

    def __call__(self, x: Tensor, z_d: Tensor, z_g: Tensor) -> tuple[float, float]:
        """x (B, 3, 64, 64) real pictures; z_d, z_g (B, latent) -> losses of D and G."""
        d_real, _, _ = self.discriminator(x)
        d_loss_real = torch.nn.ReLU()(1.0 - d_real).mean()
        fake, _, _ = self.generator(z_d)
        d_fake, _, _ = self.discriminator(fake)
        d_loss_fake = torch.nn.ReLU()(1.0 + d_fake).mean()
        d_loss = d_loss_real + d_loss_fake
        self._reset()
        d_loss.backward()
        self.d_optimizer.step()

        fake, _, _ = self.generator(z_g)
        g_fake, _, _ = self.discriminator(fake)
        g_loss = -g_fake.mean()
        self._reset()
        g_loss.backward()
        self.g_optimizer.step()
        return d_loss.item(), g_loss.item()

    def _reset(self) -> None:
        self.d_optimizer.zero_grad()
        self.g_optimizer.zero_grad()
