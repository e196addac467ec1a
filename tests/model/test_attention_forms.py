"""Every reading of the attention block, and its controls, against plain NumPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support import numpy_reference as reference
from torch import nn

from sagan_cli.contracts import ModelSpec
from sagan_cli.errors import UsageError
from sagan_cli.model.attention_blocks import KINDS, QK_NORMS, NonLocal, Residual, attention_block
from sagan_cli.model.layers import SpectralNormed
from sagan_cli.model.sagan import build

CHANNELS, SIDE = 16, 6
ATTENDING = [kind for kind in KINDS if kind != "residual"]
WIDTHS = {"official": (2, 8), "paper": (2, 2), "port": (2, 16), "rows": (2, 16), "nonlocal": (8, 8)}
"""Kind -> channels of queries and keys, and of values, at 16 channels and ratio 8."""


def block(kind: str, ratio: int = 8, **more: Any) -> nn.Module:
    torch.manual_seed(0)
    made = attention_block(CHANNELS, kind, ratio, **more).double().eval()
    if isinstance(made, NonLocal):
        made.norm.weight.data.fill_(0.7)
        made.norm.running_var.fill_(1 - made.norm.eps)
    elif hasattr(made, "gamma"):
        made.gamma.data.fill_(0.7)
    for name, parameter in made.named_parameters():
        if name.endswith("bias") and "norm" not in name:
            parameter.data.normal_()
    return made


def picture(count: int = 2) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, CHANNELS, SIDE, SIDE))


def dense(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Matrix (O, I) of a 1x1 convolution as it is used, and its bias."""
    weight = (layer.bar() if isinstance(layer, SpectralNormed) else layer.weight).detach().numpy()
    bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().numpy()
    return weight.reshape(len(weight), -1), bias


