"""The architectures beside the ResNet: sizes, places of attention, counts, and each forward pass written out again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file
from support.cli import TINY, fails, ok, sagan
from support.idx_files import idx_folder
from torch import Tensor, nn

from sagan_cli.contracts import ModelSpec, PenaltyInputs
from sagan_cli.engine import train as engine
from sagan_cli.engine.job import settled
from sagan_cli.errors import UsageError
from sagan_cli.model.layers import Dropout, SpectralNormed
from sagan_cli.model.sagan_dcgan import SNConvTranspose2d
from sagan_cli.objectives import penalties
from sagan_cli.plugins import registry
from sagan_cli.plugins.registry import default_options
from sagan_cli.testing import check_architecture

ARCHITECTURES = ("sagan-dcgan", "sagan-tutorial", "sagan-cifar", "dcgan")
AUTO_AT = {32: (16,), 64: (32,), 128: (32,), 256: (32,)}
"""What `--attn-at auto` comes to in `sagan`."""


def spec_of(arch: str, size: int = 32, **more: Any) -> ModelSpec:
    attn_at = () if arch == "dcgan" else AUTO_AT[size]
    return ModelSpec(**{"height": size, "width": size, "latent": 6, "base_width": 2, "attn_at": attn_at, **more})


def built(arch: str, spec: ModelSpec) -> tuple[Any, Any]:
    torch.manual_seed(0)
    return registry.load("architectures", arch)(spec)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_conformance_kit_passes(arch: str) -> None:
    check_architecture(registry.load("architectures", arch), base_width=8)


@pytest.mark.parametrize(("size", "channels", "classes"), [(32, 1, 0), (64, 4, 3), (128, 3, 0), (256, 3, 2)])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_size_makes_pictures_and_logits(arch: str, size: int, channels: int, classes: int) -> None:
    g, d = built(arch, spec_of(arch, size, channels=channels, num_classes=classes, base_width=1))
    y = torch.arange(2) % classes if classes else None
    x = g(torch.randn(2, 6), y)
    assert x.shape == (2, channels, size, size)
    assert d(x, y).shape == (2,)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_size_that_cannot_be_is_refused_by_its_flag(arch: str) -> None:
    with pytest.raises(UsageError, match=r"^--size 34: each side must be"):
        built(arch, ModelSpec(34, 34, attn_at=()))


# Where attention stands.


PUBLISHED = [
    ("sagan-dcgan", 32, ["16"], ["4"]),
    ("sagan-dcgan", 64, ["16", "32"], ["8", "4"]),
    ("sagan-dcgan", 128, ["16", "32"], ["16", "8"]),
    ("sagan-dcgan", 256, ["16", "32"], ["32", "16"]),
    ("sagan-cifar", 32, ["16"], ["16"]),
    ("sagan-cifar", 128, ["32"], ["32"]),
    ("sagan-tutorial", 32, ["16"], ["4"]),
    ("sagan-tutorial", 128, ["16"], ["16"]),
]


@pytest.mark.parametrize(("arch", "size", "in_g", "in_d"), PUBLISHED)
def test_attention_stands_where_it_was_published(arch: str, size: int, in_g: list[str], in_d: list[str]) -> None:
    g, d = built(arch, spec_of(arch, size, base_width=1))
    assert (list(g.attention_layers()), list(d.attention_layers())) == (in_g, in_d)
    seen: list[tuple[str, int]] = []
    for network in (g, d):
        for name, layer in network.attention_layers().items():
            layer.register_forward_hook(lambda _, args, __, name=name: seen.append((name, args[0].shape[-1])))
    d(g(torch.randn(2, 6), None))
    assert seen == [(name, int(name)) for name in in_g + in_d]


@pytest.mark.parametrize("arch", ["sagan-dcgan", "sagan-tutorial"])
def test_attention_stands_where_it_is_asked_for(arch: str) -> None:
    def places(**more: Any) -> tuple[list[str], list[str]]:
        g, d = built(arch, spec_of(arch, 64, **more))
        return list(g.attention_layers()), list(d.attention_layers())

    assert places(attn_at=()) == ([], [])
    assert places(attn_at=(8, 16)) == (["8", "16"], ["16", "8"])
    assert places(attn_at=(32,), options={"places": "sides"}) == (["32"], ["32"])
    assert places(attn_at=(8,), options={"places": "published"}) == places()
    with pytest.raises(UsageError, match=r"--attn-at 4: images of 64 have feature maps 8, 16, 32"):
        places(attn_at=(4,))


def test_options_are_checked_and_used() -> None:
    for arch, message in (
        ("sagan-dcgan", r"^--set model.options.deconv_row=d: architecture 'sagan-dcgan' has no such option \(did you"),
        ("sagan-tutorial", r"^--set model.options.deconv_row=d: architecture 'sagan-tutorial' has no such option$"),
        ("dcgan", r"^--set model.options.deconv_row=d: architecture 'dcgan' has no such option$"),
    ):
        with pytest.raises(UsageError, match=message):
            built(arch, spec_of(arch, options={"deconv_row": "d"}))
    with pytest.raises(UsageError, match=r"^--attn-ratio 3: choose 1, 2, 4, 8$"):
        built("sagan-dcgan", spec_of("sagan-dcgan", options={"attn_ratio": 3}))
    with pytest.raises(UsageError, match=r"^--attn-at 16: architecture 'dcgan' has no attention; write --attn-at none"):
        built("dcgan", spec_of("dcgan", attn_at=(16,)))
    # What a network has not is refused by its flag; that it has not may be said.
    for arch in ("sagan-tutorial", "dcgan"):
        with pytest.raises(UsageError, match=rf"^--spectral-norm both: '{arch}' has none only$"):
            built(arch, spec_of(arch, options={"spectral_norm": "both"}))
        built(arch, spec_of(arch, options={"spectral_norm": "none"}))
    with pytest.raises(UsageError, match=r"^--attention official: architecture 'dcgan' has no such option"):
        built("dcgan", spec_of("dcgan", options={"attention": "official"}))
    g, _ = built("sagan-dcgan", spec_of("sagan-dcgan", base_width=8, options={"attention": "official"}))
    (layer,) = g.attention_layers().values()
    assert layer.pooled
    assert layer.output is not None
    assert isinstance(layer.query, SpectralNormed)


# Where spectral norm and batch norm stand.


def normed(network: nn.Module) -> set[str]:
    return {name for name, module in network.named_modules() if isinstance(module, SpectralNormed)}


def batch_norms(network: nn.Module) -> int:
    return sum(hasattr(module, "running_mean") for module in network.modules())


def test_norms_stand_only_where_they_were_published() -> None:
    g, d = built("sagan-dcgan", spec_of("sagan-dcgan", 64))
    stages = {f"stages.{n}" for n in range(4)}
    assert normed(g) == normed(d) == stages  # neither the last layers nor the attention blocks
    assert (batch_norms(g), batch_norms(d)) == (4, 0)
    g, d = built("sagan-dcgan", spec_of("sagan-dcgan", 64, options={"spectral_norm": "d"}))
    assert (normed(g), normed(d)) == (set(), stages)
    g, d = built("sagan-dcgan", spec_of("sagan-dcgan", 64, options={"spectral_norm": "none"}))
    assert normed(g) == normed(d) == set()
    for arch, sizes in (("sagan-tutorial", (4, 4)), ("dcgan", (4, 3))):
        g, d = built(arch, spec_of(arch, 64))
        assert normed(g) == normed(d) == set()
        assert (batch_norms(g), batch_norms(d)) == sizes


def test_dcgan_starts_with_small_normal_weights() -> None:
    g, d = built("dcgan", spec_of("dcgan", 64, base_width=16))
    for module in [*g.modules(), *d.modules()]:
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.weight.numel() > 5000:
            assert module.bias is None
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
            assert abs(module.weight.mean().item()) < 0.002


# Parameter counts, by hand.


def port_attention(c: int) -> int:
    """Two 1x1 convolutions to C/8 and one to C, with biases, and gamma."""
    return 2 * (c * (c // 8) + c // 8) + c * c + c + 1


def test_the_port_has_its_published_number_of_parameters() -> None:
    g, d = built("sagan-dcgan", ModelSpec(64, 64, latent=128, base_width=64, attn_at=(32,)))
    deconv = lambda i, o: i * o * 16 + o  # noqa: E731
    norm = 2 * (512 + 256 + 128 + 64)
    in_g = deconv(128, 512) + deconv(512, 256) + deconv(256, 128) + deconv(128, 64) + deconv(64, 3) + norm
    in_d = deconv(3, 64) + deconv(64, 128) + deconv(128, 256) + deconv(256, 512) + deconv(512, 1)
    assert count(g) == in_g + port_attention(128) + port_attention(64)
    assert count(d) == in_d + port_attention(256) + port_attention(512)


def test_dcgan_has_its_published_number_of_parameters() -> None:
    g, d = built("dcgan", ModelSpec(64, 64, latent=100, base_width=64, attn_at=()))
    assert count(g) == 16 * (100 * 512 + 512 * 256 + 256 * 128 + 128 * 64 + 64 * 3) + 2 * (512 + 256 + 128 + 64)
    assert count(d) == 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) + 2 * (128 + 256 + 512)
    assert (count(g), count(d)) == (3_576_704, 2_765_568)  # as the PyTorch example's


def test_the_tutorial_network_has_as_many_parameters_as_its_layers() -> None:
    g, d = built("sagan-tutorial", ModelSpec(32, 32, latent=100, base_width=64, attn_at=(16,), num_classes=10))
    conv = lambda i, o: i * o * 9 + o  # noqa: E731
    tables = 2 * 10 * (128 + 128 + 64)
    assert count(g) == (100 + 1) * 128 * 64 + conv(128, 128) + conv(128, 64) + conv(64, 3) + tables + port_attention(
        128
    )
    in_d = conv(3, 32) + conv(32, 64) + conv(64, 128) + conv(128, 256) + 2 * (64 + 128 + 256)
    assert count(d) == in_d + (256 * 16 + 1) + 10 * 256 + port_attention(128)


def test_the_cifar_networks_have_their_published_number_of_parameters() -> None:
    g, d = built("sagan-cifar", ModelSpec(32, 32, latent=128, base_width=64, attn_at=(16,), num_classes=10))
    attends = lambda c: 5 * c * c // 4 + 1  # noqa: E731
    conv = lambda i, o, k: i * o * k * k + o  # noqa: E731
    up = 2 * conv(256, 256, 3) + conv(256, 256, 1) + 4 * 10 * 256
    assert count(g) == 129 * 4096 + 3 * up + attends(256) + 2 * 256 + conv(256, 3, 3)
    keep = 2 * conv(128, 128, 3)
    first = conv(3, 128, 3) + conv(128, 128, 3) + conv(3, 128, 1)
    assert count(d) == first + attends(128) + keep + conv(128, 128, 1) + 2 * keep + 129 + 1280
    assert (count(g), count(d)) == (4_386_308, 1_075_586)  # as PyTorch-StudioGAN logs them


# The forward passes, written again in plain functional calls on the numbers of the state dict, in float64.


def spread(network: nn.Module) -> dict[str, Tensor]:
    """Give everything a value of its own (a gamma of 0 hides what it scales), and return the numbers in evaluation."""
    network.double().eval()
    random = torch.Generator().manual_seed(3)
    state = network.state_dict()
    for name, t in state.items():
        if name.endswith(("running_var", "gain")):
            t.uniform_(0.5, 2.0, generator=random)
        elif t.is_floating_point() and not name.endswith((".u", ".v")):
            t.normal_(0.0, 0.3, generator=random)
    for module in network.modules():
        if isinstance(module, SpectralNormed):
            module.advance_(iterations=3)
    return {name: t.clone() for name, t in network.state_dict().items()}


def divided(s: dict[str, Tensor], name: str) -> Tensor:
    """A spectrally normalised weight by its own sigma, rows first; the matrix's columns run height, width, other."""
    w = s[f"{name}.weight"]
    matrix = np.transpose(w.numpy(), (0, 2, 3, 1)).reshape(len(w), -1)
    return w / float(s[f"{name}.u"].numpy() @ matrix @ s[f"{name}.v"].numpy())


