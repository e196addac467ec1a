"""The networks: published parameter counts, every block against float64 NumPy, sizes, evaluation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support import numpy_reference as reference
from torch import nn

from sagan_cli.contracts import ModelSpec
from sagan_cli.engine import networks
from sagan_cli.errors import UsageError
from sagan_cli.model.attention_blocks import SelfAttention
from sagan_cli.model.blocks import DownBlock, UpBlock
from sagan_cli.model.ema import EMA
from sagan_cli.model.layers import ConditionalBatchNorm2d, SpectralNormed
from sagan_cli.model.sagan import SAGANDiscriminator, SAGANGenerator, build

PAPER = ModelSpec(height=128, width=128, num_classes=1000)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("attn_at", "g_count", "d_count"),
    [((32,), 42_078_852, 39_463_618), ((64,), 42_017_412, 39_448_258), ((), 41_996_931, 39_443_137)],
)
def test_parameter_counts_of_sagan_128(attn_at: tuple[int, ...], g_count: int, d_count: int) -> None:
    with torch.device("meta"):
        g, d = build(replace(PAPER, attn_at=attn_at))
    assert (count(g), count(d)) == (g_count, d_count)


def test_several_attention_layers_add_up() -> None:
    with torch.device("meta"):
        none, both = build(replace(PAPER, attn_at=())), build(replace(PAPER, attn_at=(32, 64)))
    assert count(both[0]) - count(none[0]) == (42_078_852 - 41_996_931) + (42_017_412 - 41_996_931)
    assert list(both[0].attention_layers()) == ["32", "64"]
    assert list(both[1].attention_layers()) == ["64", "32"]  # D meets the large map first


def bar(layer: SpectralNormed) -> np.ndarray:
    """W / sigma from the layer's raw weight and its stored vectors, in NumPy."""
    w, u, v = (a.detach().numpy() for a in (layer.weight, layer.u, layer.v))
    flat = w.transpose(0, 2, 3, 1).reshape(len(w), -1) if w.ndim == 4 else w
    return w / (u @ flat @ v)


