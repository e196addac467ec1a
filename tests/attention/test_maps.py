"""The maps that are shown are the ones that the network used: held against plain NumPy, and recomputed outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagan_cli.attention import compute_maps
from sagan_cli.contracts import ModelSpec
from sagan_cli.engine import sample
from sagan_cli.engine.attention_maps import LayerMaps, attention_layers, record_maps
from sagan_cli.engine.runtime import Runtime
from sagan_cli.errors import SaganError
from sagan_cli.model.attention_blocks import SelfAttention
from sagan_cli.model.sagan import build
from sagan_cli.ops import dot_product_attention as ops

CPU = Runtime(torch.device("cpu"), "fp32")
SPEC = ModelSpec(48, 32, channels=3, num_classes=3, latent=8, base_width=8, attn_at=(12, 24))


def lively(spec: ModelSpec = SPEC, seed: int = 0) -> tuple[nn.Module, nn.Module]:
    """The two networks with attention that matters: gamma away from 0, weights large enough for sharp maps."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = build(spec)
        for network in networks:
            for n, layer in enumerate(network.attention_layers().values()):
                layer.gamma.data.fill_(0.7 - 0.4 * n)
    return networks[0].eval(), networks[1].eval()


def pair(spec: ModelSpec = SPEC) -> compute_maps.CheckpointNetworks:
    """The same as a loaded checkpoint."""
    g, d = lively(spec)
    sampler = sample.Sampler(g, spec, ("a", "b", "c")[: spec.num_classes], None, "ema")  # type: ignore[arg-type]
    return compute_maps.CheckpointNetworks(sampler, d)


def restated(layer: SelfAttention, x: Tensor, maps: Tensor) -> Tensor:
    """Equation 3 from the maps alone: x + gamma * output(maps @ pooled value)."""
    value = F.max_pool2d(layer.value(x), 2).flatten(2).transpose(1, 2)
    o = (maps @ value).transpose(1, 2).unflatten(2, tuple(x.shape[2:]))
    return x + layer.gamma * layer.output(o)