def norm(s: dict[str, Tensor], name: str, h: Tensor, y: Tensor | None) -> Tensor:
    row = slice(0, 1) if y is None else y
    gain, bias = s[f"{name}.gain"][row][:, :, None, None], s[f"{name}.bias"][row][:, :, None, None]
    mean, var = s[f"{name}.running_mean"][:, None, None], s[f"{name}.running_var"][:, None, None]
    return gain * (h - mean) / torch.sqrt(var + 1e-5) + bias


def attention(s: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    q, k, v = (
        F.conv2d(x, s[f"{name}.{p}.weight"], s[f"{name}.{p}.bias"]).flatten(2) for p in ("query", "key", "value")
    )
    beta = torch.softmax(torch.einsum("bdi,bdj->bij", q, k), dim=2)
    return x + s[f"{name}.gamma"] * torch.einsum("bij,bej->bei", beta, v).view_as(x)


def projection(table: Tensor, h: Tensor, y: Tensor) -> Tensor:
    return torch.stack([(table[k] * h[b].sum((1, 2))).sum() for b, k in enumerate(y.tolist())])


CLASSES = (0, 3)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("rows", ["output", "input"])
def test_the_port_is_its_formula(classes: int, rows: str) -> None:
    more = {"num_classes": classes, "options": {"deconv_rows": rows}}
    g, d = built("sagan-dcgan", spec_of("sagan-dcgan", 64, base_width=2, **more))
    s, t = spread(g), spread(d)
    z, y = torch.randn(3, 6).double(), torch.tensor([2, 0, 1]) if classes else None
    h = z.view(3, 6, 1, 1)
    for n in range(4):
        w = divided(s, f"stages.{n}")
        w = w.transpose(0, 1) if rows == "output" else w
        b = s[f"stages.{n}.bias"]
        h = F.conv_transpose2d(h, w, b) if n == 0 else F.conv_transpose2d(h, w, b, stride=2, padding=1)
        h = norm(s, f"norms.{n}", h, y).clamp(min=0)
        h = attention(s, f"attention.{h.shape[-1]}", h) if n >= 2 else h
    x = torch.tanh(F.conv_transpose2d(h, s["to_image.weight"], s["to_image.bias"], stride=2, padding=1))
    with torch.no_grad():
        torch.testing.assert_close(g(z, y), x, rtol=1e-10, atol=1e-10)
    h = x
    for n in range(4):
        h = F.conv2d(h, divided(t, f"stages.{n}"), t[f"stages.{n}.bias"], stride=2, padding=1)
        h = torch.where(h > 0, h, 0.1 * h)
        h = attention(t, f"attention.{h.shape[-1]}", h) if n >= 2 else h
    logits = F.conv2d(h, t["to_logit.weight"], t["to_logit.bias"])[:, 0, 0, 0]
    if y is not None:
        table = t["embed.weight"] / (t["embed.u"] @ t["embed.weight"] @ t["embed.v"])
        logits = logits + projection(table, h, y)
    with torch.no_grad():
        torch.testing.assert_close(d(x, y), logits, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("classes", CLASSES)
def test_dcgan_is_its_formula(classes: int) -> None:
    g, d = built("dcgan", spec_of("dcgan", 32, num_classes=classes))
    s, t = spread(g), spread(d)
    z, y = torch.randn(3, 6).double(), torch.tensor([2, 0, 1]) if classes else None
    h = F.conv_transpose2d(z[:, :, None, None], s["stages.0.weight"])
    h = norm(s, "norms.0", h, y).clamp(min=0)
    for n in (1, 2):
        h = F.conv_transpose2d(h, s[f"stages.{n}.weight"], stride=2, padding=1)
        h = norm(s, f"norms.{n}", h, y).clamp(min=0)
    x = torch.tanh(F.conv_transpose2d(h, s["to_image.weight"], stride=2, padding=1))
    with torch.no_grad():
        torch.testing.assert_close(g(z, y), x, rtol=1e-10, atol=1e-10)
    h = x
    for n in range(3):
        h = F.conv2d(h, t[f"stages.{n}.weight"], stride=2, padding=1)
        h = norm(t, f"norms.{n - 1}", h, None) if n else h
        h = torch.where(h > 0, h, 0.2 * h)
    logits = (h * t["to_logit.weight"]).sum((1, 2, 3))
    if y is not None:
        logits = logits + projection(t["embed.weight"], h, y)
    with torch.no_grad():
        torch.testing.assert_close(d(x, y), logits, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("classes", CLASSES)
def test_the_tutorial_network_is_its_formula(classes: int) -> None:
    g, d = built("sagan-tutorial", spec_of("sagan-tutorial", 32, num_classes=classes))
    s, t = spread(g), spread(d)
    z, y = torch.randn(3, 6).double(), torch.tensor([2, 0, 1]) if classes else None
    h = (z @ s["linear.weight"].T + s["linear.bias"]).view(3, 4, 8, 8)
    h = norm(s, "norm", h, y).clamp(min=0)
    for n in (0, 1):
        h = h.repeat_interleave(2, 2).repeat_interleave(2, 3)
        h = F.conv2d(h, s[f"convs.{n}.weight"], s[f"convs.{n}.bias"], padding=1)
        h = norm(s, f"norms.{n}", h, y).clamp(min=0)
        h = attention(s, "attention.16", h) if n == 0 else h
    x = torch.tanh(F.conv2d(h, s["to_image.weight"], s["to_image.bias"], padding=1))
    with torch.no_grad():
        torch.testing.assert_close(g(z, y), x, rtol=1e-10, atol=1e-10)
    h = x
    for n, stride in enumerate((2, 2, 2, 1)):
        h = F.conv2d(h, t[f"convs.{n}.weight"], t[f"convs.{n}.bias"], stride=stride, padding=1)
        h = norm(t, f"norms.{n - 1}", h, None) if n else h
        h = torch.where(h > 0, h, 0.2 * h)
        h = attention(t, "attention.4", h) if n == 2 else h
    logits = h.flatten(1) @ t["linear.weight"][0] + t["linear.bias"]
    if y is not None:
        logits = logits + projection(t["embed.weight"], h, y)
    with torch.no_grad():
        torch.testing.assert_close(d(x, y), logits, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("classes", CLASSES)
def test_the_cifar_network_is_its_formula(classes: int) -> None:
    g, d = built("sagan-cifar", spec_of("sagan-cifar", 32, num_classes=classes))
    s, t = spread(g), spread(d)
    z, y = torch.randn(3, 6).double(), torch.tensor([2, 0, 1]) if classes else None

    def conv(s: dict[str, Tensor], name: str, h: Tensor) -> Tensor:
        w = divided(s, name)
        return F.conv2d(h, w, s.get(f"{name}.bias"), padding=w.shape[-1] // 2)

    def plain(s: dict[str, Tensor], name: str) -> Tensor:
        return s[f"{name}.weight"] / (s[f"{name}.u"] @ s[f"{name}.weight"] @ s[f"{name}.v"])

    def official(s: dict[str, Tensor], x: Tensor) -> Tensor:
        q, k, v = (conv(s, f"attention.16.{p}", x) for p in ("query", "key", "value"))
        k, v = F.max_pool2d(k, 2).flatten(2), F.max_pool2d(v, 2).flatten(2)
        beta = torch.softmax(torch.einsum("bdi,bdj->bij", q.flatten(2), k), dim=2)
        o = torch.einsum("bij,bej->bei", beta, v).unflatten(2, x.shape[2:])
        return x + s["attention.16.gamma"] * conv(s, "attention.16.output", o)

    doubled = lambda h: h.repeat_interleave(2, 2).repeat_interleave(2, 3)  # noqa: E731
    # The linear layer's numbers lie row by row, channels last, as in `sagan`.
    h = (z @ plain(s, "linear").T + s["linear.bias"]).view(3, 4, 4, 8).permute(0, 3, 1, 2)
    for n in range(3):
        name = f"blocks.{n}"
        r = conv(s, f"{name}.conv0", doubled(norm(s, f"{name}.norm0", h, y).clamp(min=0)))
        r = conv(s, f"{name}.conv1", norm(s, f"{name}.norm1", r, y).clamp(min=0))
        h = r + conv(s, f"{name}.shortcut", doubled(h))
        h = official(s, h) if n == 1 else h
    x = torch.tanh(conv(s, "to_image", norm(s, "norm", h, None).clamp(min=0)))
    with torch.no_grad():
        torch.testing.assert_close(g(z, y), x, rtol=1e-9, atol=1e-9)
    h = x
    for n in range(4):
        name = f"blocks.{n}"
        r = conv(t, f"{name}.conv1", conv(t, f"{name}.conv0", h.clamp(min=0) if n else h).clamp(min=0))
        skip = conv(t, f"{name}.shortcut", h) if n < 2 else h
        h = F.avg_pool2d(r + skip, 2) if n < 2 else r + skip
        h = official(t, h) if n == 0 else h
    h = h.clamp(min=0)
    logits = h.sum((2, 3)) @ plain(t, "linear")[0] + t["linear.bias"]
    if y is not None:
        logits = logits + projection(plain(t, "embed"), h, y)
    with torch.no_grad():
        torch.testing.assert_close(d(x, y), logits, rtol=1e-9, atol=1e-9)


# Spectral norm of a transposed convolution.


def test_sigma_of_a_transposed_convolution_is_that_of_pytorch() -> None:
    torch.manual_seed(0)
    layer = SNConvTranspose2d(5, 3, (4, 4), 2, 1)
    theirs = nn.ConvTranspose2d(5, 3, 4, 2, 1)
    theirs.weight.data.copy_(layer.weight.transpose(0, 1))
    theirs.bias.data.zero_()
    theirs = nn.utils.parametrizations.spectral_norm(theirs, n_power_iterations=300).train()
    layer.advance_(iterations=300)
    x = torch.randn(2, 5, 6, 6)
    torch.testing.assert_close(layer(x), theirs(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", ["output", "input"])
def test_the_largest_singular_value_becomes_1_and_folding_keeps_it(rows: str) -> None:
    torch.manual_seed(0)
    layer = SNConvTranspose2d(5, 3, (4, 4), 2, 1, rows=rows)
    layer.advance_(iterations=200)
    assert len(layer.bar()) == (3 if rows == "output" else 5)
    assert torch.linalg.matrix_norm(layer.bar().flatten(1), 2).item() == pytest.approx(1.0, abs=1e-4)
    x = torch.randn(2, 5, 6, 6)
    before = layer(x)
    assert before.shape == (2, 3, 12, 12)
    layer.fold_()
    assert torch.equal(layer(x), before)
    assert torch.equal(layer.weight, layer.bar())


# Dropout.


def test_dropout_keeps_its_share_and_its_mean_and_forgets_nothing() -> None:
    torch.manual_seed(0)
    layer, x = Dropout(0.25).train(), torch.ones(64, 8, 16, 16)
    first, second = layer(x), layer(x)
    for y in (first, second):
        assert y.unique().tolist() == [0.0, pytest.approx(4 / 3)]
        assert (y > 0).double().mean().item() == pytest.approx(0.75, abs=0.005)
        # Each picture, channel and position alike: no stripe of the hash. 4.5 sigma of a binomial share.
        for dim in ((1, 2, 3), (0, 2, 3), (0, 1)):
            share = (y > 0).double().mean(dim)
            n = y.numel() / share.numel()
            assert (share - 0.75).abs().max() < 4.5 * (0.75 * 0.25 / n) ** 0.5
    both = ((first > 0) & (second > 0)).double().mean().item()
    assert both == pytest.approx(0.75**2, abs=0.005), "masks of two passes have nothing to do with each other"
    neighbours = ((first > 0)[..., 1:] & (first > 0)[..., :-1]).double().mean().item()
    assert neighbours == pytest.approx(0.75**2, abs=0.005)
    again = Dropout(0.25)
    again.load_state_dict(layer.state_dict())
    torch.rand(7)  # PyTorch's own generator has no part in it
    assert torch.equal(again(x), layer(x))
    assert torch.equal(layer.eval()(x), x)
    torch.manual_seed(1)
    other = Dropout(0.25)
    other.stream[1] = 2
    assert not torch.equal(other(x), again(x)), "each layer and each seed has masks of its own"


@pytest.mark.parametrize("arch", ["sagan", *ARCHITECTURES])
def test_evaluation_moves_nothing_and_no_forward_pass_moves_u(arch: str) -> None:
    for network, args in zip(
        built(arch, spec_of(arch, num_classes=2)),
        [(torch.randn(3, 6), torch.tensor([0, 1, 1])), (torch.randn(3, 3, 32, 32), torch.tensor([0, 1, 1]))],
        strict=True,
    ):
        network.eval()
        before = {name: t.clone() for name, t in network.state_dict().items()}
        network(*args)
        assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
        network.train()(*args).sum().backward()
        after = network.state_dict()
        vectors = [name for name in before if name.endswith((".u", ".v"))]
        assert bool(vectors) == (default_options(arch)["spectral_norm"] == "both")
        assert all(torch.equal(before[name], after[name]) for name in vectors)


# Gradients and training.


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_gradient_penalty_reaches_the_weights_of_the_discriminator(arch: str) -> None:
    g, d = built(arch, spec_of(arch, base_width=8))
    for layer in getattr(d, "attention_layers", dict)().values():
        layer.gamma.data.fill_(0.5)
    x = torch.rand(4, 3, 32, 32) * 2 - 1
    fake = g(torch.randn(4, 6), None).detach()
    penalties.GP.compute(PenaltyInputs(d, x, fake, None, None, torch.rand(4))).backward()
    weights = {n: p for n, p in d.named_parameters() if n.endswith("weight")}
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in weights.values())


@pytest.fixture(scope="module")
def idx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return idx_folder(tmp_path_factory.mktemp("data") / "idx")


def weights(run: Path, step: int) -> dict[str, bytes]:
    folder = run / "checkpoints" / f"{step:08d}"
    files = ("model.safetensors", "state.safetensors")
    return {k: v.tobytes() for name in files for k, v in load_file(folder / name).items()}


@pytest.mark.parametrize("flags", [(), ("--unconditional",)], ids=["classes", "none"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_it_trains_resumes_to_the_bit_and_samples(
    arch: str, flags: tuple[str, ...], idx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "SETTLE_IMAGES", 16)  # the many are for good statistics, which nobody looks at here
    flags = (*flags, "--attn-at", "none") if arch == "dcgan" else flags
    args = (
        "train",
        "--arch",
        arch,
        "--data",
        idx,
        "--size",
        32,
        *TINY,
        "--batch",
        8,
        "--loss",
        "non-saturating",
        *flags,
    )
    ok(*args, "--steps", 20, "--out", "whole", cwd=tmp_path)
    ok(*args, "--steps", 11, "--out", "parts", cwd=tmp_path)
    torch.rand(3)  # whatever else this process draws has no part in it
    ok("train", "--resume", "parts", "--steps", 20, cwd=tmp_path)
    assert weights(tmp_path / "whole", 20) == weights(tmp_path / "parts", 20)
    assert weights(tmp_path / "parts", 20) != weights(tmp_path / "parts", 11)
    png = ok("sample", "whole", "-n", 4, "--out", "-", "--device", "cpu", cwd=tmp_path)
    assert png.startswith(b"\x89PNG")


def test_dcgan_needs_no_word_on_attention_and_refuses_any(idx: Path, tmp_path: Path) -> None:
    flags = ("train", "--arch", "dcgan", "--data", idx, "--size", 32, *TINY, "--steps", 1)
    ok(*flags, "--out", "run", cwd=tmp_path)
    assert json.loads((tmp_path / "run/run.json").read_text())["model"]["attn_at"] == []
    done = sagan(*flags, "--attn-at", 16, cwd=tmp_path)
    assert done.returncode == 2
    last = done.stderr.decode().strip().splitlines()[-1]
    assert last.startswith("sagan: error: --attn-at 16: architecture 'dcgan' has no attention; write --attn-at none")


# What `auto` means, and what was said.


@pytest.mark.parametrize("arch", ["sagan", *ARCHITECTURES])
def test_auto_is_what_the_architecture_builds_of_itself(arch: str) -> None:
    usual, spec = (
        default_options(arch),
        settled(arch, ModelSpec(64, 64, latent=6, base_width=8, attn_at=(32,)), auto=True),
    )
    said = built(arch, replace(spec, options={**usual, **spec.options}))
    for mine, theirs in zip(built(arch, spec), said, strict=True):
        assert [(n, type(m)) for n, m in mine.named_modules()] == [(n, type(m)) for n, m in theirs.named_modules()]
        state = theirs.state_dict()
        assert {n: t.shape for n, t in mine.state_dict().items()} == {n: t.shape for n, t in state.items()}


@pytest.mark.parametrize(("arch", "size", "in_g", "in_d"), PUBLISHED)
def test_auto_is_recorded_as_it_is_built(arch: str, size: int, in_g: list[str], in_d: list[str]) -> None:
    given = spec_of(arch, size, base_width=1)
    spec = settled(arch, given, auto=True)
    assert [str(side) for side in spec.attn_at] == in_g
    g, d = built(arch, spec)
    assert (list(g.attention_layers()), list(d.attention_layers())) == (in_g, in_d)
    assert settled(arch, replace(given, attn_at=()), auto=False).attn_at == ()
    # The same map, said outright, is that map in both networks.
    g, d = built(arch, settled(arch, given, auto=False))
    assert list(g.attention_layers()) == list(d.attention_layers()) == [str(side) for side in given.attn_at]


def test_what_is_said_of_the_block_reaches_the_network(idx: Path, tmp_path: Path) -> None:
    flags = ("train", "--arch", "sagan-dcgan", "--data", idx, "--size", 32, *TINY, "--steps", 1, "--width", 8)
    for more, options in (
        ((), {"places": "published"}),
        (("--attention", "official"), {"attention": "official", "places": "published"}),
        (("--attn-ratio", 8, "--spectral-norm", "both", "--attn-at", 16),
         {"attn_ratio": 8, "spectral_norm": "both", "places": "sides"}),
    ):  # fmt: skip
        out = f"run{len(more)}"
        ok(*flags, *more, "--out", out, cwd=tmp_path)
        assert json.loads((tmp_path / out / "run.json").read_text())["model"]["options"] == options
    pooled = [
        "attention.16.output.weight" in " ".join(load_file(tmp_path / run / "checkpoints/00000001/model.safetensors"))
        for run in ("run0", "run2")
    ]
    assert pooled == [False, True]
    lines = dict(line.split(maxsplit=1) for line in ok("info", "run2", cwd=tmp_path).decode().splitlines())
    assert lines["attention"].startswith("official, G at 16, D at 4; gamma")
    lines = dict(line.split(maxsplit=1) for line in ok("info", "run0", cwd=tmp_path).decode().splitlines())
    assert lines["attention"].startswith("port, G at 16, D at 4; gamma")
    plan = ok(*flags, "--dry-run", cwd=tmp_path).decode()
    assert "attention at G 16; D 4\n" in plan
    for arch, more, said in (
        ("sagan-tutorial", ("--spectral-norm", "both"), "--spectral-norm both: 'sagan-tutorial' has none only"),
        ("dcgan", ("--attn-ratio", 8), "--attn-ratio 8: architecture 'dcgan' has no such option"),
    ):
        done = sagan(*flags[:2], arch, *flags[3:], *more, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.decode().strip().splitlines()[-1] == f"sagan: error: {said}"


AS_BEFORE = {"attention": "official", "attn_ratio": 8, "spectral_norm": "both"}
"""What a record from before `auto` holds of settings that nobody touched."""


@pytest.mark.parametrize(
    "arch",
    ["sagan", "sagan-dcgan", *(pytest.param(a, marks=pytest.mark.slow) for a in ("sagan-tutorial", "sagan-cifar"))],
)
def test_a_run_from_before_auto_goes_on_to_the_bit(arch: str, idx: Path, tmp_path: Path) -> None:
    # Attention on 16 of 32 pixels is `auto` of all; then the specification said no more than that map.
    flags = ("train", "--arch", arch, "--data", idx, "--size", 32, *TINY)
    ok(*flags, "--preset", "laptop-hinge", "--steps", 1, "--out", "old", cwd=tmp_path)
    run = tmp_path / "old"
    record = json.loads((run / "run.json").read_text())
    # The preset `laptop` had these settings then; a run keeps the recipe that it was begun with.
    record["sources"] = {key: source.removesuffix("-hinge") for key, source in record["sources"].items()}
    del record["config"]["train"]["decay_from"], record["sources"]["train.decay_from"]
    record["config"]["model"] |= AS_BEFORE
    facts_file = run / "checkpoints/00000001/checkpoint.json"
    facts = json.loads(facts_file.read_text())
    record["model"] |= {"attn_at": [16], "options": {}}
    facts["spec"] |= {"attn_at": [16], "options": {}}
    del facts["digest"], facts["run"]
    (run / "run.json").write_text(json.dumps(record))
    facts_file.write_text(json.dumps(facts))
    assert ok("sample", "old", "-n", 2, "--out", "-", "--device", "cpu", cwd=tmp_path).startswith(b"\x89PNG")
    (tmp_path / "runs").mkdir()
    run = run.rename(tmp_path / "runs/001-old")
    # Found again by its command, as well as by its name.
    assert b"runs/001-old: resumed" in sagan(*flags, "--steps", 2, cwd=tmp_path).stderr
    ok("train", "--resume", run, "--steps", 3, cwd=tmp_path)
    ok(*flags, "--preset", "laptop-hinge", "--steps", 3, "--out", "whole", cwd=tmp_path)
    assert weights(run, 3) == weights(tmp_path / "whole", 3)
    record = json.loads((run / "run.json").read_text())
    assert [record["config"]["model"][name] for name in AS_BEFORE] == ["auto"] * 3
    other = {"sagan": "paper", "sagan-cifar": "paper"}.get(arch, "official")
    said = fails(2, *flags, "--steps", 3, "--out", run, "--attention", other, cwd=tmp_path)
    assert f"begun with --attention {default_options(arch)['attention']}, not {other}" in said
    # What the architecture does by itself, said outright, is no other run.
    same = (
        "--attention",
        default_options(arch)["attention"],
        "--spectral-norm",
        default_options(arch)["spectral_norm"],
    )
    assert b"resumed" in sagan(*flags, *same, "--steps", 3, "--out", run, cwd=tmp_path).stderr