@pytest.fixture
def double() -> object:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double")
def test_self_attention_block_forward_and_gradients() -> None:
    block = SelfAttention(16)
    block.gamma.data.fill_(0.7)
    x = np.random.default_rng(1).normal(size=(2, 16, 4, 6))
    weights = [bar(c)[:, :, 0, 0] for c in (block.query, block.key, block.value, block.output)]
    tx = torch.from_numpy(x).requires_grad_()
    y = block(tx)
    expected, beta = reference.attention_block(x, *weights, 0.7)
    np.testing.assert_allclose(y.detach(), expected, atol=1e-12)
    np.testing.assert_allclose(block.maps(tx).detach(), beta, atol=1e-13)

    # Gradients by central differences of the NumPy block, along random directions of input, gamma and raw weights.
    probe = np.random.default_rng(2).normal(size=y.shape)
    (y * torch.from_numpy(probe)).sum().backward()
    loss = lambda x_, ws, g: float((reference.attention_block(x_, *ws, g)[0] * probe).sum())  # noqa: E731
    h = 1e-6
    direction = np.random.default_rng(3).normal(size=x.shape)
    slope = (loss(x + h * direction, weights, 0.7) - loss(x - h * direction, weights, 0.7)) / (2 * h)
    assert float((tx.grad.numpy() * direction).sum()) == pytest.approx(slope, rel=1e-6)
    slope = (loss(x, weights, 0.7 + h) - loss(x, weights, 0.7 - h)) / (2 * h)
    assert block.gamma.grad.item() == pytest.approx(slope, rel=1e-6)
    for i, layer in enumerate((block.query, block.key, block.value, block.output)):
        raw, u, v = layer.weight.detach().numpy()[:, :, 0, 0], layer.u.numpy(), layer.v.numpy()
        way = np.random.default_rng(4 + i).normal(size=raw.shape)

        def at(
            step: float, i: int = i, raw: np.ndarray = raw, u: np.ndarray = u, v: np.ndarray = v, way: np.ndarray = way
        ) -> float:
            moved = raw + step * way
            return loss(x, [*weights[:i], moved / (u @ moved @ v), *weights[i + 1 :]], 0.7)

        slope = (at(h) - at(-h)) / (2 * h)
        assert float((layer.weight.grad.numpy()[:, :, 0, 0] * way).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_attention_starts_as_the_identity_and_reaches_every_position() -> None:
    block = SelfAttention(8)
    x = torch.randn(1, 8, 8, 8, requires_grad=True)
    assert torch.equal(block(x), x)
    block.gamma.data.fill_(1.0)
    block(x)[0, :, 0, 0].sum().backward()
    # Max pooling lets one position of each 2x2 cell through per channel; the cells must all be reached.
    cells = x.grad[0].abs().sum(0).reshape(4, 2, 4, 2).sum(dim=(1, 3))
    assert (cells > 0).all()


@pytest.mark.usefixtures("double")
def test_conditional_batch_norm_looks_up_its_rows() -> None:
    norm = ConditionalBatchNorm2d(3, num_classes=4)
    nn.init.normal_(norm.gain)
    nn.init.normal_(norm.bias)
    x, y = np.random.default_rng(0).normal(size=(5, 3, 4, 4)), np.array([0, 3, 3, 1, 2])
    expected = reference.batch_norm(x, norm.gain.detach().numpy()[y], norm.bias.detach().numpy()[y], 1e-5)
    np.testing.assert_allclose(norm(torch.from_numpy(x), torch.from_numpy(y)).detach(), expected, atol=1e-12)


@pytest.mark.usefixtures("double")
def test_up_block() -> None:
    block = UpBlock(6, 4, num_classes=3)
    nn.init.normal_(block.norm0.gain)
    x, y = np.random.default_rng(0).normal(size=(3, 6, 4, 4)), np.array([2, 0, 1])

    def norm(layer: ConditionalBatchNorm2d, a: np.ndarray) -> np.ndarray:
        return reference.batch_norm(a, layer.gain.detach().numpy()[y], layer.bias.detach().numpy()[y], 1e-5)

    bias = lambda c: c.bias.detach().numpy()  # noqa: E731
    h = reference.nearest2x(np.maximum(norm(block.norm0, x), 0))
    h = reference.conv2d(h, bar(block.conv0), bias(block.conv0))
    h = reference.conv2d(np.maximum(norm(block.norm1, h), 0), bar(block.conv1), bias(block.conv1))
    skip = reference.conv2d(reference.nearest2x(x), bar(block.shortcut), bias(block.shortcut))
    np.testing.assert_allclose(block(torch.from_numpy(x), torch.from_numpy(y)).detach(), h + skip, atol=1e-12)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("first", "down", "out"), [(True, True, 5), (False, True, 5), (False, False, 3), (False, False, 5)]
)
def test_down_block(first: bool, down: bool, out: int) -> None:
    block = DownBlock(3, out, down=down, first=first)
    x = np.random.default_rng(0).normal(size=(2, 3, 6, 4))
    bias = lambda c: c.bias.detach().numpy()  # noqa: E731
    h = reference.conv2d(x if first else np.maximum(x, 0), bar(block.conv0), bias(block.conv0))
    h = reference.conv2d(np.maximum(h, 0), bar(block.conv1), bias(block.conv1))
    skip = x if block.shortcut is None else reference.conv2d(x, bar(block.shortcut), bias(block.shortcut))
    assert (block.shortcut is None) == (out == 3 and not down)
    expected = reference.avgpool2x2(h) + reference.avgpool2x2(skip) if down else h + skip
    np.testing.assert_allclose(block(torch.from_numpy(x)).detach(), expected, atol=1e-12)


@pytest.mark.usefixtures("double")
def test_projection_adds_the_inner_product_with_the_class_embedding() -> None:
    d = SAGANDiscriminator(ModelSpec(16, 16, 3, num_classes=5, base_width=4, attn_at=(8,)))
    x, y = torch.randn(3, 3, 16, 16), torch.tensor([4, 0, 2])
    seen: list[np.ndarray] = []
    d.linear.register_forward_hook(lambda _m, args, _o: seen.append(args[0].detach().numpy()))
    logits = d(x, y).detach().numpy()
    h = seen[0]
    psi = h @ bar(d.linear)[0] + d.linear.bias.item()
    np.testing.assert_allclose(logits, psi + (h * bar(d.embed)[y.numpy()]).sum(1), rtol=1e-12)


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (256, 64), (96, 128), (48, 48), (16, 24)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_legal_size_and_channel_count(size: tuple[int, int], channels: int) -> None:
    from sagan_cli.geometry import default_attention

    spec = ModelSpec(
        *size, channels=channels, num_classes=channels - 1, latent=5, base_width=2, attn_at=default_attention(*size)
    )
    g, d = build(spec)
    y = torch.zeros(2, dtype=torch.long) if spec.num_classes else None
    x = g(torch.randn(2, 5), y)
    assert x.shape == (2, channels, *size)
    assert x.abs().max() <= 1
    assert d(x, y).shape == (2,)
    assert spec.attn_at
    assert list(g.attention_layers()) == [str(s) for s in spec.attn_at]


