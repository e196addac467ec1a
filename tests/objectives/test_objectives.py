"""The losses and penalties against plain NumPy in float64 and finite differences, and training with each of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support import numpy_reference as reference
from support.cli import TINY, ok
from support.idx_files import idx_folder
from support.tiny_training import CPU, PLAIN, inputs, players, work
from torch import Tensor, nn

from sagan_cli.config.presets import PRESETS
from sagan_cli.config.schema import SETTINGS, TrainConfig
from sagan_cli.contracts import ModelSpec, PenaltyInputs
from sagan_cli.engine.networks import Networks, Schedules, gradient_norms
from sagan_cli.engine.runtime import Runtime
from sagan_cli.model.ema import EMA
from sagan_cli.model.sagan import build
from sagan_cli.objectives import penalties
from sagan_cli.objectives.objective import Objective
from sagan_cli.plugins import registry

RNG = np.random.default_rng(0)
REAL, FAKE = RNG.normal(size=50) * 2, RNG.normal(size=50) * 2


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


EXPECTED = {
    "hinge": (reference.hinge_d(REAL, FAKE), -FAKE.mean()),
    "non-saturating": (-np.log(sigmoid(REAL)).mean() - np.log(1 - sigmoid(FAKE)).mean(), -np.log(sigmoid(FAKE)).mean()),
    "minimax": (-np.log(sigmoid(REAL)).mean() - np.log(1 - sigmoid(FAKE)).mean(), np.log(1 - sigmoid(FAKE)).mean()),
    "least-squares": (((REAL - 1) ** 2).mean() / 2 + (FAKE**2).mean() / 2, ((FAKE - 1) ** 2).mean() / 2),
    "wasserstein": (FAKE.mean() - REAL.mean(), -FAKE.mean()),
    "relativistic": (-np.log(sigmoid(REAL - FAKE)).mean(), -np.log(sigmoid(FAKE - REAL)).mean()),
}
LOSSES = {name: registry.load("losses", name) for name in registry.names("losses")}


def r1(d: nn.Module, x: Tensor, y: Tensor | None) -> Tensor:
    """R1 on real images."""
    return penalties.R1.compute(PenaltyInputs(d, x, x, y, y, None))


def gradient_penalty(d: nn.Module, real: Tensor, fake: Tensor, y: Tensor | None, mixture: Tensor) -> Tensor:
    """The gradient penalty at a mixture of real and fake images."""
    return penalties.GP.compute(PenaltyInputs(d, real, fake, y, y, mixture))


def test_every_loss_is_a_setting_and_the_reverse() -> None:
    assert SETTINGS["train.loss"].registered == "losses"
    assert tuple(LOSSES) == tuple(EXPECTED)


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str) -> None:
    real, fake = (torch.from_numpy(v) for v in (REAL, FAKE))
    on_d, on_g = EXPECTED[name]
    assert LOSSES[name].discriminator(real, fake).item() == pytest.approx(on_d, abs=1e-13)
    assert LOSSES[name].generator(real, fake).item() == pytest.approx(on_g, abs=1e-13)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_stay_finite_at_extreme_logits(name: str) -> None:
    real, fake = (torch.tensor([-300.0, 300.0], requires_grad=True) for _ in range(2))
    loss = LOSSES[name].discriminator(real, fake) + LOSSES[name].generator(real, fake)
    loss.backward()
    assert all(torch.isfinite(v).all() for v in (loss, real.grad, fake.grad) if v is not None)


class Linear(nn.Module):
    """D(x) = w . x: its slope is w everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return x.flatten(1) @ self.w


def test_penalties_of_a_linear_discriminator() -> None:
    d = Linear()
    x, fake = (torch.randn(5, 3, 2, 2, dtype=torch.float64) for _ in range(2))
    norm = d.w.norm()
    assert torch.allclose(r1(d, x, None), norm**2 / 2)
    assert torch.allclose(gradient_penalty(d, x, fake, None, torch.rand(5)), (norm - 1) ** 2)
    assert torch.allclose(penalties.R2.compute(PenaltyInputs(d, x, fake, None, None, None)), norm**2 / 2)
    (grad,) = torch.autograd.grad(r1(d, x, None), d.w)
    assert torch.allclose(grad, d.w.detach())


