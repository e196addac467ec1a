"""Check of an architecture, at small sizes on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sagan_cli.contracts import ArchitectureFactory, ModelSpec
from sagan_cli.testing.assertions import raises_usage_error, require

if TYPE_CHECKING:
    from torch import Tensor, nn

SIDE = 16
"""Feature map with attention: images of 32x32 and of 32x64 have one with this longer side."""
CASES = (
    # height, width, channels, classes, attn_at; every pair of values occurs.
    (32, 32, 3, 0, ()),
    (32, 32, 1, 3, (SIDE,)),
    (32, 64, 3, 3, (SIDE,)),
    (32, 64, 1, 0, ()),
    (32, 64, 4, 3, ()),
    (32, 32, 4, 0, (SIDE,)),
)


def check_architecture(
    factory: ArchitectureFactory, *, base_width: int = 8, gradient_free: Collection[str] = ()
) -> None:
    """Check a `sagan.architectures` factory at small sizes on the CPU; a few seconds.

    Args:
        base_width: `ModelSpec.base_width` of the networks.
        gradient_free: names of parameters (`generator.x.y`) that get no gradient by design.

    Raises:
        AssertionError: the first violation of the contract.
    """
    base = ModelSpec(height=32, width=32, latent=24, base_width=base_width, attn_at=())
    require(
        raises_usage_error(lambda: factory(replace(base, options={"no_such_option": 1}))),
        "an unknown name in spec.options must be refused with a UsageError",
    )
    attends = not raises_usage_error(lambda: factory(replace(base, attn_at=(SIDE,))))
    for height, width, channels, classes, attn_at in CASES:
        sides = attn_at if attends else ()
        spec = replace(base, height=height, width=width, channels=channels, num_classes=classes, attn_at=sides)
        with _named(_show(spec)):
            _check_pair(factory, spec, gradient_free)
    if (settle := getattr(factory, "settled", None)) is not None:
        _check_settled(factory, settle, base, attends)
    # `sagan train --dry-run` counts parameters and memory on the meta device.
    with _named("under torch.device('meta')"):
        _check_meta(factory, replace(base, num_classes=3, attn_at=(SIDE,) if attends else ()))


def _check_settled(
    factory: ArchitectureFactory, settle: Callable[..., ModelSpec], base: ModelSpec, attends: bool
) -> None:
    """Check that the result of `settled` can be built and is reproducible, and that `none` remains none."""
    cases = [(True, (SIDE,)), (False, ())] + ([(False, (SIDE,))] if attends else [])
    for auto, sides in cases:
        with _named(f"settled({_show(base)}, auto={auto})"):
            spec = settle(replace(base, attn_at=sides), auto=auto)
            require(isinstance(spec, ModelSpec), f"must return a ModelSpec, not {type(spec).__name__}")
            require(replace(spec, attn_at=sides, options={}) == replace(base, attn_at=sides), "changes the images")
            require(auto or spec.attn_at == sides, f"returns attn_at {spec.attn_at} for {sides}")
            require(settle(replace(base, attn_at=sides), auto=auto) == spec, "returns another result when called again")
            for name, network in zip(("generator", "discriminator"), _built(factory, spec, seed=0), strict=True):
                _check_attention(spec, name, network)


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Prefix the messages of failures inside with `what`."""
    try:
        yield
    except AssertionError as e:
        raise AssertionError(f"{what}: {e}") from e
    except Exception as e:
        raise AssertionError(f"{what}: raised {type(e).__name__}: {e}") from e


def _check_attention(spec: ModelSpec, name: str, network: nn.Module) -> None:
    """Check that a network lists attention layers if, and only if, `attn_at` is not empty."""
    layers = _attention_layers(network, name)
    if spec.attn_at:
        way_out = "or refuse attn_at with a UsageError"
        require(layers is None or len(layers) > 0, f"the {name}'s attention_layers are none: list them, {way_out}")
    else:
        require(not layers, f"the {name} lists attention_layers though attn_at is empty")


def _attention_layers(network: nn.Module, name: str) -> dict[str, nn.Module] | None:
    offered = getattr(network, "attention_layers", None)
    if offered is None:
        return None
    layers: Any = offered()
    own = set(network.modules())
    good = isinstance(layers, dict) and all(isinstance(k, str) and v in own for k, v in layers.items())
    require(good, f"attention_layers() of the {name} must be a dict of text -> module of that network")
    return dict(layers)


