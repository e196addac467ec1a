"""The generators of other projects, stated again as plain functions of their state dicts, and random ones to try.

Nothing is shared with the package: each function reads the foreign names directly and computes with torch.nn.functional
what the project's evaluation computes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


class Dice:
    """A state dict filled at random: every tensor alive, activations of a size that keeps tanh off its ends."""

    def __init__(self, seed: int) -> None:
        self.state: State = {}
        self._dice = torch.Generator().manual_seed(seed)

    def normal(self, name: str, *shape: int, scale: float = 1.0, mean: float = 0.0) -> None:
        self.state[name] = mean + scale * torch.randn(shape, generator=self._dice)

    def variance(self, name: str, channels: int) -> None:
        self.state[name] = torch.rand(channels, generator=self._dice) + 0.5

    def unit(self, name: str, *shape: int) -> None:
        self.normal(name, *shape)
        self.state[name] /= self.state[name].norm()

    def batch_norm(self, name: str, channels: int, *, affine: bool) -> None:
        """Names and dtypes of torch.nn.BatchNorm2d."""
        if affine:
            self.normal(f"{name}.weight", channels, scale=0.3, mean=1)
            self.normal(f"{name}.bias", channels, scale=0.3)
        self.normal(f"{name}.running_mean", channels, scale=0.3)
        self.variance(f"{name}.running_var", channels)
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(123)


# BigGAN-PyTorch -------------------------------------------------------------------------------------------------------


def biggan_state(ch: int = 4, latent: int = 20, classes: int = 5, attention: tuple[int, ...] = (64,)) -> State:
    """SAGAN-128 of BigGAN.py with G_shared off; `attention` by side."""
    dice = Dice(1)

    def layer(name: str, *shape: int, bias: bool = True) -> None:
        dice.normal(f"{name}.weight", *shape)
        if bias:
            dice.normal(f"{name}.bias", shape[0], scale=0.2)
        dice.normal(f"{name}.u0", 1, shape[0])
        dice.state[f"{name}.sv0"] = torch.ones(1)

    def norm(name: str, channels: int) -> None:
        for part in ("gain", "bias"):
            dice.normal(f"{name}.{part}.weight", classes, channels, scale=0.4)
        dice.normal(f"{name}.stored_mean", channels, scale=0.3)
        dice.variance(f"{name}.stored_var", channels)

    layer("linear", 16 * ch * 16, latent)
    widths = [16 * ch, 16 * ch, 8 * ch, 4 * ch, 2 * ch, ch]
    for i in range(5):
        a, b = widths[i], widths[i + 1]
        layer(f"blocks.{i}.0.conv1", b, a, 3, 3)
        layer(f"blocks.{i}.0.conv2", b, b, 3, 3)
        layer(f"blocks.{i}.0.conv_sc", b, a, 1, 1)
        norm(f"blocks.{i}.0.bn1", a)
        norm(f"blocks.{i}.0.bn2", b)
        if 8 << i in attention:
            dice.state[f"blocks.{i}.1.gamma"] = torch.tensor(0.7)
            for part, o, c in (("theta", b // 8, b), ("phi", b // 8, b), ("g", b // 2, b), ("o", b, b // 2)):
                layer(f"blocks.{i}.1.{part}", o, c, 1, 1, bias=False)
    dice.normal("output_layer.0.gain", ch, scale=0.3, mean=1)
    dice.normal("output_layer.0.bias", ch, scale=0.3)
    dice.normal("output_layer.0.stored_mean", ch, scale=0.3)
    dice.variance("output_layer.0.stored_var", ch)
    layer("output_layer.2", 3, ch, 3, 3)
    return dice.state


def biggan(state: State, z: Tensor, y: Tensor) -> Tensor:
    """G(z, y) in evaluation mode, with --G_eval_mode."""

    def weight(name: str) -> Tensor:
        w = state[f"{name}.weight"]
        matrix = w.reshape(w.shape[0], -1)
        v = F.normalize(state[f"{name}.u0"] @ matrix)
        u = F.normalize(v @ matrix.T)
        return w / (v @ matrix.T @ u.T).squeeze()

    def conv(x: Tensor, name: str) -> Tensor:
        w = weight(name)
        return F.conv2d(x, w, state.get(f"{name}.bias"), padding=w.shape[2] // 2)

    def norm(x: Tensor, name: str) -> Tensor:
        x = F.batch_norm(x, state[f"{name}.stored_mean"], state[f"{name}.stored_var"])
        gain, bias = 1 + state[f"{name}.gain.weight"][y], state[f"{name}.bias.weight"][y]
        return x * gain[:, :, None, None] + bias[:, :, None, None]

    h = F.linear(z, weight("linear"), state["linear.bias"]).view(len(z), -1, 4, 4)
    i = 0
    while f"blocks.{i}.0.conv1.weight" in state:
        name = f"blocks.{i}.0"
        x = F.interpolate(h, scale_factor=2)
        h = F.interpolate(F.relu(norm(h, f"{name}.bn1")), scale_factor=2)
        h = conv(F.relu(norm(conv(h, f"{name}.conv1"), f"{name}.bn2")), f"{name}.conv2") + conv(x, f"{name}.conv_sc")
        if f"blocks.{i}.1.gamma" in state:
            names = [f"blocks.{i}.1.{part}" for part in ("theta", "phi", "g", "o")]
            h = h + state[f"blocks.{i}.1.gamma"] * attended(h, names, conv)
        i += 1
    last = "output_layer.0"
    statistics = state[f"{last}.stored_mean"], state[f"{last}.stored_var"]
    h = F.batch_norm(h, *statistics, state[f"{last}.gain"], state[f"{last}.bias"])
    return torch.tanh(conv(F.relu(h), "output_layer.2"))


def attended(x: Tensor, names: list[str], conv: Callable[[Tensor, str], Tensor]) -> Tensor:
    """The released block's o, before gamma: what three of the projects compute alike."""
    (b, _, height, width), (query, key, value, output) = x.shape, names
    q = conv(x, query).flatten(2)
    k, v = (F.max_pool2d(conv(x, name), 2).flatten(2) for name in (key, value))
    beta = torch.softmax(torch.bmm(q.transpose(1, 2), k), dim=-1)
    return conv(torch.bmm(v, beta.transpose(1, 2)).view(b, -1, height, width), output)