def test_the_penalty_looks_between_real_and_fake() -> None:
    def square(x: Tensor, y: Tensor | None) -> Tensor:
        return 0.5 * x.flatten(1).square().sum(1)  # its slope at x is x

    real, fake = torch.full((1, 1, 2, 2), 3.0), torch.full((1, 1, 2, 2), 1.0)
    found = gradient_penalty(square, real, fake, None, torch.tensor([0.25]))
    assert found.item() == pytest.approx((1.5 * 2 - 1) ** 2, rel=1e-6)


@pytest.mark.parametrize("penalty", ["r1", "gp"])
def test_the_second_derivative_goes_through_attention(penalty: str) -> None:
    torch.manual_seed(0)  # finite differences fail at a kink of a ReLU
    _, d = build(ModelSpec(16, 16, 3, num_classes=2, base_width=2, attn_at=(8,)))
    d = d.double()
    for layer in d.attention_layers().values():
        layer.gamma.data.fill_(0.7)
    x, fake = (torch.randn(3, 3, 16, 16, dtype=torch.float64) for _ in range(2))
    y, mixture = torch.tensor([0, 1, 1]), torch.rand(3, dtype=torch.float64)

    def value() -> Tensor:
        return r1(d, x, y) if penalty == "r1" else gradient_penalty(d, x, fake, y, mixture)

    weights = [d.attention["8"].query.weight, d.attention["8"].value.weight, d.blocks[0].conv0.weight]
    for weight in weights:
        (grad,) = torch.autograd.grad(value(), weight)
        direction = torch.randn_like(weight)
        found = []
        for shift in (1e-5, -2e-5):
            weight.data += shift * direction
            found.append(value().item())
        weight.data += 1e-5 * direction
        high, low = found
        assert (grad * direction).sum().item() == pytest.approx((high - low) / 2e-5, rel=1e-4, abs=1e-9)
        assert grad.abs().max() > 0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    idx_folder(home / "idx")
    return home


@pytest.mark.parametrize(
    "flags",
    [
        ("--loss", "non-saturating", "--r1", 10),
        ("--loss", "minimax"),
        ("--loss", "least-squares"),
        ("--loss", "wasserstein", "--clip", 0.01, "--d-steps", 2),
        ("--loss", "wasserstein", "--gp", 10),
        ("--decay-from", 1, "--decay-steps", 3),
        (
            "--loss",
            "relativistic",
            "--penalty",
            "r1=cosine:0.2:0.1:100/2,r2=0.1",
            "--d-lr",
            "linear:4e-4:0:1k",
            "--beta2",
            "cosine:0.9:0.99:40",
            "--ema-halflife",
            "linear:10:100:1k",
        ),
    ],
    ids=lambda flags: " ".join(map(str, flags)),
)
def test_each_trains_and_resumes_to_the_bit(flags: tuple[object, ...], home: Path, tmp_path: Path) -> None:
    args = ("train", "--data", home / "idx", "--size", 16, *TINY, *flags, "--log-every", 1)
    last = 4 if "--penalty" in flags else 2  # a lazy penalty is applied before and after the interruption
    ok(*args, "--steps", last, "--out", "whole", cwd=tmp_path)
    ok(*args, "--steps", 1, "--out", "parts", cwd=tmp_path)
    ok(*args, "--steps", last, "--out", "parts", cwd=tmp_path)
    files = [tmp_path / name / f"checkpoints/{last:08d}/model.safetensors" for name in ("whole", "parts")]
    assert files[0].read_bytes() == files[1].read_bytes()
    lines = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["d_loss"]) for line in lines)


def rates(step: int, **train: int) -> tuple[float, float]:
    """G's and D's at a step."""
    optimisers = [torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=1.0) for _ in range(2)]
    schedules = Schedules(TrainConfig(g_lr=1e-3, d_lr=4e-3, **train))
    schedules.apply(Networks(nn.Identity(), nn.Identity(), *optimisers), EMA(nn.Identity()), step)
    g, d = (optimiser.param_groups[0]["lr"] for optimiser in optimisers)
    return g, d