def _check_pair(factory: ArchitectureFactory, spec: ModelSpec, gradient_free: Collection[str]) -> None:
    import torch

    g, d = (network.train() for network in _built(factory, spec, seed=0))
    again = _built(factory, spec, seed=0)
    for name, one, other in zip(("generator", "discriminator"), (g, d), again, strict=True):
        same = _equal(one.state_dict(), other.state_dict())
        require(same, f"the {name}'s first weights must be a function of torch's seed")
        _check_attention(spec, name, one)

    random = torch.Generator().manual_seed(1)
    z = torch.randn(4, spec.latent, generator=random)
    y = torch.arange(4) % spec.num_classes if spec.num_classes else None
    with torch.no_grad():
        for p in (*g.parameters(), *d.parameters()):
            # A gamma or embedding that starts at 0 would hide the layers behind it.
            p.add_(torch.randn(p.shape, generator=random), alpha=0.05)
        for module in (*g.modules(), *d.modules()):
            getattr(module, "advance_", lambda: None)()

    x = g(z, y)
    want = (4, spec.channels, spec.height, spec.width)
    require(x.shape == want and x.is_floating_point(), f"the generator returns {_say(x)}: floats of shape {want}")
    require(bool((x.abs() <= 1).all()), "the generator's images must be finite and in [-1, 1]")
    logits = d(x, y)
    require(
        logits.shape == (4,) and logits.is_floating_point(),
        f"the discriminator returns {_say(logits)}: floats of shape (4,)",
    )
    require(bool(logits.isfinite().all()), "the discriminator's logits must be finite")

    logits.mul(torch.randn(4, generator=random)).sum().backward()
    for name, network in (("generator", g), ("discriminator", d)):
        for key, p in network.named_parameters(prefix=name):
            reached = p.grad is not None and bool(p.grad.any())
            require(
                reached or key in gradient_free,
                f"no gradient reaches the parameter {key}; list it in gradient_free if intended",
            )

    _check_labels(g, d, z, x.detach(), y)
    _check_copies(factory, spec, g.eval(), d.eval(), z, y)


def _check_meta(factory: ArchitectureFactory, spec: ModelSpec) -> None:
    import torch

    with torch.device("meta"):
        g, d = factory(spec)
        y = torch.zeros(2, dtype=torch.long)
        logits = d(g(torch.zeros(2, spec.latent), y), y)
    require(logits.shape == (2,), f"the discriminator returns {_say(logits)}: floats of shape (2,)")


def _check_labels(g: nn.Module, d: nn.Module, z: Tensor, x: Tensor, y: Tensor | None) -> None:
    import torch

    if y is None:
        return
    other = (y + 1) % (int(y.max()) + 1)
    with torch.no_grad():
        require(not torch.equal(g.eval()(z, y), g(z, other)), "the generator ignores the class labels")
        require(not torch.equal(d.eval()(x, y), d(x, other)), "the discriminator ignores the class labels")


def _check_copies(
    factory: ArchitectureFactory, spec: ModelSpec, g: nn.Module, d: nn.Module, z: Tensor, y: Tensor | None
) -> None:
    """Check that, in evaluation mode, images are independent and the state dict is complete."""
    import torch

    fresh = _built(factory, spec, seed=2)
    for one, other in zip((g, d), fresh, strict=True):
        other.eval().load_state_dict(copy.deepcopy(one.state_dict()), strict=True)
    with torch.no_grad():
        x = g(z, y)
        single = g(z[1:2], None if y is None else y[1:2])
        require(torch.allclose(single, x[1:2], atol=1e-4), "in evaluation, an image depends on the rest of the batch")
        require(torch.equal(x, fresh[0](z, y)), "a generator with loaded weights generates other images")
        require(torch.equal(d(x, y), fresh[1](x, y)), "a discriminator with loaded weights gives other logits")
        require(torch.equal(x, copy.deepcopy(g)(z, y)), "a copy of the generator generates other images")


def _built(factory: ArchitectureFactory, spec: ModelSpec, seed: int) -> tuple[nn.Module, nn.Module]:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pair = factory(spec)
    whole = isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(n, torch.nn.Module) for n in pair)
    require(whole, "the factory must return (generator, discriminator), two modules")
    return pair


def _equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    import torch

    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def _show(spec: ModelSpec) -> str:
    classes = f"{spec.num_classes} classes" if spec.num_classes else "no classes"
    return f"{spec.height}x{spec.width}x{spec.channels}, {classes}, attn_at {spec.attn_at}"


def _say(x: Tensor) -> str:
    return f"{x.dtype} of shape {tuple(x.shape)}"
