"""Checks of metrics, losses, penalties, augmentations, constraints, loggers and export formats on random inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sagan_cli import contracts
from sagan_cli.config.schema import Config
from sagan_cli.testing.assertions import require

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

N = 8
"""Batch size of the random inputs."""
IMAGES = 64
"""Number of images of a metric; one of 16 features each."""
EXPORT_OPTIONS = {"attention": False, "push": None, "runtime": None}


@dataclass(frozen=True)
class _Features:
    """Random features; implements `contracts.Features`, with `rows` None where the metric does not get them."""

    rows: Any
    labels: Any
    mean: Any
    covariance: Any
    count: int = IMAGES


def check_metric(metric: contracts.Metric) -> None:
    """Check that a metric returns finite, reproducible numbers with the names in `better`, on random features."""
    import numpy as np

    rng = np.random.default_rng(0)

    def features(keep_rows: bool) -> _Features:
        rows = rng.normal(size=(IMAGES, 16)).astype(np.float32)
        if callable(metric.measure):
            images = rng.integers(0, 256, (IMAGES, 16, 16, 3), dtype=np.uint8)
            rows = np.asarray(metric.measure(images), np.float32)
            require(rows.ndim in (1, 2) and len(rows) == IMAGES, f"measure returns shape {rows.shape}: (n, D) or (n,)")
            rows = rows.reshape(IMAGES, -1)
        elif metric.measure is not None:
            rows = rng.integers(0, 2, (IMAGES, 1)).astype(np.float32)
        labels = np.arange(IMAGES) % 2 if metric.classes else None
        covariance = np.atleast_2d(np.cov(rows, rowvar=False))
        return _Features(rows if keep_rows else None, labels, rows.mean(0), covariance)

    real = None if metric.real == "none" else features(metric.real == "rows")
    inputs = contracts.MetricInputs(
        features(True), real, dict(metric.knobs), ("a", "b") if metric.classes else (),
        held_out=features(True) if metric.held_out else None,
    )  # fmt: skip
    scores, again = list(metric.compute(inputs)), list(metric.compute(inputs))
    require(all(isinstance(s, contracts.Score) for s in scores), "compute must yield sagan_cli.contracts.Score objects")
    names = [s.name for s in scores]
    require(sorted(names) == sorted(metric.better), f"compute yields {names}; `better` has {list(metric.better)}")
    for score, second in zip(scores, again, strict=True):
        require(math.isfinite(score.value), f"{score.name} is {score.value}: a finite number")
        require(score.value == second.value, f"{score.name} differs when computed again from the same features")
        low, high = score.interval or (0.0, 0.0)
        require(low <= high, f"the interval of {score.name} is {score.interval}: (low, high)")


def check_loss(loss: contracts.Loss) -> None:
    """Check that both functions return a finite scalar with finite, non-zero gradients by their logits."""
    import torch

    rng = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(N, generator=rng).requires_grad_() for _ in range(2))
    _check_term("the discriminator's loss", loss.discriminator(real, fake), [real, fake], all)
    both = [real, fake] if loss.uses_real else [fake]
    _check_term("the generator's loss", loss.generator(real if loss.uses_real else None, fake), both, all)


def check_penalty(penalty: contracts.Penalty) -> None:
    """Check that a penalty is a finite, non-negative scalar with a gradient by D's weights."""
    import torch

    rng = torch.Generator().manual_seed(0)
    network = _network()
    real, fake = (torch.rand(N, 3, 8, 8, generator=rng).mul(2).sub(1) for _ in range(2))
    random = None if penalty.random is None else _random(penalty.random)
    for labels in (None, torch.arange(N) % 2):

        def logits(x: Tensor, y: Tensor | None) -> Tensor:
            out: Tensor = network(x).squeeze(1)
            return out if y is None else out * (1 + y)

        value = penalty.compute(contracts.PenaltyInputs(logits, real, fake, labels, labels, random))
        _check_term("the penalty", value, list(network.parameters()), any)
        require(value.item() >= 0, f"the penalty is {value.item()}: it must not be negative")


def check_augmentation(augmentation: contracts.Augmentation) -> None:
    """Check that an augmentation keeps shape and dtype, is differentiable, and depends on its arguments only."""
    import torch

    images = torch.rand(N, 3, 16, 16, generator=torch.Generator().manual_seed(1)).mul(2).sub(1).requires_grad_()
    random = _random(augmentation.random)
    for probability in (torch.tensor(0.5), torch.tensor(1.0)):
        out = augmentation.apply(images, random, probability)
        same = out.shape == images.shape and out.dtype == images.dtype
        require(same, f"apply returns {out.dtype} of shape {tuple(out.shape)}, not {images.dtype} of the images' shape")
        require(bool(out.isfinite().all()), "apply returns values that are not finite")
        again = augmentation.apply(images, random, probability)
        require(torch.equal(out, again), "apply gives other images for the same random input: use only `random`")
        require(out.requires_grad, "apply is not differentiable: no gradient reaches the images")
        (gradient,) = torch.autograd.grad(out.sum(), images, allow_unused=True)
        require(gradient is not None and bool(gradient.isfinite().all()), "no finite gradient reaches the images")