@pytest.mark.parametrize("limit", [ops.EXPLICIT_LIMIT, 0], ids=["explicit", "fused"])
@pytest.mark.parametrize("which", [0, 1], ids=["G", "D"])
@torch.no_grad()
def test_the_output_recomputed_from_the_maps_is_the_block_s(which: int, limit: int, monkeypatch) -> None:
    monkeypatch.setattr(ops, "EXPLICIT_LIMIT", limit)
    network = lively()[which]
    passed: dict[str, tuple[Tensor, Tensor]] = {}
    for name, layer in network.attention_layers().items():
        layer.register_forward_hook(lambda m, args, out, name=name: passed.update({name: (args[0], out)}))
    first = torch.randn(5, 8) if which == 0 else torch.rand(5, 3, 48, 32) * 2 - 1
    with record_maps(network) as seen:
        network(first, torch.tensor([0, 1, 2, 0, 1]))
    assert set(seen) == {"12", "24"}
    for name, layer in network.attention_layers().items():
        x, y = passed[name]
        found = seen[name]
        assert found.query_grid == tuple(x.shape[2:])
        assert found.key_grid == (x.shape[2] // 2, x.shape[3] // 2)
        assert (restated(layer, x, found.maps) - y).abs().max() < 1e-5
        torch.testing.assert_close(found.maps.sum(-1), torch.ones(found.maps.shape[:2]), atol=1e-5, rtol=0)
        strength = (y - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
        torch.testing.assert_close(found.strength, strength)
        assert found.strength.min() > 0.01, "a block that does nothing would prove nothing"
        assert found.gamma == pytest.approx(layer.gamma.item())


@torch.no_grad()
def test_one_map_is_equation_1_in_float64() -> None:
    layer = SelfAttention(16)
    x = torch.randn(2, 16, 6, 4)
    found = layer.maps(x)

    def conv(part: nn.Module) -> np.ndarray:
        weight = part.weight.double().numpy()[:, :, 0, 0]
        u, v = part.u.double().numpy(), part.v.double().numpy()
        return np.einsum("oc,bchw->bohw", weight / (u @ weight @ v), x.double().numpy())

    query, key = conv(layer.query), conv(layer.key)
    key = key.reshape(2, -1, 3, 2, 2, 2).max(axis=(3, 5))
    scores = np.einsum("bcn,bcm->bnm", query.reshape(2, -1, 24), key.reshape(2, -1, 6))
    e = np.exp(scores - scores.max(-1, keepdims=True))
    np.testing.assert_allclose(found.numpy(), e / e.sum(-1, keepdims=True), atol=1e-6)


def test_a_fresh_block_is_idle_and_watching_changes_nothing() -> None:
    g, _ = build(SPEC)
    z, y = torch.randn(3, 8), torch.tensor([0, 1, 2])
    g.eval()
    with torch.no_grad():
        before = g(z, y)
        with record_maps(g) as seen:
            during = g(z, y)
    assert torch.equal(before, during)
    assert all(layer.strength.max() == 0 and layer.gamma == 0 for layer in seen.values())
    assert not any(m._forward_hooks for m in g.modules())


def test_watching_some_layers_only() -> None:
    g, _ = lively()
    z, y = torch.randn(2, 8), torch.tensor([0, 1])
    with torch.no_grad(), record_maps(g, ["12"]) as seen:
        g(z, y)
    assert list(seen) == ["12"]
    with torch.no_grad(), record_maps(nn.Identity(), ()) as seen:
        assert seen == {}


def test_entropy_and_distance_of_known_maps() -> None:
    even, sharp = torch.full((1, 8, 2), 0.5), torch.zeros(1, 8, 2)
    sharp[..., 1] = 1

    def of(maps: Tensor) -> LayerMaps:
        return LayerMaps("x", maps, (2, 4), (1, 2), None, torch.ones(1))

    torch.testing.assert_close(of(even).entropy(), torch.ones(1, 8).double())
    assert of(sharp).entropy().abs().max() == 0
    # Two keys, centred at a quarter and three quarters of a picture twice as wide as high; all look at the right one.
    x = (torch.arange(4).double() + 0.5) / 4
    want = torch.stack([torch.hypot(0.75 - x, torch.tensor(y - 0.25)) for y in (0.125, 0.375)]).reshape(1, 8)
    torch.testing.assert_close(of(sharp).distance(), want)


class Odd(nn.Module):
    """A plugin's layer: identity, and maps to a number of keys of its own."""

    def __init__(self, keys: int, grid: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.keys = keys
        if grid:
            self.key_grid = lambda h, w: grid

    def forward(self, x: Tensor) -> Tensor:
        return x

    def maps(self, x: Tensor) -> Tensor:
        return torch.full((len(x), x.shape[2] * x.shape[3], self.keys), 1 / self.keys)


class Host(nn.Module):
    def __init__(self, layer: nn.Module | None) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return x if self.layer is None else self.layer(x)

    def attention_layers(self) -> dict[str, nn.Module]:
        return {} if self.layer is None else {"mine": self.layer}


@pytest.mark.parametrize(
    ("layer", "grid"), [(Odd(48), (6, 8)), (Odd(12), (3, 4)), (Odd(3), (1, 2)), (Odd(7, (7, 1)), (7, 1))]
)
def test_a_plugin_s_key_grid_is_asked_or_follows(layer: Odd, grid: tuple[int, int]) -> None:
    host = Host(layer)
    if layer.keys == 3:  # no whole factor makes 3 keys of 48 positions
        with pytest.raises(SaganError, match=r"'mine': 3 keys for 6x8 queries; give it .* key_grid"), record_maps(host):
            host(torch.zeros(1, 2, 6, 8))
        return
    with record_maps(host) as seen:
        host(torch.ones(1, 2, 6, 8))
    assert (seen["mine"].query_grid, seen["mine"].key_grid) == ((6, 8), grid)
    assert seen["mine"].gamma is None


def test_networks_that_show_nothing_say_what_to_do() -> None:
    with pytest.raises(SaganError, match=r"Identity has no attention layers to show: train with --attn-at"):
        attention_layers(nn.Identity())
    with pytest.raises(SaganError, match=r"Host has no attention layers"):
        attention_layers(Host(None))
    with pytest.raises(SaganError, match=r"attention layer 'mine' of Host shows no maps: it has no method maps\(x\)"):
        attention_layers(Host(nn.Identity()))


ALL = {"G": ["12", "24"], "D": ["12", "24"]}


def test_maps_depend_on_their_seeds_alone_and_draws_what_sample_draws() -> None:
    two = pair()
    group = sample.group_of(SPEC, CPU.device)
    requests = [sample.Request(s) for s in range(group + 3)]
    counted: list[int] = []
    many = compute_maps.maps_of_seeds(two, requests, ALL, CPU, counted.append)
    assert counted == [group, 3]
    one = compute_maps.maps_of_seeds(two, requests[9:10], ALL, CPU, lambda _: None)
    drawn = np.concatenate([x for x, _ in sample.pictures(two.sampler.generator, SPEC, requests, CPU)])
    np.testing.assert_array_equal(many.images, drawn)
    np.testing.assert_array_equal(many.images[9:10], one.images)
    assert [(letter, layer.name) for letter, layer in many.layers] == [
        ("G", "12"),
        ("G", "24"),
        ("D", "24"),
        ("D", "12"),
    ]
    for (_, a), (_, b) in zip(many.layers, one.layers, strict=True):
        assert torch.equal(a.maps[9:10], b.maps)
        assert torch.equal(a.strength[9:10], b.strength)


def test_d_sees_what_g_drew_before_rounding() -> None:
    two = pair()
    requests = [sample.Request(s, 1) for s in range(2)]
    recorded = compute_maps.maps_of_seeds(two, requests, {"G": [], "D": ["24"]}, CPU, lambda _: None)
    z, y = sample.latents(requests, SPEC, None)
    with torch.no_grad(), record_maps(two.network("D")) as seen:
        two.network("D")(two.network("G")(z, y), y)
    ((letter, layer),) = recorded.layers
    assert letter == "D"
    torch.testing.assert_close(layer.maps, seen["24"].maps, atol=1e-5, rtol=0)
    saved = compute_maps.maps_of_images(two, recorded.images, 1, ["24"], CPU, lambda _: None)
    off = (saved.layers[0][1].maps - layer.maps).abs().max()
    assert 0 < off < 0.01


def test_the_class_does_not_reach_a_projection_d_s_maps() -> None:
    two = pair()
    picture = np.random.default_rng(0).integers(0, 256, (48, 32, 3), np.uint8)
    assert not compute_maps.label_changes_maps(two, picture, ["12", "24"], CPU)

    class Telling(nn.Module):
        def __init__(self, d: nn.Module) -> None:
            super().__init__()
            self.d = d

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.d(x * (1 + y.float()).view(-1, 1, 1, 1), y)

        def attention_layers(self) -> dict[str, nn.Module]:
            return self.d.attention_layers()

    assert compute_maps.label_changes_maps(
        compute_maps.CheckpointNetworks(two.sampler, Telling(two.network("D"))), picture, ["12", "24"], CPU
    )


def test_a_diverged_generator_and_maps_beyond_memory_are_said(monkeypatch) -> None:
    two = pair()
    requests = [sample.Request(s) for s in range(100)]
    monkeypatch.setattr(compute_maps, "MAX_BYTES", 1000)
    with pytest.raises(SaganError, match=r"^100 images: their attention maps would take .* GiB: take fewer"):
        compute_maps.maps_of_seeds(two, requests, ALL, CPU, lambda _: None)
    two.sampler.generator.to_image.bias.data.fill_(float("nan"))
    with pytest.raises(SaganError, match="output is not a number"):
        compute_maps.maps_of_seeds(two, requests[:1], ALL, CPU, lambda _: None)
