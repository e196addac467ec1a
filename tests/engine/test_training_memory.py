"""Batches in slices and recomputed activations: the gradients of the plain step in float64, less memory, same bits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.cli import TINY, fails, ok, sagan
from support.idx_files import idx_folder
from torch import Tensor, nn

from sagan_cli.config.schema import TrainConfig
from sagan_cli.contracts import ModelSpec
from sagan_cli.engine import networks
from sagan_cli.engine.activation_checkpointing import recompute_blocks
from sagan_cli.engine.iteration import update_discriminator, update_generator
from sagan_cli.engine.networks import Networks
from sagan_cli.engine.runtime import Runtime
from sagan_cli.errors import UsageError
from sagan_cli.objectives.objective import Objective

BATCH, CLASSES = 6, 3
CPU = Runtime(torch.device("cpu"), "fp32")
BF16 = Runtime(torch.device("cpu"), "bf16")
HINGE = Objective.of(TrainConfig())
PENALISED = Objective.of(TrainConfig(loss="non-saturating", gp=10.0, r1=1.0))


class Flat(nn.Module):
    """A generator without batch norm: linear layer, doubling, convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.conv = nn.Linear(4 + CLASSES, 6 * 8 * 8), nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        assert y is not None
        h = self.linear(torch.cat([z, nn.functional.one_hot(y, CLASSES)], 1)).view(-1, 6, 8, 8).relu()
        return self.conv(nn.functional.interpolate(h, scale_factor=2)).tanh()


def players(arch: str = "sagan", *, flat: bool = False, dtype: torch.dtype = torch.float64) -> Networks:
    """A conditional pair with attention that counts, always the same one."""
    torch.manual_seed(0)
    g, d = networks.build(arch, ModelSpec(16, 16, 3, num_classes=CLASSES, latent=4, base_width=2, attn_at=(8,)))
    g, d = (Flat() if flat else g).to(dtype), d.to(dtype)
    for layer in [*getattr(g, "attention_layers", dict)().values(), *d.attention_layers().values()]:
        layer.gamma.data.fill_(0.7)
    return Networks(g, d, torch.optim.SGD(g.parameters(), 1e-2), torch.optim.SGD(d.parameters(), 1e-3))


def step(pair: Networks, objective: Objective, runtime: Runtime = CPU, parts: int = 1) -> list[Tensor]:
    """Two updates of D and one of G; the losses of the last ones."""
    dtype = next(pair.generator.parameters()).dtype
    rng = torch.Generator().manual_seed(1)
    labels = lambda: torch.randint(CLASSES, (BATCH,), generator=rng)  # noqa: E731
    for _ in range(2):
        x = torch.rand(BATCH, 3, 16, 16, generator=rng, dtype=dtype) * 2 - 1
        z = torch.randn(BATCH, 4, generator=rng, dtype=dtype)
        mixture = torch.rand(BATCH, generator=rng, dtype=dtype)
        given = {"real": x, "real_labels": labels(), "latents": z, "fake_labels": labels()}
        for term, _ in objective.penalties:
            given |= {f"weight.{term.name}": torch.tensor(term.weight.start), "random.gp": mixture}
        told = update_discriminator(pair, runtime, objective, given, parts)
    z = torch.randn(BATCH, 4, generator=rng, dtype=dtype)
    g_loss = update_generator(pair, runtime, objective, {"latents": z, "fake_labels": labels()}, parts)
    return [*(told[name] for name in ("d_loss", "d_real", "d_fake")), g_loss]


def state(pair: Networks) -> dict[str, Tensor]:
    """Weights, buffers and gradients of both."""
    found = {}
    for letter, network in (("g", pair.generator), ("d", pair.discriminator)):
        found |= {f"{letter}.{k}": v for k, v in network.state_dict().items()}
        found |= {f"{letter}.{k} gradient": p.grad for k, p in network.named_parameters() if p.grad is not None}
    return found


@pytest.mark.parametrize("objective", [HINGE, PENALISED], ids=["hinge", "penalties"])
@pytest.mark.parametrize("parts", [2, 3, 6])
def test_slices_add_up_to_the_whole_batch(parts: int, objective: Objective) -> None:
    whole, sliced = players(flat=True), players(flat=True)
    losses = [step(whole, objective), step(sliced, objective, parts=parts)]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-12, atol=1e-13)
    one, other = state(whole), state(sliced)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=1e-11, atol=1e-12, msg=name)
    assert all(
        v.abs().max() > 1e-6 for k, v in one.items() if k in ("g.conv.weight gradient", "d.linear.weight gradient")
    )


def test_with_batch_norm_a_slice_is_a_batch_of_its_own() -> None:
    """G's fakes are then other pictures, and each slice moves the running statistics once."""
    whole, sliced = players(), players()
    step(whole, HINGE)
    step(sliced, HINGE, parts=2)
    one, other = state(whole), state(sliced)
    assert not torch.allclose(other["g.norm.running_mean"], one["g.norm.running_mean"])
    assert not torch.allclose(other["g.to_image.weight"], one["g.to_image.weight"], rtol=1e-9)


