"""Layers of both networks: spectrally normalised convolution, linear and embedding, and conditional batch norm."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sagan_cli.ops.batch_norm import batch_norm, modulate
from sagan_cli.ops.resample import Make, pooled_conv, upsampled_conv
from sagan_cli.ops.spectral_norm import as_matrix, normalised, power_iteration

_WORD = 0xFFFFFFFF
_MULTIPLIER = 0x045D9F3B


class SpectralNormed(nn.Module):
    """A weight that is divided by an estimate of its largest singular value whenever it is used.

    The training loop calls `advance_` once per optimiser step of the network to update the estimate.
    """

    u: Tensor | None
    v: Tensor | None

    def __init__(self, shape: tuple[int, ...], *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None
        nn.init.xavier_uniform_(self.weight)  # as in the authors' release
        rows, columns = as_matrix(self.weight).shape
        if self.weight.is_meta:
            # Computing on the meta device would import PyTorch's compiler, which takes seconds.
            self.register_buffer("u", torch.empty(rows))
            self.register_buffer("v", torch.empty(columns))
            return
        self.register_buffer("u", F.normalize(torch.randn(rows), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(columns), dim=0))
        # A random estimate can be far too small, and the first forward pass would explode.
        self.advance_(iterations=10)

    @torch.no_grad()
    def advance_(self, iterations: int = 1) -> None:
        """Run power iterations on the current weight, in place."""
        if self.u is not None and self.v is not None:
            power_iteration(self.weight, self.u, self.v, iterations)

    def bar(self) -> Tensor:
        """Return the normalised weight in fp32; the weight itself once folded."""
        if self.u is None or self.v is None:
            return self.weight
        return normalised(self.weight, self.u, self.v)

    @torch.no_grad()
    def fold_(self) -> None:
        """Replace the weight by the normalised weight and drop u and v; the layer cannot be trained further."""
        if not self.weight.is_meta:
            self.weight.copy_(self.bar())
        self.u = self.v = None


class SNConv2d(SpectralNormed):
    """Spectrally normalised 1x1 or 3x3 convolution, with `up` and `down` (3x3 only) that also resample."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, bias: bool = True) -> None:
        super().__init__((out_channels, in_channels, kernel, kernel), bias=bias)
        self.padding = kernel // 2
        self._resampling: Tensor | None = None  # folded kernel of `up` or `down`, cached once the weight is fixed

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.bar(), self.bias, padding=self.padding)

    def up(self, x: Tensor) -> Tensor:
        """Return conv(nearest2x(x))."""
        return upsampled_conv(x, self.bar(), self.bias, None if self.u is not None else self._once)

    def down(self, x: Tensor) -> Tensor:
        """Return avgpool2x2(conv(x))."""
        return pooled_conv(x, self.bar(), self.bias, None if self.u is not None else self._once)

    def _once(self, make: Make, dtype: torch.dtype) -> Tensor:
        if self._resampling is None or self._resampling.dtype != dtype:
            with torch.inference_mode(False), torch.no_grad():  # a later forward pass may need its gradient by x
                self._resampling = make(self.weight.detach(), dtype)
        return self._resampling


class Conv2d(nn.Module):
    """`SNConv2d` without spectral norm."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.padding = kernel // 2
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, padding=self.padding)

    def up(self, x: Tensor) -> Tensor:
        """Return conv(nearest2x(x))."""
        return upsampled_conv(x, self.weight, self.bias)

    def down(self, x: Tensor) -> Tensor:
        """Return avgpool2x2(conv(x))."""
        return pooled_conv(x, self.weight, self.bias)


class SNLinear(SpectralNormed):
    """Spectrally normalised linear layer, (B, in) -> (B, out)."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        super().__init__((out_features, in_features), bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.bar(), self.bias)


class Linear(nn.Linear):
    """`SNLinear` without spectral norm, with the same initialisation: Xavier weights, zero biases."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias=bias)
        nn.init.xavier_uniform_(self.weight)
        if bias:
            nn.init.zeros_(self.bias)


class SNEmbedding(SpectralNormed):
    """Spectrally normalised embedding, class indices (B,) -> (B, features)."""

    def __init__(self, num_classes: int, features: int) -> None:
        super().__init__((num_classes, features), bias=False)

    def forward(self, y: Tensor) -> Tensor:
        return F.embedding(y, self.bar())


class Embedding(nn.Embedding):
    """`SNEmbedding` without spectral norm, with the same initialisation."""

    def __init__(self, num_classes: int, features: int) -> None:
        super().__init__(num_classes, features)
        nn.init.xavier_uniform_(self.weight)

    def reset_parameters(self) -> None:
        """Initialise from N(0, 1), except on the meta device, where that would import PyTorch's compiler."""
        if not self.weight.is_meta:
            super().reset_parameters()


