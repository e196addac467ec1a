"""Self-attention blocks: the authors' release, other published variants, and the controls.

    beta = softmax(f(x) g(x)^T)    o = W (beta h(x))    y = x + gamma o        (Zhang et al. 2019, equations 1 to 3)

With normalised queries and keys (`--qk-norm rms`), f and g are scaled to a root mean square of 1 at every position,
and the scores are s f(x) g(x)^T / sqrt(d) for d channels, with a learned s that starts at 1. Without spectral norm the
features that enter the block grow, and scores of hundreds make every row of beta one-hot, which has no gradient
(Dehghani et al. 2023, arXiv 2302.05442, section 2, on transformers).

The variants differ in the widths of f, g and h, in pooling of keys and values, in the output convolution W, in biases
and in spectral norm. `ATTENTION_VARIANTS` has a row for each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagan_cli.model.layers import Conv2d, SNConv2d
from sagan_cli.ops.dot_product_attention import attend, attention_map
from sagan_cli.ops.precision import wide


@dataclass(frozen=True)
class AttentionVariant:
    """One published variant of the block, for C channels."""

    about: str
    value: str
    """Width of the values: `half` (C / 2), `full` (C) or `ratio` (C / k, as queries and keys)."""
    pooled: bool
    """Whether keys and values are max-pooled 2x2, so that N queries have N / 4 keys."""
    output: bool
    """Whether a 1x1 convolution brings the values back to C channels."""
    bias: bool = False
    spectral: bool = True
    """Whether its convolutions are spectrally normalised if the network's are."""


ATTENTION_VARIANTS = {
    "official": AttentionVariant("the authors' release", "half", True, True),
    "paper": AttentionVariant("the text of the ICML paper: values at C/k, no pooling", "ratio", False, True),
    "port": AttentionVariant("the PyTorch port and the paper's first version: values at C, biases, no output",
                 "full", False, False, bias=True, spectral=False),
    "rows": AttentionVariant("values at C and an output convolution, no pooling", "full", False, True),
}  # fmt: skip
NONLOCAL, RESIDUAL = "nonlocal", "residual"
KINDS = (*ATTENTION_VARIANTS, NONLOCAL, RESIDUAL)
"""Values of `--attention`: the variants and the controls that replace attention."""
RATIOS = (1, 2, 4, 8)
QK_NORMS = ("none", "rms")
"""Values of `--qk-norm`."""
_EPSILON = 1e-6


def attention_block(
    channels: int, kind: str = "official", ratio: int = 8, *, spectral: bool = True, qk_norm: str = "none"
) -> nn.Module:
    """Build the block of a kind in `KINDS`, (B, C, H, W) -> (B, C, H, W).

    Args:
        ratio: k of the paper: queries and keys have C / k channels.
        spectral: whether the network uses spectral norm.
        qk_norm: normalisation of queries and keys, one of `QK_NORMS`; the controls have none.
    """
    if kind == NONLOCAL:
        return NonLocal(channels)
    if kind == RESIDUAL:
        return Residual(channels, spectral=spectral)
    return SelfAttention(channels, ATTENTION_VARIANTS[kind], ratio, spectral=spectral, qk_norm=qk_norm)


class SelfAttention(nn.Module):
    """Self-attention block y = x + gamma o; gamma starts at 0, so the block starts as the identity."""

    def __init__(
        self,
        channels: int,
        form: AttentionVariant = ATTENTION_VARIANTS["official"],
        ratio: int = 8,
        *,
        spectral: bool = True,
        qk_norm: str = "none",
    ) -> None:
        super().__init__()
        self.pooled = form.pooled
        inner = max(channels // ratio, 1)
        width = {"half": max(channels // 2, 1), "full": channels, "ratio": inner}[form.value]
        conv = SNConv2d if form.spectral and spectral else Conv2d
        self.query = conv(channels, inner, 1, bias=form.bias)
        self.key = conv(channels, inner, 1, bias=form.bias)
        self.value = conv(channels, width, 1, bias=form.bias)
        self.output = conv(width, channels, 1, bias=form.bias) if form.output else None
        self.gamma = nn.Parameter(torch.zeros(()))
        self.scale = nn.Parameter(torch.ones(())) if qk_norm == "rms" else None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to (B, C, H, W); H and W must be even if keys are pooled."""
        h, w = x.shape[2:]
        query, key, value = self._project(x)
        o = attend(query, key, value)
        # (B, N, e) is channels_last memory order already, so this is a view.
        o = o.transpose(1, 2).unflatten(2, (h, w))
        if self.output is not None:
            o = self.output(o)
        return x + self.gamma.to(x.dtype) * o.to(x.dtype)

    def maps(self, x: Tensor) -> Tensor:
        """Return the attention maps that `forward` uses for x: (B, N, M), rows sum to 1, row-major positions."""
        query, key, _ = self._project(x)
        return attention_map(query, key)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = self.query(x), self.key(x), self.value(x)
        if self.pooled:
            key, value = F.max_pool2d(key, 2), F.max_pool2d(value, 2)
        query, key, value = _positions(query), _positions(key), _positions(value)
        if self.scale is not None:
            query = (_unit_rms(query) * (self.scale / math.sqrt(query.shape[-1]))).to(value.dtype)
            key = _unit_rms(key).to(value.dtype)
        return query, key, value


class NonLocal(nn.Module):
    """Non-local block, embedded Gaussian (Wang et al. 2018, equations 4 and 6, section 4.1).

    y = x + BN(W (softmax(theta(x) phi(x)^T) g(x))), inner widths C / 2, with biases, without spectral norm. The batch
    norm after W, whose scale starts at 0, has the role of SAGAN's gamma.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 2, 1)
        self.query = Conv2d(channels, inner, 1)
        self.key = Conv2d(channels, inner, 1)
        self.value = Conv2d(channels, inner, 1)
        self.output = Conv2d(inner, channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        h, w = x.shape[2:]
        o = attend(*(_positions(p(x)) for p in (self.query, self.key, self.value)))
        return x + self.norm(self.output(o.transpose(1, 2).unflatten(2, (h, w)))).to(x.dtype)

    def maps(self, x: Tensor) -> Tensor:
        """Return the attention maps that `forward` uses for x: (B, N, N), rows sum to 1."""
        return attention_map(_positions(self.query(x)), _positions(self.key(x)))


class Residual(nn.Module):
    """Control of Zhang et al. 2019, table 1: a residual block with as many weights as the attention block.

    x + conv(ReLU(conv(ReLU(x)))) with 3x3 convolutions and h hidden channels, where 18 C h is as close as possible to
    the 1.25 C^2 weights of the official block.
    """

    def __init__(self, channels: int, *, spectral: bool = True) -> None:
        super().__init__()
        hidden = max(1, round(1.25 * channels / 18))
        conv = SNConv2d if spectral else Conv2d
        self.conv0 = conv(channels, hidden, 3)
        self.conv1 = conv(hidden, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x + self.conv1(F.relu(self.conv0(F.relu(x))))


def _unit_rms(x: Tensor) -> Tensor:
    """Scale (B, N, C) to a root mean square of 1 over the channels, in fp32."""
    x = wide(x)
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + _EPSILON)


def _positions(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H W, C)."""
    return x.flatten(2).transpose(1, 2)