# PyTorch's hook, which StudioGAN and the ResNet port use --------------------------------------------------------------


def hook_layer(dice: Dice, name: str, *shape: int, bias: bool = True) -> None:
    """The keys of torch.nn.utils.spectral_norm, with vectors that have not converged."""
    dice.normal(f"{name}.weight_orig", *shape)
    if bias:
        dice.normal(f"{name}.bias", shape[0], scale=0.2)
    w = dice.state[f"{name}.weight_orig"].flatten(1)
    dice.unit(f"{name}.weight_u", shape[0])
    dice.state[f"{name}.weight_v"] = F.normalize(w.T @ dice.state[f"{name}.weight_u"], dim=0)
    dice.state[f"{name}.weight_u"] = F.normalize(w @ dice.state[f"{name}.weight_v"], dim=0)


def hook_weight(state: State, name: str) -> Tensor:
    w = state[f"{name}.weight_orig"]
    return w / torch.dot(state[f"{name}.weight_u"], w.flatten(1) @ state[f"{name}.weight_v"])


def hook_conv(state: State) -> Callable[[Tensor, str], Tensor]:
    def conv(x: Tensor, name: str) -> Tensor:
        w = hook_weight(state, name)
        return F.conv2d(x, w, state.get(f"{name}.bias"), padding=w.shape[2] // 2)

    return conv


# StudioGAN ------------------------------------------------------------------------------------------------------------

STUDIO_WIDTHS = {
    32: ([4, 4, 4], [4, 4, 4]), 64: ([16, 8, 4, 2], [8, 4, 2, 1]), 128: ([16, 16, 8, 4, 2], [16, 8, 4, 2, 1]),
}  # fmt: skip


def studiogan_state(
    size: int = 64, ch: int = 4, latent: int = 12, classes: int = 5, attn_g_loc: tuple[int, ...] = (3,)
) -> State:
    """models/resnet.py; without classes its norms are torch's own."""
    dice = Dice(2)

    def norm(name: str, channels: int) -> None:
        if not classes:
            dice.batch_norm(name, channels, affine=True)
            return
        dice.batch_norm(f"{name}.bn", channels, affine=False)
        for part in ("gain", "bias"):
            hook_layer(dice, f"{name}.{part}", channels, classes, bias=False)

    inputs, outputs = ([ch * m for m in side] for side in STUDIO_WIDTHS[size])
    hook_layer(dice, "linear0", inputs[0] * 16, latent)
    i = 0
    for number, (a, b) in enumerate(zip(inputs, outputs, strict=True), start=1):
        name = f"blocks.{i}.0"
        norm(f"{name}.bn1", a)
        norm(f"{name}.bn2", b)
        hook_layer(dice, f"{name}.conv2d0", b, a, 1, 1)
        hook_layer(dice, f"{name}.conv2d1", b, a, 3, 3)
        hook_layer(dice, f"{name}.conv2d2", b, b, 3, 3)
        i += 1
        if number in attn_g_loc:
            dice.state[f"blocks.{i}.0.sigma"] = torch.tensor([-0.8])
            for part, o, c in (("theta", b // 8, b), ("phi", b // 8, b), ("g", b // 2, b), ("attn", b, b // 2)):
                hook_layer(dice, f"blocks.{i}.0.conv1x1_{part}", o, c, 1, 1, bias=False)
            i += 1
    dice.batch_norm("bn4", outputs[-1], affine=True)
    # A variance so small that the epsilons, 1e-4 there and 1e-5 here, make a visible difference.
    dice.state["bn4.running_var"] *= 1e-3
    dice.state["bn4.weight"] *= 0.05
    hook_layer(dice, "conv2d5", 3, outputs[-1], 3, 3)
    return dice.state


def studiogan(state: State, z: Tensor, y: Tensor | None) -> Tensor:
    """G(z, y) in evaluation mode."""
    conv = hook_conv(state)

    def norm(x: Tensor, name: str) -> Tensor:
        if y is None:
            return plain(x, name)
        x = F.batch_norm(x, state[f"{name}.bn.running_mean"], state[f"{name}.bn.running_var"], eps=1e-4)
        classes = state[f"{name}.gain.weight_orig"].shape[1]
        one_hot = F.one_hot(y, classes).float()
        gain, bias = (F.linear(one_hot, hook_weight(state, f"{name}.{part}")) for part in ("gain", "bias"))
        return x * (1 + gain)[:, :, None, None] + bias[:, :, None, None]

    def plain(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, bias, eps=1e-4)

    h = F.linear(z, hook_weight(state, "linear0"), state["linear0.bias"]).view(len(z), -1, 4, 4)
    for i in range(sum(name.endswith(("conv2d0.weight_orig", "sigma")) for name in state)):
        name = f"blocks.{i}.0"
        if f"{name}.sigma" in state:
            names = [f"{name}.conv1x1_{part}" for part in ("theta", "phi", "g", "attn")]
            h = h + state[f"{name}.sigma"] * attended(h, names, conv)
            continue
        x = conv(F.interpolate(h, scale_factor=2), f"{name}.conv2d0")
        h = conv(F.interpolate(F.relu(norm(h, f"{name}.bn1")), scale_factor=2), f"{name}.conv2d1")
        h = conv(F.relu(norm(h, f"{name}.bn2")), f"{name}.conv2d2") + x
    return torch.tanh(conv(F.relu(plain(h, "bn4")), "conv2d5"))


# The ResNet port ------------------------------------------------------------------------------------------------------


def voletiv_state(ch: int = 4, latent: int = 12, classes: int = 5) -> State:
    """sagan_models.py, every bias of its attention alive."""
    dice = Dice(3)

    def norm(name: str, channels: int) -> None:
        dice.batch_norm(f"{name}.bn", channels, affine=False)
        dice.normal(f"{name}.embed.weight", classes, 2 * channels, scale=0.5, mean=0.5)

    hook_layer(dice, "snlinear0", 16 * ch * 16, latent)
    widths = [16 * ch, 16 * ch, 8 * ch, 4 * ch, 2 * ch, ch]
    for i in range(5):
        name, a, b = f"block{i + 1}", widths[i], widths[i + 1]
        norm(f"{name}.cond_bn1", a)
        norm(f"{name}.cond_bn2", b)
        hook_layer(dice, f"{name}.snconv2d1", b, a, 3, 3)
        hook_layer(dice, f"{name}.snconv2d2", b, b, 3, 3)
        hook_layer(dice, f"{name}.snconv2d0", b, a, 1, 1)
    c = 4 * ch
    dice.state["self_attn.sigma"] = torch.tensor([0.9])
    for part, o, i in (("theta", c // 8, c), ("phi", c // 8, c), ("g", c // 2, c), ("attn", c, c // 2)):
        hook_layer(dice, f"self_attn.snconv1x1_{part}", o, i, 1, 1)
    dice.batch_norm("bn", ch, affine=True)
    hook_layer(dice, "snconv2d1", 3, ch, 3, 3)
    return dice.state


def voletiv(state: State, z: Tensor, y: Tensor) -> Tensor:
    """G(z, y) in evaluation mode."""
    conv = hook_conv(state)

    def norm(x: Tensor, name: str) -> Tensor:
        x = F.batch_norm(x, state[f"{name}.bn.running_mean"], state[f"{name}.bn.running_var"])
        gamma, beta = state[f"{name}.embed.weight"][y].chunk(2, 1)
        return gamma[:, :, None, None] * x + beta[:, :, None, None]

    h = F.linear(z, hook_weight(state, "snlinear0"), state["snlinear0.bias"]).view(len(z), -1, 4, 4)
    for i in range(1, 6):
        name = f"block{i}"
        x = conv(F.interpolate(h, scale_factor=2), f"{name}.snconv2d0")
        h = conv(F.interpolate(F.relu(norm(h, f"{name}.cond_bn1")), scale_factor=2), f"{name}.snconv2d1")
        h = conv(F.relu(norm(h, f"{name}.cond_bn2")), f"{name}.snconv2d2") + x
        if i == 3:
            names = [f"self_attn.snconv1x1_{part}" for part in ("theta", "phi", "g", "attn")]
            h = h + state["self_attn.sigma"] * attended(h, names, conv)
    mean, var, weight, bias = (state[f"bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return torch.tanh(conv(F.relu(F.batch_norm(h, mean, var, weight, bias)), "snconv2d1"))


# The DCGAN-shaped port ------------------------------------------------------------------------------------------------


def heykeetae_state(conv_dim: int = 8, latent: int = 20) -> State:
    """sagan_models.py at 64 pixels; there conv_dim is 64, as the attention's widths are written down as numbers."""
    dice = Dice(4)
    widths = [latent, 8 * conv_dim, 4 * conv_dim, 2 * conv_dim, conv_dim]
    for n in range(1, 5):
        a, b = widths[n - 1], widths[n]
        dice.normal(f"l{n}.0.module.bias", b, scale=0.2)
        dice.unit(f"l{n}.0.module.weight_u", a)
        dice.unit(f"l{n}.0.module.weight_v", b * 16)
        dice.normal(f"l{n}.0.module.weight_bar", a, b, 4, 4)
        dice.batch_norm(f"l{n}.1", b, affine=True)
        # Of the size that the normalised layers' outputs have, or all pictures would look alike.
        dice.state[f"l{n}.1.running_mean"] *= 0.1
        dice.state[f"l{n}.1.running_var"] *= 0.2
    dice.normal("last.0.weight", conv_dim, 3, 4, 4, scale=0.2 * conv_dim**-0.5)
    dice.normal("last.0.bias", 3, scale=0.1)
    for name, c in (("attn1", 2 * conv_dim), ("attn2", conv_dim)):
        dice.state[f"{name}.gamma"] = torch.tensor([0.6])
        for part, o in (("query", c // 8), ("key", c // 8), ("value", c)):
            dice.normal(f"{name}.{part}_conv.weight", o, c, 1, 1, scale=0.6 * c**-0.5)
            dice.normal(f"{name}.{part}_conv.bias", o, scale=0.4)
    return dice.state


def heykeetae(state: State, z: Tensor) -> Tensor:
    """The pictures of G(z) in evaluation mode, the first forward pass after loading: u and v take a step in it."""

    def attention(x: Tensor, name: str) -> Tensor:
        b, c, height, width = x.shape
        q, k, v = (
            F.conv2d(x, state[f"{name}.{part}_conv.weight"], state[f"{name}.{part}_conv.bias"]).flatten(2)
            for part in ("query", "key", "value")
        )
        beta = torch.softmax(torch.bmm(q.transpose(1, 2), k), dim=-1)
        return state[f"{name}.gamma"] * torch.bmm(v, beta.transpose(1, 2)).view(b, c, height, width) + x

    h = z[:, :, None, None]
    for n in range(1, 5):
        name = f"l{n}.0.module"
        w = state[f"{name}.weight_bar"]
        matrix = w.reshape(w.shape[0], -1)
        v = matrix.T @ state[f"{name}.weight_u"]
        v = v / (v.norm() + 1e-12)
        u = matrix @ v
        u = u / (u.norm() + 1e-12)
        w = w / torch.dot(u, matrix @ v)
        stride, padding = (1, 0) if n == 1 else (2, 1)
        h = F.conv_transpose2d(h, w, state[f"{name}.bias"], stride, padding)
        norm = [state[f"l{n}.1.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        h = F.relu(F.batch_norm(h, *norm))
        if n >= 3:
            h = attention(h, f"attn{n - 2}")
    return torch.tanh(F.conv_transpose2d(h, state["last.0.weight"], state["last.0.bias"], 2, 1))