def project(layer: Any, x: np.ndarray, pooled: bool = False) -> np.ndarray:
    """(C, H, W) -> (positions, O)."""
    weight, bias = dense(layer)
    maps = np.einsum("oc,chw->ohw", weight, x) + bias[:, None, None]
    if pooled:
        maps = maps.reshape(len(maps), SIDE // 2, 2, SIDE // 2, 2).max(axis=(2, 4))
    return maps.reshape(len(maps), -1).T


def restated(made: Any, kind: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Output (C, H, W) and map (N, M) of one picture, in loops that a reader can follow."""
    pooled = kind == "official"
    q, k, v = project(made.query, x), project(made.key, x, pooled), project(made.value, x, pooled)
    if getattr(made, "scale", None) is not None:
        q, k = (rows / np.sqrt((rows**2).mean(1, keepdims=True) + 1e-6) for rows in (q, k))
        q = q * (made.scale.item() / np.sqrt(q.shape[1]))
    beta = np.zeros((len(q), len(k)))
    for i in range(len(q)):
        scores = np.array([q[i] @ k[j] for j in range(len(k))])
        beta[i] = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    o = beta @ v
    if made.output is not None:
        weight, bias = dense(made.output)
        o = o @ weight.T + bias
    return x + 0.7 * o.T.reshape(x.shape), beta


@pytest.mark.parametrize("qk_norm", QK_NORMS)
@pytest.mark.parametrize("kind", ATTENDING)
def test_each_form_is_its_formula(kind: str, qk_norm: str) -> None:
    made, x = block(kind, ratio=4, qk_norm=qk_norm), picture()
    if qk_norm == "rms" and kind != "nonlocal":
        made.scale.data.fill_(1.7)
    with torch.no_grad():
        found, maps = made(torch.from_numpy(x)), made.maps(torch.from_numpy(x))
    for b in range(len(x)):
        output, beta = restated(made, kind, x[b])
        np.testing.assert_allclose(found[b], output, atol=1e-10)
        np.testing.assert_allclose(maps[b], beta, atol=1e-12)
    np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-12)
    assert maps.shape[2] == (SIDE * SIDE // 4 if kind == "official" else SIDE * SIDE)


def test_normalised_scores_stay_small_and_have_a_gradient_however_large_the_features_are() -> None:
    x = torch.from_numpy(picture()).mul(100).requires_grad_()
    plain, normed = (block("official", spectral=False, qk_norm=name) for name in QK_NORMS)
    with torch.no_grad():
        assert float(plain.maps(x).amax(-1).median()) > 0.99  # one-hot
        assert float(normed.maps(x).amax(-1).median()) < 0.5
    normed(x).square().sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in normed.parameters())
    torch.testing.assert_close(normed.maps(x), normed.maps(x / 100), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("spectral", [True, False])
def test_the_control_is_its_formula(spectral: bool) -> None:
    made: Any = block("residual", spectral=spectral)
    x = picture()
    h = x
    for layer in (made.conv0, made.conv1):
        weight = layer.weight.detach().numpy()
        if spectral:
            # u and v belong to the matrix whose columns run over height, width and input channels.
            matrix = weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)
            weight = weight / (layer.u.numpy() @ matrix @ layer.v.numpy())
        h = reference.conv2d(np.maximum(h, 0), weight, layer.bias.detach().numpy())
    with torch.no_grad():
        np.testing.assert_allclose(made(torch.from_numpy(x)), x + h, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_each_has_the_weights_that_its_source_says(kind: str) -> None:
    made = block(kind)
    if isinstance(made, Residual):
        hidden = round(1.25 * CHANNELS / 18)
        assert sum(p.numel() for p in made.parameters()) == 2 * 9 * CHANNELS * hidden + hidden + CHANNELS
        return
    inner, width = WIDTHS[kind]
    bias = kind in ("port", "nonlocal")
    count = 2 * inner * CHANNELS + width * CHANNELS + bias * (2 * inner + width)
    if kind != "port":
        count += width * CHANNELS + bias * CHANNELS
    count += 2 * CHANNELS if kind == "nonlocal" else 1
    assert sum(p.numel() for p in made.parameters()) == count
    spectral = [m for m in made.modules() if isinstance(m, SpectralNormed)]
    assert bool(spectral) == (kind in ("official", "paper", "rows"))


@pytest.mark.parametrize("ratio", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", ["paper", "rows"])
def test_the_ratio_is_the_papers_k(kind: str, ratio: int) -> None:
    made: Any = attention_block(CHANNELS, kind, ratio)
    assert made.query.weight.shape[0] == made.key.weight.shape[0] == CHANNELS // ratio
    assert made.value.weight.shape[0] == (CHANNELS // ratio if kind == "paper" else CHANNELS)


@pytest.mark.parametrize("kind", ATTENDING)
def test_a_fresh_block_is_exactly_the_identity(kind: str) -> None:
    x = torch.randn(2, CHANNELS, SIDE, SIDE)
    assert torch.equal(attention_block(CHANNELS, kind)(x), x)


@pytest.mark.parametrize("kind", ATTENDING)
def test_every_position_hears_of_every_other(kind: str) -> None:
    made, x = block(kind), torch.from_numpy(picture(1)).requires_grad_()
    (grad,) = torch.autograd.grad(made(x)[0, :, 2, 3].sum(), x)
    reached = grad.abs().sum(dim=(0, 1)) > 0
    # Pooling listens to the largest of four positions, per channel, so that only nearly all are heard.
    assert reached.double().mean() >= (0.5 if kind == "official" else 1.0)


@pytest.mark.parametrize("kind", ATTENDING)
def test_what_is_added_depends_on_every_position(kind: str) -> None:
    made, x = block(kind), torch.from_numpy(picture(1)).requires_grad_()
    added = made(x) - x
    probe = torch.from_numpy(np.random.default_rng(2).normal(size=added.shape))
    (grad,) = torch.autograd.grad((added * probe).sum(), x)
    # Less the shortcut's own part, which cancels but for rounding.
    assert (grad.abs().amax(dim=(0, 1)) > 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("qk_norm", QK_NORMS)
def test_penalties_differentiate_twice_through_each(kind: str, qk_norm: str) -> None:
    made, x = block(kind, qk_norm=qk_norm), torch.from_numpy(picture(1)).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda v: made(v)[:, :1, :2, :2], (x,), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spectral_norm", ["both", "d", "none"])
def test_the_networks_are_built_of_what_is_asked_for(kind: str, spectral_norm: str) -> None:
    options = {"attention": kind, "spectral_norm": spectral_norm}
    g, d = build(ModelSpec(16, 16, 3, num_classes=2, base_width=2, attn_at=(8,), options=options))
    y = torch.tensor([0, 1])
    assert d(g(torch.randn(2, 128), y), y).shape == (2,)
    normed = [any(isinstance(m, SpectralNormed) for m in network.modules()) for network in (g, d)]
    assert normed == [spectral_norm == "both", spectral_norm != "none"]
    assert set(g.attention_layers()) == (set() if kind == "residual" else {"8"})


@pytest.mark.parametrize(
    ("options", "said"),
    [({"attention": "offical"}, "--attention offical"), ({"attn_ratio": 3}, "--attn-ratio 3"), ({"depth": 2}, "depth")],
)
def test_wrong_options_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        build(ModelSpec(16, 16, base_width=2, attn_at=(8,), options=options))
