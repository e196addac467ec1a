"""What only a CUDA device shows; run with `-m gpu`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from support.cli import ok
from support.idx_files import idx_folder
from support.tiny_training import BATCH, CLASSES, LATENT, PLAIN, SIDE, inputs, kept, players, train, work
from torch import Tensor

from sagan_cli.config.schema import TrainConfig
from sagan_cli.contracts import ModelSpec
from sagan_cli.data.batches import Batches
from sagan_cli.data.packing.pack import Pack
from sagan_cli.engine.activation_checkpointing import recompute_blocks
from sagan_cli.engine.cuda_graph import WARM, GraphedIteration
from sagan_cli.engine.iteration import Iteration, update_discriminator, update_generator
from sagan_cli.engine.runtime import Runtime, open_runtime
from sagan_cli.engine.step_inputs import StepInputs
from sagan_cli.objectives.objective import Objective

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

SMALL = ("--size", 16, "--width", 4, "--latent", 8, "--batch", 8)


def test_a_gpu_run_follows_the_cpu_run(tmp_path: Path) -> None:
    data = idx_folder(tmp_path / "idx")
    runs = {}
    for device in ("cpu", "cuda"):
        args = ("train", "--data", data, *SMALL, "--precision", "fp32", "--steps", 3)
        ok(*args, "--device", device, "--out", device, cwd=tmp_path)
        runs[device] = load_file(tmp_path / device / "checkpoints/00000003/model.safetensors")
    for name, tensor in runs["cpu"].items():
        np.testing.assert_allclose(runs["cuda"][name], tensor, atol=2e-3, err_msg=name)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_resuming_and_sampling(precision: str, tmp_path: Path) -> None:
    data = idx_folder(tmp_path / "idx")
    where = ("--device", "cuda", "--precision", precision, "--out", "run", "--log-every", 1)
    args = ("train", "--data", data, *SMALL, *where)
    ok(*args, "--steps", 2, cwd=tmp_path)
    ok(*args, "--steps", 4, cwd=tmp_path)
    metrics = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [m["step"] for m in metrics] == [1, 2, 3, 4]
    assert all(np.isfinite(m["d_loss"]) for m in metrics)
    ok("sample", "run", "--seeds", "0-9", "--batch", 4, "--out", "ten", "--device", "cuda", cwd=tmp_path)
    ok("sample", "run", "--seeds", "3", "--batch", 4, "--out", "one", "--device", "cuda", cwd=tmp_path)
    assert (tmp_path / "ten/seed000003.png").read_bytes() == (tmp_path / "one/seed000003.png").read_bytes()


CUDA = torch.device("cuda", 0)


@pytest.fixture(params=["fp32", "bf16"])
def runtime(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    with open_runtime("cuda", request.param) as opened:
        yield replace(opened, device=CUDA)


@pytest.mark.parametrize(
    ("arch", "cfg"),
    [
        ("sagan", replace(PLAIN, accumulate=1)),
        ("sagan", PLAIN),
        ("sagan", replace(PLAIN, gp=10.0, r1=1.0)),
        ("sagan-cifar", PLAIN),
        ("sagan-dcgan", PLAIN),
        ("sagan-tutorial", replace(PLAIN, loss="non-saturating")),
        ("dcgan", replace(PLAIN, loss="wasserstein", clip=0.01)),
    ],
    ids=["sagan", "slices", "penalties", "cifar", "port", "dropout", "clip"],
)
def test_a_graph_trains_as_the_plain_iteration(arch: str, cfg: TrainConfig, runtime: Runtime) -> None:
    plain, replayed = players(arch, cfg, CUDA), players(arch, cfg, CUDA)
    said: list[str] = []
    graphed = work(replayed, cfg, runtime, said.append)
    assert isinstance(graphed, GraphedIteration)
    gp = float(cfg.gp)
    losses = train(work(plain, replace(cfg, graph="off"), runtime, said.append), plain, CUDA, gp=gp)
    again = train(graphed, replayed, CUDA, gp=gp)
    assert (said, graphed.refused) == ([], None)
    assert graphed.replay is not None
    # Kernels may add in another order, and Adam makes a full step of a gradient that is rounding: few such weights.
    torch.testing.assert_close(again, losses, rtol=0.05, atol=0.05)
    one, other = kept(plain), kept(replayed)
    for kind in one:
        if kind.startswith("weights"):
            apart = torch.cat([(a - b).abs().flatten() for a, b in zip(one[kind], other[kind], strict=True)])
            assert apart.mean() < 1e-3, kind
        if kind.startswith(("step", "stream")):
            assert all(torch.equal(a, b) for a, b in zip(one[kind], other[kind], strict=True)), kind


def _seconds(step: Iteration, steps: int = 30) -> float:
    given = inputs(0, CUDA)
    for _ in range(WARM + 3):
        step(given)
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(steps):
        step(given)
    torch.cuda.synchronize()
    return (time.perf_counter() - begun) / steps


def test_a_graph_is_faster_where_launching_is_the_work(runtime: Runtime) -> None:
    plain, replayed = players(device=CUDA), players(device=CUDA)
    slow = _seconds(work(plain, replace(PLAIN, graph="off"), runtime))
    assert _seconds(work(replayed, replace(PLAIN, graph="on"), runtime)) < 0.7 * slow


@pytest.mark.parametrize("graph", ["on", "off"])
def test_no_step_waits_for_the_device(graph: str, runtime: Runtime, tmp_path: Path) -> None:
    cfg = replace(PLAIN, graph=graph, gp=10.0)
    pair = players(cfg=cfg, device=CUDA)
    step = work(pair, cfg, runtime)
    rng = np.random.default_rng(0)
    pictures, labels = rng.integers(0, 256, (32, SIDE, SIDE, 3), np.uint8), rng.integers(0, CLASSES, 32)
    pack = Pack(tmp_path, pictures, labels, ("a", "b", "c"), "digest", (), 32, True)
    batches = Batches(pack, batch=BATCH, seed=0, flip=True, device=CUDA)

    spec = ModelSpec(SIDE, SIDE, 3, num_classes=CLASSES, latent=LATENT, base_width=2, attn_at=(8,))
    given = StepInputs(Objective.of(cfg), cfg, spec, batches, runtime)
    for number in range(WARM + 2):
        step(given.at(number))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number in range(WARM + 2, WARM + 5):
            step(given.at(number))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_recomputing_and_slices_on_a_gpu_keep_the_gradients_and_save_memory() -> None:
    exact = Runtime(CUDA, "fp32")
    objective = Objective.of(TrainConfig(loss="non-saturating", gp=10.0))

    def gradients(parts: int, recompute: bool) -> tuple[list[Tensor], int]:
        pair = players(device=CUDA)
        # SGD, and D alone for slices: G has batch norm, and so another gradient for each way to cut a batch.
        pair.opt_g, pair.opt_d = (
            torch.optim.SGD(n.double().parameters(), 0.0) for n in (pair.generator, pair.discriminator)
        )
        if recompute:
            for network in (pair.generator, pair.discriminator):
                recompute_blocks(network, "sagan")
        pair.generator.eval()
        rng = torch.Generator().manual_seed(0)
        x = torch.randn(64, 3, SIDE, SIDE, generator=rng, dtype=torch.float64).to(CUDA)
        z = torch.randn(64, LATENT, generator=rng, dtype=torch.float64).to(CUDA)
        y = torch.randint(CLASSES, (64,), generator=rng).to(CUDA)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        fakes, mixture = {"latents": z, "fake_labels": y}, torch.rand(64, generator=rng).to(CUDA)
        terms = {"weight.gp": torch.tensor(10.0, device=CUDA), "random.gp": mixture}
        update_discriminator(pair, exact, objective, {"real": x, "real_labels": y, **fakes, **terms}, parts)
        update_generator(pair, exact, objective, fakes, parts)
        grads = [p.grad for n in (pair.generator, pair.discriminator) for p in n.parameters() if p.grad is not None]
        return grads, torch.cuda.max_memory_allocated() - before

    whole, most = gradients(1, False)
    for parts, recompute in ((4, False), (1, True), (4, True)):
        found, peak = gradients(parts, recompute)
        torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-11)
        assert peak < 0.8 * most, (parts, recompute)


def test_fp32_is_fp32_and_bf16_lets_convolutions_be_tf32() -> None:
    x, w = torch.randn(8, 64, 32, 32, device=CUDA), torch.randn(64, 64, 3, 3, device=CUDA)
    exact = torch.nn.functional.conv2d(x.double(), w.double())
    scale = exact.abs().mean()
    errors = {}
    for precision in ("fp32", "bf16"):
        with open_runtime("cuda", precision) as opened:
            found = torch.nn.functional.conv2d(x, w)
            errors[precision] = ((found - exact).abs().mean() / scale).item()
            product = (x[:, :, 0, 0] @ w[:, :, 0, 0]).double() - x[:, :, 0, 0].double() @ w[:, :, 0, 0].double()
            assert product.abs().max() < 1e-4
            assert opened.facts()["tf32"] is (precision != "fp32")
    assert errors["fp32"] < 1e-5
    if torch.cuda.get_device_capability() >= (8, 0):
        assert errors["bf16"] < 1e-2