class ConditionalAffine2d(nn.Module):
    """A gain and a bias for each channel and class, or shared when `num_classes` is 0.

    The tables are not spectrally normalised, as in the authors' release.
    """

    def __init__(self, channels: int, num_classes: int = 0) -> None:
        super().__init__()
        rows = max(num_classes, 1)
        self.gain = nn.Parameter(torch.ones(rows, channels))
        self.bias = nn.Parameter(torch.zeros(rows, channels))
        self.conditional = num_classes > 0

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Scale and shift x (B, C, H, W); y (B,) class indices, ignored without classes."""
        if not self.conditional:
            return modulate(x, self.gain, self.bias)
        assert y is not None, "a class-conditional network needs labels"
        return modulate(x, F.embedding(y, self.gain), F.embedding(y, self.bias))


class ConditionalBatchNorm2d(ConditionalAffine2d):
    """Batch norm with a gain and a bias for each class (de Vries et al. 2017), or shared when `num_classes` is 0."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, num_classes: int = 0, *, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__(channels, num_classes)
        self.momentum, self.eps = momentum, eps
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Normalise x (B, C, H, W); y (B,) class indices, ignored without classes."""
        x = batch_norm(
            x, self.running_mean, self.running_var, training=self.training, momentum=self.momentum, eps=self.eps
        )
        return super().forward(x, y)


@dataclass(frozen=True)
class LayerTypes:
    """The layer classes of a network."""

    conv: type[SNConv2d] | type[Conv2d]
    linear: type[SNLinear] | type[Linear]
    embedding: type[SNEmbedding] | type[Embedding]
    spectral: bool
    norm: type[ConditionalAffine2d] = ConditionalBatchNorm2d
    """Norm of the generator's blocks."""


SPECTRAL = LayerTypes(SNConv2d, SNLinear, SNEmbedding, True)
PLAIN = LayerTypes(Conv2d, Linear, Embedding, False)


def layer_types(spectral_norm: str, g_norm: str = "batch") -> tuple[LayerTypes, LayerTypes]:
    """Return the layers of G and of D.

    Args:
        spectral_norm: the networks with spectral norm: `both`, `d` or `none`.
        g_norm: the norm in G: `batch`, or `none` for a gain and a bias alone.
    """
    norm = ConditionalBatchNorm2d if g_norm == "batch" else ConditionalAffine2d
    in_g = replace(SPECTRAL if spectral_norm == "both" else PLAIN, norm=norm)
    return in_g, PLAIN if spectral_norm == "none" else SPECTRAL


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014) whose masks depend only on what a checkpoint holds, so that resuming is exact.

    PyTorch's dropout draws from a generator that checkpoints do not contain. Here a mask is a hash of the layer's seed
    (drawn with its weights), the number of masks so far (both are buffers) and the position, equal on every device.
    """

    stream: Tensor

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        seed = torch.randint(2**31, (1,))
        self.register_buffer("stream", torch.cat([seed, torch.zeros_like(seed)]))  # seed, number of masks so far

    def forward(self, x: Tensor) -> Tensor:
        """Apply dropout to a tensor of any shape; the identity in evaluation mode."""
        if not self.training:
            return x
        # Every process of a distributed run has its own stream.
        rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        key = _hash(_hash(self.stream[0] ^ rank << 20) ^ self.stream[1])
        self.stream[1] += 1
        words = _hash(_hash(torch.arange(x.numel(), device=x.device) ^ key) ^ key).view(x.shape)
        return x * (words >= int(self.p * 2**32)) / (1 - self.p)


def _hash(word: Tensor) -> Tensor:
    """Hash 32-bit words held in int64; products stay below 2^63."""
    for _ in range(2):
        word = ((word ^ word >> 16) * _MULTIPLIER) & _WORD
    return word ^ word >> 16


def fold_network_(network: nn.Module) -> nn.Module:
    """Fold spectral norm into plain weights, in place; outputs in evaluation mode stay bit-identical.

    Folds layers with a method `fold_` and layers parametrised by `torch.nn.utils.parametrize`. The folded network
    cannot be trained further or saved as a checkpoint. It must be in evaluation mode and not a copy of a network that
    is still used: PyTorch changes the class of a parametrised layer, which copies share.
    """
    for module in list(network.modules()):  # a list, because removing parametrizations removes modules
        fold = getattr(module, "fold_", None)
        if fold is not None:
            fold()
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return network