@pytest.mark.parametrize("objective", [HINGE, PENALISED], ids=["hinge", "penalties"])
@pytest.mark.parametrize("arch", ["sagan", "sagan-cifar"])
def test_recomputing_changes_no_gradient_and_no_statistic(arch: str, objective: Objective) -> None:
    plain, again = players(arch), players(arch)
    for network in (again.generator, again.discriminator):
        recompute_blocks(network, arch)
    assert torch.equal(torch.stack(step(plain, objective)), torch.stack(step(again, objective)))
    one, other = state(plain), state(again)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=1e-13, atol=1e-14, msg=name)


def test_recomputing_under_autocast_in_slices() -> None:
    plain, again = players(dtype=torch.float32), players(dtype=torch.float32)
    for network in (again.generator, again.discriminator):
        recompute_blocks(network, "sagan")
    for pair in (plain, again):
        step(pair, PENALISED, BF16, parts=2)
    for name, value in state(plain).items():
        torch.testing.assert_close(state(again)[name], value, rtol=1e-6, atol=1e-7, msg=name)


class Counting(nn.Module):
    """A block that counts its passes in a buffer and uses the count, as a dropout with a stream of its own does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.norm = nn.BatchNorm2d(1)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.norm(x * self.weight).exp() * self.passes.clone()


def test_the_second_pass_sees_the_buffers_of_the_first() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([Counting(), Counting()])

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x)
            return x

    plain = Network()
    again = copy.deepcopy(plain)
    recompute_blocks(again, "counting")
    x = torch.randn(4, 1, 2, 2)
    for network in (plain, again):
        for _ in range(2):
            # Two forward passes before their backward pass: each has a count of its own.
            (network(x).sum() + network(2 * x).square().sum()).backward()
    one, other = (dict(n.state_dict()) | {k: p.grad for k, p in n.named_parameters()} for n in (plain, again))
    torch.testing.assert_close(other, one, rtol=0, atol=0)
    assert one["blocks.0.passes"] == 4
    assert one["blocks.0.norm.num_batches_tracked"] == 4


def peak(work: Callable[[], object]) -> int:
    """Bytes of the largest moment of `work` above its start, as the allocator counts them."""
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True, acc_events=True) as prof:
        work()
    events = [e for e in prof.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def test_both_take_less_memory() -> None:
    def grown() -> Networks:
        torch.manual_seed(0)
        g, d = networks.build("sagan", ModelSpec(32, 32, 3, num_classes=CLASSES, latent=4, base_width=2, attn_at=()))
        return Networks(g, d, torch.optim.SGD(g.parameters(), 0.1), torch.optim.SGD(d.parameters(), 0.1))

    def once(pair: Networks, parts: int = 1) -> None:
        rng = torch.Generator().manual_seed(1)
        x, y = torch.rand(32, 3, 32, 32, generator=rng), torch.randint(CLASSES, (32,), generator=rng)
        z = torch.randn(32, 4, generator=rng)
        fakes = {"latents": z, "fake_labels": y}
        update_discriminator(pair, CPU, HINGE, {"real": x, "real_labels": y, **fakes}, parts)
        update_generator(pair, CPU, HINGE, fakes, parts)

    plain, sliced, again = grown(), grown(), grown()
    for network in (again.generator, again.discriminator):
        recompute_blocks(network, "sagan")
    whole = peak(lambda: once(plain))
    assert peak(lambda: once(sliced, 4)) < 0.5 * whole
    assert peak(lambda: once(again)) < 0.75 * whole


def test_an_architecture_without_blocks_is_refused() -> None:
    pair = players("sagan-dcgan")
    with pytest.raises(UsageError, match=r"'sagan-dcgan' has no list of blocks.*--accumulate"):
        recompute_blocks(pair.generator, "sagan-dcgan")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    idx_folder(home / "idx")
    return home


def test_training_with_both_resumes_to_the_bit(home: Path, tmp_path: Path) -> None:
    args = ("train", "--data", home / "idx", "--size", 16, *TINY, "--accumulate")
    ok(*args, 2, "--steps", 2, "--checkpointing", "--out", "whole", cwd=tmp_path)
    ok(*args, 2, "--steps", 1, "--checkpointing", "--out", "parts", cwd=tmp_path)
    ok(*args, 2, "--steps", 2, "--out", "parts", cwd=tmp_path)  # recomputing is no part of what a run is
    for file in ("model.safetensors", "state.safetensors"):
        one, other = ((tmp_path / name / "checkpoints/00000002" / file).read_bytes() for name in ("whole", "parts"))
        assert one == other
    assert "--accumulate 2, not 4" in fails(2, *args, 4, "--steps", 2, "--out", "whole", cwd=tmp_path)


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--accumulate", 3), "--accumulate 3: does not divide the 4 images of a batch; choose a"),
        (("--graph", "on"), "--graph on: needs a CUDA device, and this is cpu; leave it out"),
        (("--checkpointing", "--arch", "sagan-dcgan"), "--checkpointing: architecture 'sagan-dcgan' has no list of"),
    ],
)
def test_what_cannot_be_is_refused(flags: tuple[object, ...], why: str, home: Path, tmp_path: Path) -> None:
    done = sagan("train", "--data", home / "idx", "--size", 16, *TINY, "--steps", 1, *flags, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.decode().splitlines()[-1].startswith(f"sagan: error: {why}")