def check_constraint(constraint: contracts.Constraint) -> None:
    """Check that a constraint changes weights in place and leaves them finite."""
    import torch

    network = _network()
    before = {name: (id(p), p.shape) for name, p in network.named_parameters()}
    with torch.no_grad():
        constraint.apply(network, 0.01)
    after = {name: (id(p), p.shape) for name, p in network.named_parameters()}
    require(after == before, "apply must change the weights in place, not replace them")
    finite = all(bool(p.isfinite().all()) for p in network.parameters())
    require(finite, "apply leaves weights that are not finite")


def check_logger(factory: Callable[[contracts.RunInfo], contracts.Logger]) -> None:
    """Check that a logger accepts all events of a run of two steps, in a temporary run directory."""
    with TemporaryDirectory() as folder:
        path, numbers = Path(folder), {"d_loss": 1.0, "g_loss": 0.5}
        logger = factory(contracts.RunInfo(path, asdict(Config()), steps=2))
        require(isinstance(logger, contracts.Logger), f"is a {type(logger).__name__}, not a sagan_cli.contracts.Logger")
        logger.start(0)
        for step in (1, 2):
            logger.step(step, 10.0, 1.0, numbers)
            logger.statistics(step, numbers)
        logger.grid(2, path / "grid.png")
        logger.score(2, {"values": {"fid": 10.0}})
        logger.checkpoint(2, path / "checkpoints" / "00000002")
        logger.end(2, finished=True)


def check_exporter(exporter: contracts.Exporter) -> None:
    """Check that an export format writes the file or folder that it names, for a small `sagan` generator."""
    import torch

    from sagan_cli.engine.sample import ready
    from sagan_cli.export.trained_model import Check, TrainedModel
    from sagan_cli.model.sagan import build

    name, spec = exporter.default_name, contracts.ModelSpec(16, 16, latent=4, base_width=2, attn_at=(8,))
    require(bool(name) and Path(name).name == name, f"default_name is {name!r}: a name without a folder")
    data = {"source": "quadrupeds", "digest": "0" * 64, "count": N}
    generator = ready(build(spec)[0], torch.device("cpu"))
    model = TrainedModel(generator, spec, (), "sagan", "sagan-cli", "ema", 0, data, "a check")
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        options = {option: EXPORT_OPTIONS[option] for option in exporter.options}
        result = exporter.write(model, path, notify=lambda line: None, **options)
        require(path.exists(), f"write made no {name}")
        require(path.is_dir() == exporter.folder, f"{name} must be a {'folder' if exporter.folder else 'file'}")
        require(path.is_dir() or path.stat().st_size > 0, f"{name} is empty")
        require(result is None or isinstance(result, Check), f"write returns {type(result).__name__}: a Check or None")


CHECKS: dict[str, Callable[[Any], None]] = {
    "metrics": check_metric, "losses": check_loss, "penalties": check_penalty, "augmentations": check_augmentation,
    "constraints": check_constraint, "loggers": check_logger, "exporters": check_exporter,
}  # fmt: skip
"""Kind of extension -> its check, for the kinds that `sagan plugins --check` checks."""


def _check_term(what: str, value: Tensor, inputs: list[Tensor], reached: Callable[[list[bool]], bool]) -> None:
    """Check a finite scalar and its gradients, which must be non-zero for `any` or `all` of the inputs."""
    import torch

    require(isinstance(value, torch.Tensor) and value.ndim == 0, f"{what} must be a scalar tensor")
    require(bool(value.isfinite()), f"{what} is {value.item()}: a finite number")
    require(value.requires_grad, f"{what} has no gradient")
    found = torch.autograd.grad(value, inputs, allow_unused=True)
    require(all(bool(g.isfinite().all()) for g in found if g is not None), f"a gradient of {what} is not finite")
    require(reached([g is not None and bool(g.any()) for g in found]), f"a gradient of {what} is zero or missing")


def _random(draw: Callable[[torch.Generator, int], Tensor]) -> Tensor:
    """Draw random inputs and check that they have a row per image and depend on the generator only."""
    import torch

    first, second = (draw(torch.Generator().manual_seed(0), N) for _ in range(2))
    rows = first.ndim > 0 and len(first) == N and first.device.type == "cpu"
    require(rows, f"random returns shape {tuple(first.shape)}: a CPU tensor with one row per image")
    require(torch.equal(first, second), "random depends on more than its generator and the number of images")
    return first


def _network() -> nn.Module:
    """Return a small discriminator that can be differentiated twice: (N, 3, 8, 8) -> (N, 1)."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Tanh(), nn.Linear(8, 1))