def test_large_pictures_have_networks() -> None:
    for side in (256, 512):
        with torch.device("meta"):
            g, d = build(ModelSpec(side, side, attn_at=(32, 64)))
            assert g(torch.empty(1, 128)).shape == (1, 3, side, side)
            assert d(torch.empty(1, 3, side, side)).shape == (1,)


def test_evaluation_changes_nothing_and_advance_moves_the_estimate() -> None:
    g, d = build(ModelSpec(16, 16, base_width=4, latent=6, attn_at=(8,)))
    for network, args in ((g, (torch.randn(2, 6),)), (d, (torch.randn(2, 3, 16, 16),))):
        network.eval()
        before = {k: v.clone() for k, v in network.state_dict().items()}
        network(*args)
        assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    g.linear.weight.data.mul_(3).add_(torch.randn_like(g.linear.weight))
    u = g.linear.u.clone()
    g.linear.advance_()
    assert not torch.equal(g.linear.u, u)


def test_ema_follows_the_weights() -> None:
    g = SAGANGenerator(ModelSpec(16, 16, base_width=2, latent=3, attn_at=()))
    ema = EMA(g, decay=0.9)
    start = ema.module.linear.weight.clone()
    g.linear.weight.data.add_(1)
    ema.update(g, 0)  # warm-up: decay 1/10
    torch.testing.assert_close(ema.module.linear.weight, start + 0.9)
    ema.update(g, 10_000)  # warmed up: decay 0.9
    torch.testing.assert_close(ema.module.linear.weight, start + 0.91)
    off = EMA(g, decay=0.0)
    g.linear.weight.data.add_(1)
    off.update(g, 5)
    assert torch.equal(off.module.linear.weight, g.linear.weight)


def test_settling_measures_spectral_norms_and_batch_statistics_on_the_averaged_weights() -> None:
    torch.manual_seed(0)
    g = SAGANGenerator(ModelSpec(16, 16, num_classes=3, base_width=4, latent=6, attn_at=(8,)))
    ema = EMA(g, decay=0.5)
    for t in range(50, 56):
        for p in g.parameters():
            p.data.add_(torch.randn_like(p), alpha=0.3)
        ema.update(g, t)
    noise = [(torch.randn(64, 6), torch.randint(3, (64,))) for _ in range(4)]
    weights = [p.clone() for p in ema.module.parameters()]
    ema.settle(g, noise)
    assert all(torch.equal(a, b) for a, b in zip(weights, ema.module.parameters(), strict=True))
    for layer in ema.module.modules():
        if isinstance(layer, SpectralNormed):
            flat = layer.weight.detach().double().flatten(1).numpy()
            estimate = 1 / (bar(layer) / layer.weight.detach().numpy()).flat[0]
            assert estimate == pytest.approx(reference.spectral_norm(flat), rel=0.15)
    # Over the pictures that it was settled on, every norm's input has the statistics that it remembers.
    seen: list[torch.Tensor] = []
    ema.module.norm.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    ema.module.train()
    before = {k: v.clone() for k, v in ema.module.state_dict().items()}
    for z, y in noise:
        ema.module(z, y)
    torch.testing.assert_close(before["norm.running_mean"], torch.cat(seen).mean(dim=(0, 2, 3)), atol=1e-4, rtol=1e-3)
    # Settling again, from anywhere, gives the same.
    ema.settle(g, noise)
    assert all(torch.equal(before[k], v) for k, v in ema.module.state_dict().items())


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (ModelSpec(33, 33), "nearest supported sizes: 32"),
        (ModelSpec(100, 100), "--size 100"),
        (ModelSpec(64, 64, attn_at=(20,)), "--attn-at 20: images of 64 have feature maps 8, 16, 32"),
        (ModelSpec(64, 64, attn_at=(64,)), "--attn-at 64"),
        (ModelSpec(64, 64, options={"depth": 3}), "model.options.depth"),
    ],
)
def test_impossible_networks_are_refused_in_one_line(spec: ModelSpec, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(spec)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arch", ["sagan", "sagan-cifar"])
def test_without_batch_norm_an_image_depends_on_its_own_latent_also_while_training(arch: str) -> None:
    options = {"g_norm": "none", "spectral_norm": "none"}
    g, _ = networks.build(arch, ModelSpec(32, 32, num_classes=3, base_width=4, attn_at=(16,), options=options))
    assert not [name for name, _ in g.named_buffers() if "running" in name]
    z, y = torch.randn(6, 128), torch.tensor([0, 1, 2, 0, 1, 2])
    torch.testing.assert_close(g.train()(z, y)[:2], g(z[:2], y[:2]), rtol=0, atol=1e-5)
    g(z, y).sum().backward()
    assert all(p.grad is not None for p in g.parameters())