def test_the_rates_fall_on_a_line_from_and_to_the_steps_that_are_named() -> None:
    assert rates(10**6) == (1e-3, 4e-3)
    for step, left in ((0, 1.0), (25, 0.75), (99, 0.01), (100, 0.0), (200, 0.0)):
        assert rates(step, decay_steps=100) == pytest.approx((left * 1e-3, left * 4e-3), rel=1e-12)
    # Miyato and Koyama 2018: over the last 50,000 of 450,000 iterations.
    late = {"decay_from": 400_000, "decay_steps": 450_000}
    for step, left in ((0, 1.0), (400_000, 1.0), (400_001, 1 - 1 / 50_000), (425_000, 0.5), (450_000, 0.0)):
        assert rates(step, **late) == pytest.approx((left * 1e-3, left * 4e-3), rel=1e-9)
    assert PRESETS["sngan"][1]["train.steps"] == late["decay_steps"]
    assert {f"train.{k}": v for k, v in late.items()}.items() <= PRESETS["sngan"][1].items()


def test_scheduled_settings_follow_the_images_shown() -> None:
    optimisers = [torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=1.0) for _ in range(2)]
    networks, ema = Networks(nn.Identity(), nn.Identity(), *optimisers), EMA(nn.Identity())
    cfg = TrainConfig(batch=10, d_lr="linear:1:0:100", beta2="cosine:0.9:0.99:100", ema_halflife=20.0)
    Schedules(cfg).apply(networks, ema, 5)
    assert optimisers[1].param_groups[0]["lr"] == 0.5
    assert optimisers[0].param_groups[0]["betas"] == (0.0, pytest.approx(0.945))
    assert ema.decay == 0.5**0.5


def test_short_flags_and_terms_are_one_objective() -> None:
    short = Objective.of(TrainConfig(gp=10.0, r1=0.5, clip=0.01))
    terms = Objective.of(TrainConfig(penalty="gp=10,r1=0.5", constraint="clip=0.01"))
    assert short == terms
    # A term wins over the short flag of the same name.
    assert [str(t) for t, _ in Objective.of(TrainConfig(r1=0.5, penalty="r1=1/4")).penalties] == ["r1=1.0/4"]


def test_a_lazy_penalty_is_applied_at_its_interval_with_its_weight_multiplied() -> None:
    objective = Objective.of(TrainConfig(penalty="r1=0.5/4,gp=2"))
    for update in range(9):
        drawn = dict(objective.random_inputs(0, update, 0, 6, network="d"))
        assert ("weight.r1" in drawn) is (update % 4 == 0)
        assert drawn["random.gp"].shape == (6,)
        assert drawn["weight.gp"].item() == 2
        if update % 4 == 0:
            assert drawn["weight.r1"].item() == 2.0
    assert dict(objective.random_inputs(0, 0, 0, 6, network="g")) == {}


def test_clipping_bounds_every_weight_of_d(home: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    flags = ("--loss", "wasserstein", "--clip", 0.01, "--steps", 1, "--out", "run")
    ok("train", "--data", home / "idx", "--size", 16, *TINY, *flags, cwd=tmp_path)
    state = load_file(tmp_path / "run/checkpoints/00000001/state.safetensors")
    weights = [
        v for k, v in state.items() if k.startswith("discriminator.") and k.endswith(("weight", "bias", "gamma"))
    ]
    assert max(float(np.abs(w).max()) for w in weights) <= np.float32(0.01)


def test_the_norm_of_a_gradient_is_limited_and_its_direction_kept() -> None:
    found = {}
    for limit in (0.0, 0.01, 1e6):
        cfg = replace(PLAIN, grad_clip=limit)
        pair = players(cfg=cfg)
        work(pair, cfg, Runtime(CPU, "fp32"))(inputs(0))
        gradient = torch.cat([p.grad.flatten() for p in pair.discriminator.parameters() if p.grad is not None])
        found[limit] = (gradient_norms(pair), gradient, [p.clone() for p in pair.generator.parameters()])
    free, limited, loose = found.values()
    assert all(norm > 0.1 for norm in free[0].values())
    assert all(abs(norm - 0.01) < 1e-6 for norm in limited[0].values())
    # The second update of D comes after a limited first one, which Adam scales, so directions agree roughly.
    assert float(torch.nn.functional.cosine_similarity(free[1], limited[1], dim=0)) > 0.99
    assert all(torch.equal(a, b) for a, b in zip(free[2], loose[2], strict=True))
