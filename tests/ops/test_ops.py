"""The pure functions against float64 NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import numpy_reference as reference

from sagan_cli.ops import dot_product_attention as attention
from sagan_cli.ops import resample, spectral_norm
from sagan_cli.ops.assumed_batch import assumed_batch
from sagan_cli.ops.batch_norm import batch_norm, modulate
from sagan_cli.ops.kernel_layout import swap_in_out_channels

RNG = np.random.default_rng(0)


def t(a: np.ndarray, grad: bool = False) -> torch.Tensor:
    return torch.from_numpy(a.copy()).requires_grad_(grad)


@pytest.mark.parametrize("route", ["explicit", "fused"])
def test_attend_and_its_gradients(route: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_explicit", lambda q, k: route == "explicit")
    q, k, v = RNG.normal(size=(2, 12, 3)), RNG.normal(size=(2, 7, 3)), RNG.normal(size=(2, 7, 5))
    grad = RNG.normal(size=(2, 12, 5))
    tq, tk, tv = t(q, True), t(k, True), t(v, True)
    out = attention.attend(tq, tk, tv)
    np.testing.assert_allclose(out.detach(), reference.softmax_rows(q @ k.transpose(0, 2, 1)) @ v, atol=1e-13)
    (out * t(grad)).sum().backward()
    for ours, theirs in zip((tq.grad, tk.grad, tv.grad), reference.attend_gradients(q, k, v, grad), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_attention_rows_sum_to_one_and_the_large_route_is_chosen_by_size() -> None:
    q, k = t(RNG.normal(size=(2, 64, 4)) * 9), t(RNG.normal(size=(2, 16, 4)) * 9)
    torch.testing.assert_close(attention.attention_map(q, k).sum(-1), torch.ones(2, 64, dtype=torch.float64))
    small, large = torch.empty(1, 1024, 8, device="cpu"), torch.empty(1, 16384, 8, device="cpu")
    assert attention._explicit(small, small)
    assert not attention._explicit(large, large)


def test_folded_resampling_is_the_plain_function() -> None:
    x, w, b = RNG.normal(size=(2, 3, 6, 4)), RNG.normal(size=(5, 3, 3, 3)), RNG.normal(size=5)
    up = resample.upsample_conv3x3(t(x), resample.upsampling_kernel(t(w)), t(b))
    np.testing.assert_allclose(up, reference.conv2d(reference.nearest2x(x), w, b), atol=1e-12)
    down = resample.conv3x3_avgpool(t(x), resample.pooling_kernel(t(w)), t(b))
    np.testing.assert_allclose(down, reference.avgpool2x2(reference.conv2d(x, w, b)), atol=1e-12)


def test_folded_resampling_gradients() -> None:
    x, w = t(RNG.normal(size=(1, 2, 4, 4)), True), t(RNG.normal(size=(3, 2, 3, 3)), True)
    assert torch.autograd.gradcheck(
        lambda a, c: resample.upsample_conv3x3(a, resample.upsampling_kernel(c), None), (x, w)
    )
    assert torch.autograd.gradcheck(lambda a, c: resample.conv3x3_avgpool(a, resample.pooling_kernel(c), None), (x, w))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("folded", [True, False])
def test_both_routes_of_resampling_are_one_function(
    folded: bool, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resample, "FOLD_FROM", {torch.float64: 0 if folded else 1_000_000})
    x, w, b = RNG.normal(size=(2, 3, 6, 4)), RNG.normal(size=(5, 3, 3, 3)), RNG.normal(size=5)
    weight = t(w).contiguous(memory_format=layout)
    assert resample.folds(t(x), 24) is folded
    up = resample.upsampled_conv(t(x), weight, t(b))
    np.testing.assert_allclose(up, reference.conv2d(reference.nearest2x(x), w, b), atol=1e-12)
    down = resample.pooled_conv(t(x), weight, t(b))
    np.testing.assert_allclose(down, reference.avgpool2x2(reference.conv2d(x, w, b)), atol=1e-12)


def test_folding_is_chosen_by_positions_and_type() -> None:
    x = torch.empty(8, 2, 16, 16)
    assert resample.folds(x, 64)
    assert not resample.folds(x, 63)
    with torch.autocast("cpu", torch.bfloat16):
        assert resample.folds(x, 512)
        assert not resample.folds(x, 511)
    with assumed_batch(1):
        assert not resample.folds(x, 64)
    with assumed_batch(0):
        assert resample.folds(x, 1)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_kernel_with_inputs_first_holds_the_same_numbers(layout: torch.memory_format) -> None:
    w = t(RNG.normal(size=(5, 3, 4, 2))).contiguous(memory_format=layout).requires_grad_()
    out = swap_in_out_channels(w, torch.float64)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, w.transpose(0, 1), rtol=0, atol=0)
    assert torch.autograd.gradcheck(lambda a: swap_in_out_channels(a, torch.float64), (w,))
    half = swap_in_out_channels(w.detach().float().requires_grad_(), torch.bfloat16)
    torch.testing.assert_close(half, w.detach().transpose(0, 1).to(torch.bfloat16), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(7, 5), (6, 4, 3, 3), (10, 6)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_power_iteration_finds_the_largest_singular_value(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    w = RNG.normal(size=shape)
    weight = t(w).to(memory_format=layout) if len(shape) == 4 else t(w)
    u, v = torch.randn(shape[0], dtype=torch.float64), torch.empty(w[0].size, dtype=torch.float64)
    spectral_norm.power_iteration(weight, u, v, 300)
    sigma = reference.spectral_norm(w)
    np.testing.assert_allclose(spectral_norm.normalised(weight, u, v), w / sigma, rtol=1e-9)


@pytest.mark.parametrize("shape", [(4, 3), (3, 2, 3, 3)])
def test_spectral_norm_gradient_holds_u_and_v_constant(shape: tuple[int, ...]) -> None:
    w = t(RNG.normal(size=shape), True)
    u, v = torch.randn(shape[0], dtype=torch.float64), torch.empty(w[0].numel(), dtype=torch.float64)
    spectral_norm.power_iteration(w, u, v, 2)  # not converged: the gradient must be right for any u and v
    assert torch.autograd.gradcheck(lambda a: spectral_norm.normalised(a, u, v), (w,))


def test_spectral_norm_stays_fp32_under_autocast_and_reads_only() -> None:
    w, u, v = torch.randn(8, 4), torch.randn(8), torch.empty(4)
    spectral_norm.power_iteration(w, u, v)
    before = u.clone()
    with torch.autocast("cpu", torch.bfloat16):
        bar = spectral_norm.normalised(w, u, v)
    assert bar.dtype == torch.float32
    torch.testing.assert_close(bar, spectral_norm.normalised(w, u, v), rtol=0, atol=0)
    assert torch.equal(u, before)


def test_batch_norm_with_a_gain_per_picture() -> None:
    x, gain, bias = RNG.normal(2, 3, size=(4, 3, 5, 6)), RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3))
    mean, var = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    y = batch_norm(t(x), mean, var, training=True, momentum=0.1, eps=1e-5)
    np.testing.assert_allclose(modulate(y, t(gain), t(bias)), reference.batch_norm(x, gain, bias, 1e-5), atol=1e-12)
    np.testing.assert_allclose(mean, 0.1 * x.mean(axis=(0, 2, 3)))
    np.testing.assert_allclose(var, 0.9 + 0.1 * x.var(axis=(0, 2, 3), ddof=1))
