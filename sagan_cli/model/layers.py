"""Layers of both networks: spectrally normalised convolution, linear and embedding, and conditional batch norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagan_cli.ops.batch_norm import batch_norm, modulate
from sagan_cli.ops.resample import Make, conv_of_doubled, halved_conv
from sagan_cli.ops.spectral_norm import as_matrix, normalised, power_iteration


class SpectralNormed(nn.Module):
    """A weight that is divided by its largest singular value whenever it is used.

    `advance_` moves the estimate; the training step calls it once per optimiser step of the network, `forward` never.
    """

    u: Tensor | None
    v: Tensor | None

    def __init__(self, shape: tuple[int, ...], *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None
        nn.init.xavier_uniform_(self.weight)  # the authors' release; biases start at 0
        rows, columns = as_matrix(self.weight).shape
        if self.weight.is_meta:
            # There are no numbers to start from, and computing with none loads PyTorch's compiler: seconds.
            self.register_buffer("u", torch.empty(rows))
            self.register_buffer("v", torch.empty(columns))
            return
        self.register_buffer("u", F.normalize(torch.randn(rows), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(columns), dim=0))
        # A fresh estimate can be far too small, which would make the first forward pass explode.
        self.advance_(iterations=10)

    @torch.no_grad()
    def advance_(self, iterations: int = 1) -> None:
        """Power iteration on the current weight, in place."""
        if self.u is not None and self.v is not None:
            power_iteration(self.weight, self.u, self.v, iterations)

    def bar(self) -> Tensor:
        """The normalised weight, in fp32; of a folded layer the weight itself."""
        if self.u is None or self.v is None:
            return self.weight
        return normalised(self.weight, self.u, self.v)

    @torch.no_grad()
    def fold_(self) -> None:
        """Make the normalised weight the weight, for a network that is not trained any further: u and v go."""
        if not self.weight.is_meta:
            self.weight.copy_(self.bar())
        self.u = self.v = None


class SNConv2d(SpectralNormed):
    """A 1x1 or 3x3 convolution that keeps the map's size, or halves or doubles it on the way (3x3 only)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, bias: bool = True) -> None:
        super().__init__((out_channels, in_channels, kernel, kernel), bias=bias)
        self.padding = kernel // 2
        self._resampling: Tensor | None = None  # the kernel of `up` or `down`, kept once the layer is folded

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.bar(), self.bias, padding=self.padding)

    def up(self, x: Tensor) -> Tensor:
        """conv(nearest2x(x))."""
        return conv_of_doubled(x, self.bar(), self.bias, None if self.u is not None else self._once)

    def down(self, x: Tensor) -> Tensor:
        """avgpool2x2(conv(x))."""
        return halved_conv(x, self.bar(), self.bias, None if self.u is not None else self._once)

    def _once(self, make: Make, dtype: torch.dtype) -> Tensor:
        if self._resampling is None or self._resampling.dtype != dtype:
            self._resampling = make(self.weight.detach(), dtype)
        return self._resampling


class Conv2d(nn.Module):
    """The same without spectral norm: a 1x1 or 3x3 convolution that keeps, halves or doubles the map."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.padding = kernel // 2
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, padding=self.padding)

    def up(self, x: Tensor) -> Tensor:
        """conv(nearest2x(x))."""
        return conv_of_doubled(x, self.weight, self.bias)

    def down(self, x: Tensor) -> Tensor:
        """avgpool2x2(conv(x))."""
        return halved_conv(x, self.weight, self.bias)


class SNLinear(SpectralNormed):
    """(B, in) -> (B, out)."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        super().__init__((out_features, in_features), bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.bar(), self.bias)


class Linear(nn.Linear):
    """The same without spectral norm, and with the same start: Xavier weights, biases at 0."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias=bias)
        nn.init.xavier_uniform_(self.weight)
        if bias:
            nn.init.zeros_(self.bias)


class SNEmbedding(SpectralNormed):
    """Class index (B,) -> (B, features)."""

    def __init__(self, num_classes: int, features: int) -> None:
        super().__init__((num_classes, features), bias=False)

    def forward(self, y: Tensor) -> Tensor:
        return F.embedding(y, self.bar())


class Embedding(nn.Embedding):
    """The same without spectral norm, and with the same start."""

    def __init__(self, num_classes: int, features: int) -> None:
        super().__init__(num_classes, features)
        nn.init.xavier_uniform_(self.weight)


@dataclass(frozen=True)
class Kit:
    """The layers that a network is built of: all spectrally normalised, or none."""

    conv: type[SNConv2d] | type[Conv2d]
    linear: type[SNLinear] | type[Linear]
    embedding: type[SNEmbedding] | type[Embedding]
    spectral: bool


SPECTRAL = Kit(SNConv2d, SNLinear, SNEmbedding, True)
PLAIN = Kit(Conv2d, Linear, Embedding, False)


class ConditionalBatchNorm2d(nn.Module):
    """Batch norm whose gain and bias are looked up by class (de Vries et al. 2017), or shared when num_classes is 0.

    The tables are not spectrally normalised, as in the authors' release: normalising them cripples G.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, num_classes: int = 0, *, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        rows = max(num_classes, 1)
        self.gain = nn.Parameter(torch.ones(rows, channels))
        self.bias = nn.Parameter(torch.zeros(rows, channels))
        self.conditional = num_classes > 0
        self.momentum, self.eps = momentum, eps
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """x (B, C, H, W), y (B,) class indices (ignored when unconditional) -> (B, C, H, W)."""
        x = batch_norm(
            x, self.running_mean, self.running_var, training=self.training, momentum=self.momentum, eps=self.eps
        )
        if not self.conditional:
            return modulate(x, self.gain, self.bias)
        assert y is not None, "a class-conditional network needs labels"
        return modulate(x, F.embedding(y, self.gain), F.embedding(y, self.bias))
