"""The `sagan` architecture: the networks of the authors' release, generalised to any image size.

At 128 pixels the networks equal the release layer by layer. Other sizes follow its channel rule: a map of 1/2^k of the
image's side has base_width * min(16, 2^k) channels; SAGAN-128 has 16, 16, 8, 4, 2, 1 times base_width.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagan_cli.contracts import ModelSpec
from sagan_cli.errors import UsageError, closest
from sagan_cli.geometry import check_attention, geometry
from sagan_cli.model.attention_blocks import KINDS, RATIOS, attention_block
from sagan_cli.model.blocks import DownBlock, UpBlock
from sagan_cli.model.layers import PLAIN, SPECTRAL, ConditionalBatchNorm2d, LayerTypes
from sagan_cli.ops.precision import no_autocast, wide

MAX_MULTIPLIER = 16


def channels_at(spec: ModelSpec, halvings: int) -> int:
    """Return the channels of a map of 1 / 2^halvings of the image's side."""
    return spec.base_width * min(MAX_MULTIPLIER, 1 << halvings)


@dataclass(frozen=True)
class Options:
    """What else may be said of this architecture: `--attention`, `--attn-ratio`, `--spectral-norm`."""

    attention: str = "official"
    """One of `model.attention.KINDS`."""
    ratio: int = 8
    spectral_norm: str = "both"
    """`both` networks, the discriminator alone (`d`), or `none`."""

    @classmethod
    def of(cls, spec: ModelSpec) -> Options:
        """Those of a specification.

        Raises:
            UsageError: an unknown one, or a value that cannot be.
        """
        known: dict[str, tuple[str, tuple[Any, ...]]] = {
            "attention": ("attention", KINDS), "attn_ratio": ("ratio", RATIOS),
            "spectral_norm": ("spectral_norm", ("both", "d", "none")),
        }  # fmt: skip
        values = {}
        for name, value in spec.options.items():
            if name not in known:
                raise UsageError(
                    f"--set model.options.{name}: architecture 'sagan' has no such option{closest(name, known)}"
                )
            field, choices = known[name]
            if value not in choices:
                flag = "--" + name.replace("_", "-")
                raise UsageError(f"{flag} {value}: choose {', '.join(map(str, choices))}")
            values[field] = value
        return cls(**values)

    @property
    def generator(self) -> LayerTypes:
        """What G is built of."""
        return SPECTRAL if self.spectral_norm == "both" else PLAIN

    @property
    def discriminator(self) -> LayerTypes:
        """What D is built of."""
        return PLAIN if self.spectral_norm == "none" else SPECTRAL


DEFAULT = Options()


class Generator(nn.Module):
    """Generator: z (B, latent) ~ N(0, 1), y (B,) class indices or None -> images (B, C, H, W) in [-1, 1]."""

    def __init__(self, spec: ModelSpec, options: Options = DEFAULT) -> None:
        super().__init__()
        kit = options.generator
        grid = geometry(spec.height, spec.width)
        self.start = (grid.start_height, grid.start_width)
        widths = [channels_at(spec, grid.stages - i) for i in range(grid.stages + 1)]
        self.linear = kit.linear(spec.latent, widths[0] * grid.start_height * grid.start_width)
        self.blocks = nn.ModuleList(UpBlock(i, o, spec.num_classes, kit) for i, o in pairwise(widths))
        self.attention = _attention(spec, options, kit, {side: widths[k] for side, k in grid.attention_sites().items()})
        # Number of blocks before each attention layer.
        self.attend_after = {k: str(side) for side, k in grid.attention_sites().items() if side in spec.attn_at}
        self.norm = ConditionalBatchNorm2d(widths[-1])  # the last norm is not conditional
        self.to_image = kit.conv(widths[-1], spec.channels, 3)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.linear(z).unflatten(1, (*self.start, -1)).permute(0, 3, 1, 2)
        for done, block in enumerate(self.blocks, start=1):
            h = block(h, y)
            if done in self.attend_after:
                h = self.attention[self.attend_after[done]](h)
        return torch.tanh(wide(self.to_image(F.relu(self.norm(h, None)))))

    def attention_layers(self) -> dict[str, nn.Module]:
        """Return the attention blocks by longer side of their map, in the order of the forward pass."""
        return {name: block for name, block in self.attention.items() if hasattr(block, "maps")}


class Discriminator(nn.Module):
    """Discriminator: images (B, C, H, W) in [-1, 1], y (B,) or None -> logits (B,).

    The logit is psi(h) + <embed(y), h> (projection, Miyato and Koyama 2018), or psi(h) without classes.
    """

    def __init__(self, spec: ModelSpec, options: Options = DEFAULT) -> None:
        super().__init__()
        kit = options.discriminator
        grid = geometry(spec.height, spec.width)
        widths = [spec.channels] + [channels_at(spec, i) for i in range(grid.stages)]
        downs = [DownBlock(i, o, first=(n == 0), kit=kit) for n, (i, o) in enumerate(pairwise(widths))]
        top = channels_at(spec, grid.stages)
        self.blocks = nn.ModuleList([*downs, DownBlock(widths[-1], top, down=False, kit=kit)])
        # D meets the large maps first.
        sites = {side: grid.stages - k for side, k in reversed(grid.attention_sites().items())}
        self.attention = _attention(spec, options, kit, {side: widths[n] for side, n in sites.items()})
        self.attend_after = {n: str(side) for side, n in sites.items() if side in spec.attn_at}
        self.linear = kit.linear(top, 1)
        self.embed = kit.embedding(spec.num_classes, top) if spec.num_classes else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = x
        for done, block in enumerate(self.blocks, start=1):
            h = block(h)
            if done in self.attend_after:
                h = self.attention[self.attend_after[done]](h)
        h = wide(F.relu(h)).sum(dim=(2, 3))  # sum, not mean, as in the authors' release
        with no_autocast(h):
            logits: Tensor = self.linear(h).squeeze(1)
            if self.embed is not None:
                assert y is not None, "a class-conditional network needs labels"
                logits = logits + (self.embed(y) * h).sum(1)
        return logits

    def attention_layers(self) -> dict[str, nn.Module]:
        """Return the attention blocks by longer side of their map, in the order of the forward pass."""
        return {name: block for name, block in self.attention.items() if hasattr(block, "maps")}


def build(spec: ModelSpec) -> tuple[Generator, Discriminator]:
    """Build the `sagan` networks.

    Raises:
        UsageError: unsupported image size, attention map or option.
    """
    check_attention(spec.height, spec.width, spec.attn_at)
    options = Options.of(spec)
    return Generator(spec, options), Discriminator(spec, options)


def _attention(spec: ModelSpec, options: Options, kit: LayerTypes, widths: dict[int, int]) -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            str(side): attention_block(width, options.attention, options.ratio, spectral=kit.spectral)
            for side, width in widths.items()
            if side in spec.attn_at
        }
    )
