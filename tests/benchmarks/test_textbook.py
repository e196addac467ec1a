"""The textbook that `benchmarks/` measures against is an equal: same counts, same function, same gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from parts.implementations import EXACT, TEXTBOOK, count_parameters, side
from parts.systems import CUDA_SYSTEMS, SYSTEMS, System
from support import benchmarks_path  # noqa: F401
from textbook import dcgan
from textbook.matching import copy_, matches
from torch import Tensor, nn

from sagan_cli.engine import networks
from sagan_cli.engine.iteration import advance_spectral_norms
from sagan_cli.engine.runtime import Runtime

ALL = [*SYSTEMS.values(), *CUDA_SYSTEMS.values()]
TINY = {name: replace(s, spec=replace(s.spec, base_width=8 if s.arch != "sagan-cifar" else 4), batch=3)
        for name, s in SYSTEMS.items() if name not in ("sagan-128", "laptop-32")}  # fmt: skip


@pytest.mark.parametrize("system", ALL, ids=lambda s: f"{s.name}-{s.batch}")
def test_both_sides_have_as_many_parameters(system: System) -> None:
    counts = count_parameters(system)
    assert counts["ours"] == counts[TEXTBOOK]


@pytest.mark.parametrize("name", TINY)
def test_both_sides_are_one_function_with_one_gradient(name: str) -> None:
    system, spec = TINY[name], TINY[name].spec
    torch.manual_seed(0)
    ours = [n.double().train() for n in networks.build(system.arch, spec)]
    textbook = [n.double().train() for n in system.textbook()]
    with torch.no_grad():
        for network in ours:
            for block in network.attention_layers().values():
                block.gamma.fill_(0.7)
            for key, p in network.named_parameters():
                if "norm" in key or "bias" in key:
                    p.add_(torch.randn_like(p), alpha=0.1)
    for theirs, mine in zip(textbook, ours, strict=True):
        copy_(theirs, mine)
        advance_spectral_norms(mine)  # PyTorch's hook moves by itself, in the forward pass
    z = torch.randn(3, spec.latent, dtype=torch.float64)
    y = torch.tensor([0, 1, 1]) if spec.num_classes else None
    x = torch.randn(3, 3, spec.height, spec.width, dtype=torch.float64)
    for theirs, mine, given in zip(textbook, ours, (z, x), strict=True):
        theirs_in, mine_in = given.clone().requires_grad_(), given.clone().requires_grad_()
        want, have = _run(theirs, theirs_in, y), mine(mine_in, y)
        assert torch.allclose(want, have, rtol=0, atol=1e-10), (want - have).abs().max()
        upstream = torch.randn_like(want)
        want.backward(upstream)
        have.backward(upstream)
        assert torch.allclose(theirs_in.grad, mine_in.grad, rtol=1e-8, atol=1e-10)
        compared = set()
        for m in matches(theirs, mine):
            if m.theirs.grad is not None:
                compared.add(m.theirs)
                assert torch.allclose(m.theirs.grad, m.lay(*(t.grad for t in m.mine)), rtol=1e-8, atol=1e-9)
        assert compared == set(theirs.parameters())


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("which", [TEXTBOOK, EXACT])
def test_a_step_of_each_side_trains(name: str, which: str) -> None:
    seen: dict[str, list[Tensor]] = {}

    class Noting(torch.optim.Adam):
        def __init__(self, params: Any, *args: Any, **kwargs: Any) -> None:
            params = list(params)
            seen.setdefault("before", []).extend(p.detach().clone() for p in params)
            seen.setdefault("after", []).extend(params)
            super().__init__(params, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "Adam", Noting)
        take = side(which, TINY[name], Runtime(torch.device("cpu"), "fp32"))
    take()
    take()
    moved = [not torch.equal(a, b) for a, b in zip(seen["before"], seen["after"], strict=True)]
    assert sum(moved) > 0.7 * len(moved)  # queries, keys and values stand still while gamma is 0


def _run(network: nn.Module, given: Tensor, y: Tensor | None) -> Tensor:
    if isinstance(network, dcgan.Generator | dcgan.Discriminator):
        out: Tensor = network(given)[0]
        return out
    return network(given, y)
