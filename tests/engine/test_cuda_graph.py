"""GraphedIterationing a recorded iteration, with recorders that record on the CPU, faithfully or not."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from support.tiny_training import PLAIN, STEPS, inputs, kept, players, train, work
from torch import Tensor

from sagan_cli.config.schema import TrainConfig
from sagan_cli.engine import iteration as iterations
from sagan_cli.engine.cuda_graph import WARM, GraphedIteration
from sagan_cli.engine.iteration import check_slices
from sagan_cli.engine.networks import Networks
from sagan_cli.engine.runtime import Runtime, set_tf32
from sagan_cli.engine.step_inputs import Inputs, Statistics
from sagan_cli.errors import UsageError
from sagan_cli.objectives.objective import Objective

HINGE = Objective.of(PLAIN)
CPU = Runtime(torch.device("cpu"), "fp32")


@dataclass
class Recorded:
    """As a CUDA graph does: keeps the tensors that the work found, rates among them, and computes when it is replayed.

    `spoil` is called after each replay, with how many there were.
    """

    players: Networks
    spoil: Callable[[int], None] = lambda count: None
    replays: int = 0

    @contextmanager
    def aside(self) -> Iterator[None]:
        yield

    def record(self, work: Callable[[], Statistics]) -> Callable[[], Statistics]:
        groups = [g for o in (self.players.opt_g, self.players.opt_d) for g in o.param_groups]
        assert all(g["capturable"] for g in groups)
        rates = [g["lr"] for g in groups]
        assert all(isinstance(rate, Tensor) for rate in rates)
        out: Statistics = {}

        def replay() -> Statistics:
            self.replays += 1
            usual = [g["lr"] for g in groups]
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate
            out.update(work())
            for group, rate in zip(groups, usual, strict=True):
                group["lr"] = rate
            self.spoil(self.replays)
            return out

        return replay


@functools.cache
def plainly(arch: str, cfg: TrainConfig) -> tuple[Tensor, dict[str, list[Tensor]]]:
    """Losses and state of a training without recording."""
    pair = players(arch, cfg)
    return train(work(pair, replace(cfg, graph="off"), CPU), pair, gp=float(cfg.gp)), kept(pair)


def replayed(
    arch: str, cfg: TrainConfig, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Networks, int], None] | None = None
) -> tuple[Networks, Tensor, Recorded, GraphedIteration, list[str]]:
    """The same with it: players, losses, recorder, the iteration, and what was said."""
    pair = players(arch, cfg)
    recorder = Recorded(pair, *([functools.partial(spoil, pair)] if spoil else []))
    monkeypatch.setattr(iterations, "why_no_graph", lambda *_: None)
    monkeypatch.setattr(iterations, "CudaGraphs", lambda device: recorder)
    said: list[str] = []
    graphed = work(pair, replace(cfg, graph="on"), CPU, said.append)
    assert isinstance(graphed, GraphedIteration)
    return pair, train(graphed, pair, gp=float(cfg.gp)), recorder, graphed, said


@pytest.mark.parametrize(
    ("arch", "cfg"),
    [
        ("sagan", PLAIN),
        ("sagan", replace(PLAIN, gp=10.0, accumulate=1)),
        ("sagan-tutorial", replace(PLAIN, loss="non-saturating")),
        ("dcgan", replace(PLAIN, loss="wasserstein", clip=0.01)),
    ],
    ids=["sagan", "penalty", "dropout", "clip"],
)
def test_replaying_is_training(arch: str, cfg: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    losses, one = plainly(arch, cfg)
    pair, again, recorder, graphed, said = replayed(arch, cfg, monkeypatch)
    assert (said, graphed.refused, recorder.replays) == ([], None, STEPS - WARM)
    torch.testing.assert_close(again, losses, rtol=1e-5, atol=1e-6)
    other = kept(pair)
    # Rates in tensors are fp32, those of groups fp64: the last bit may differ.
    for kind in one:
        torch.testing.assert_close(other[kind], one[kind], rtol=1e-4, atol=1e-5, msg=kind)
    assert all(isinstance(o.param_groups[0]["lr"], float) for o in (pair.opt_g, pair.opt_d))
    assert not any(o.param_groups[0]["capturable"] for o in (pair.opt_g, pair.opt_d))


@torch.no_grad()
def _weights(pair: Networks, count: int) -> None:
    for weight in pair.discriminator.parameters():
        weight += 0.01


@torch.no_grad()
def _not_a_number(pair: Networks, count: int) -> None:
    next(pair.generator.parameters()).fill_(float("nan"))


@torch.no_grad()
def _vectors(pair: Networks, count: int) -> None:
    for name, buffer in pair.generator.named_buffers():
        if name.endswith(".u"):
            buffer.neg_()


def _moments(pair: Networks, count: int) -> None:
    for slots in pair.opt_g.state.values():
        slots["step"] += 1


def _breaks(pair: Networks, count: int) -> None:
    pair.discriminator.requires_grad_(False)
    raise RuntimeError("operation not permitted when stream is capturing\nmore lines")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_weights, "weights of the discriminator"),
        (_not_a_number, "weights of the generator"),
        (_vectors, "u of the generator"),
        (_moments, "step of the generator's optimiser"),
        (_breaks, "operation not permitted when stream is capturing;"),
    ],
)
def test_a_recording_that_is_wrong_is_found_out(
    spoil: Callable[[Networks, int], None], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, one = plainly("sagan", PLAIN)
    pair, again, recorder, _, said = replayed("sagan", PLAIN, monkeypatch, spoil)
    assert recorder.replays == 1
    assert len(said) == 1
    assert why in said[0]
    assert said[0].startswith("training continues without a CUDA graph: ")
    assert "\n" not in said[0]
    # As if nothing had been tried, to the bit.
    assert torch.equal(again, losses)
    other = kept(pair)
    for kind in one:
        assert all(torch.equal(a, b) for a, b in zip(one[kind], other[kind], strict=True)), kind


@pytest.mark.parametrize("what", ["inputs", "rates", "update"])
def test_a_recording_that_misses_something_is_found_out(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if what == "inputs":  # those of the recording go on being used
        monkeypatch.setattr(Inputs, "tensors", lambda self: [])
    elif what == "rates":
        monkeypatch.setattr(torch.Tensor, "fill_", lambda self, value: self)
    else:
        real = iterations.update_generator
        calls = []

        def forgetful(*args: Any) -> Tensor:
            calls.append(None)
            if len(calls) == WARM + 2:  # the first replay comes after the plain iterations and one to compare with
                return torch.zeros(())
            return real(*args)

        monkeypatch.setattr(iterations, "update_generator", forgetful)
    *_, recorder, graphed, said = replayed("sagan", PLAIN, monkeypatch)
    assert recorder.replays == 1
    assert len(said) == 1
    assert graphed.refused in said[0]


def test_a_penalty_with_an_interval_has_a_recording_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = replace(PLAIN, gp=10.0, accumulate=1)

    def lazily(work: iterations.Iteration) -> list[float]:
        return [work(inputs(step, gp=10.0 if step % 2 == 0 else 0.0))["d_loss"].item() for step in range(2 * WARM + 4)]

    expected = lazily(work(players(cfg=cfg), replace(cfg, graph="off"), CPU))
    pair = players(cfg=cfg)
    recorder = Recorded(pair)
    monkeypatch.setattr(iterations, "why_no_graph", lambda *_: None)
    monkeypatch.setattr(iterations, "CudaGraphs", lambda device: recorder)
    said: list[str] = []
    graphed = work(pair, replace(cfg, graph="on"), CPU, said.append)
    assert lazily(graphed) == pytest.approx(expected, rel=1e-4)
    assert isinstance(graphed, GraphedIteration)
    assert (said, recorder.replays, len(graphed.recordings)) == ([], 4, 2)


def test_held_inputs_are_copies_of_the_same_layout() -> None:
    given = inputs(0)
    real = given.discriminator[0]["real"].contiguous(memory_format=torch.channels_last)
    given = replace(given, discriminator=({**given.discriminator[0], "real": real},))
    held = given.like()
    assert [t.stride() for t in held.tensors()] == [t.stride() for t in given.tensors()]
    assert all(torch.equal(a, b) and a is not b for a, b in zip(held.tensors(), given.tensors(), strict=True))


def test_where_there_can_be_no_graph() -> None:
    cfg = replace(PLAIN, graph="on")
    with pytest.raises(UsageError, match="--graph on: needs a CUDA device, and this is cpu; leave it out"):
        work(players(), cfg, CPU)
    gpu = Runtime(torch.device("cuda", 0), "bf16")
    assert iterations.why_no_graph(cfg, gpu) is None
    assert "several processes" in str(iterations.why_no_graph(cfg, replace(gpu, world=2)))
    assert "--checkpointing" in str(iterations.why_no_graph(replace(cfg, checkpointing=True), gpu))
    assert iterations.why_no_graph(replace(cfg, penalty="r1=0.1/4"), gpu) is None
    falling = replace(cfg, beta2="linear:0.9:0.99:1k")
    assert "--beta2" in str(iterations.why_no_graph(falling, gpu))
    for how in ("auto", "off"):
        assert not isinstance(work(players(), replace(cfg, graph=how), CPU), GraphedIteration)


def test_slices_are_equal() -> None:
    check_slices(replace(PLAIN, batch=12, accumulate=3), replace(CPU, world=2))
    with pytest.raises(UsageError, match="--accumulate 4: does not divide the 6 images of each process"):
        check_slices(replace(PLAIN, batch=12, accumulate=4), replace(CPU, world=2))


def test_tf32_is_said_outright_under_both_names() -> None:
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    for allowed in (True, False, True):  # ends where PyTorch begins; nothing here runs on cuDNN
        set_tf32(allowed)
        assert cudnn.allow_tf32 is allowed
        assert matmul.allow_tf32 is False
        assert cudnn.conv.fp32_precision == ("tf32" if allowed else "ieee")
        assert matmul.fp32_precision == "ieee"
        assert torch.get_float32_matmul_precision() == "highest"
