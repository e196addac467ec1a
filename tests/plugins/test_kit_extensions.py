"""The checks of metrics, losses, penalties, augmentations, constraints, loggers and export formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.fake_plugins import call, install

from sagan_cli.contracts import Augmentation, Constraint, Exporter, Logger, Loss, Metric, Penalty, Score
from sagan_cli.plugins import registry
from sagan_cli.testing import CHECKS

BUILT_IN = [(kind, name) for kind in CHECKS for name in registry.names(kind) if kind != "exporters"]


@pytest.mark.parametrize(("kind", "name"), [*BUILT_IN, ("exporters", "safetensors")])
def test_built_in_extensions_pass(kind: str, name: str) -> None:
    CHECKS[kind](registry.load(kind, name))


def metric(compute: Callable[[Any], Any], **own: Any) -> Metric:
    return Metric("a test", better={"a": "lower"}, compute=compute, **own)


def loss(d: Any, g: Any) -> Loss:
    return Loss("a test", d, g)


LOGISTIC = loss(lambda real, fake: (fake - real).exp().mean(), lambda real, fake: -fake.mean())
BRIGHTER = Augmentation(
    "a test", lambda x, r, p: x + r[:, None, None, None] * p, lambda rng, n: torch.rand(n, generator=rng)
)
SQUARED = Penalty("a test", lambda i: i.discriminator(i.real, i.real_labels).square().mean())


class Silent(Logger):
    pass


class Failing(Logger):
    def grid(self, step: int, path: Path) -> None:
        raise RuntimeError("no grid")


def write_nothing(model: Any, path: Path, *, notify: Any) -> None:
    pass


def write_weights(model: Any, path: Path, *, notify: Any) -> None:
    notify("writing")
    path.write_bytes(b"".join(p.numpy().tobytes() for p in model.generator.parameters()))


def replace_weights(network: torch.nn.Module, value: float) -> None:
    for module in network.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            setattr(module, name, torch.nn.Parameter(p.clamp(-value, value)))


@pytest.mark.parametrize(
    ("kind", "good"),
    [
        ("metrics", metric(lambda i: [Score("a", float(i.fake.mean[0]), (0, 1))])),
        ("metrics", metric(lambda i: [Score("a", i.knobs["a_k"] * 1.0)], real="none", knobs={"a_k": 2})),
        ("metrics", metric(lambda i: [Score("a", float(i.fake.mean[0]))], layer=None, measure=lambda x: x[:, 0, 0, 0])),
        ("losses", LOGISTIC),
        ("penalties", SQUARED),
        ("augmentations", BRIGHTER),
        ("constraints", Constraint("a test", lambda d, v: None)),
        ("loggers", Silent),
        ("exporters", Exporter("a test", "weights.bin", write_weights)),
        ("exporters", Exporter("a test", "folder", lambda model, path, *, notify: path.mkdir())),
    ],
)  # fmt: skip
def test_good_extensions_pass(kind: str, good: Any) -> None:
    CHECKS[kind](good)


@pytest.mark.parametrize(
    ("kind", "bad", "message"),
    [
        ("metrics", metric(lambda i: [Score("b", 0.0)]), r"compute yields \['b'\]; `better` has \['a'\]"),
        ("metrics", metric(lambda i: [Score("a", float("nan"))]), "a is nan: a finite number"),
        ("metrics", metric(lambda i: [Score("a", float(torch.rand(())))]), "a differs when computed again"),
        ("metrics", metric(lambda i: [Score("a", 0.0, (1.0, 0.0))]), "the interval of a"),
        ("metrics", metric(lambda i: [0.0]), "must yield sagan_cli.contracts.Score"),
        ("metrics", metric(lambda i: [], layer=None, measure=lambda x: x[:3, 0, 0, 0]), r"returns shape \(3,\)"),
        ("losses", replace(LOGISTIC, discriminator=lambda real, fake: fake - real), "loss must be a scalar"),
        ("losses", replace(LOGISTIC, discriminator=lambda real, fake: fake.mean()), "is zero or missing"),
        ("losses", replace(LOGISTIC, generator=lambda real, fake: fake.detach().mean()), "loss has no gradient"),
        ("losses", replace(LOGISTIC, generator=lambda real, fake: fake.mean() / 0), "the generator's loss is -?inf"),
        ("penalties", Penalty("a test", lambda i: -SQUARED.compute(i)), "it must not be negative"),
        ("penalties", Penalty("a test", lambda i: i.real.mean()), "the penalty has no gradient"),
        ("penalties", replace(SQUARED, random=lambda rng, n: torch.rand(n)), "depends on more than its generator"),
        ("augmentations", replace(BRIGHTER, apply=lambda x, r, p: x[:, :, 1:]), "of shape"),
        ("augmentations", replace(BRIGHTER, apply=lambda x, r, p: x.detach() + 1), "is not differentiable"),
        ("augmentations", replace(BRIGHTER, apply=lambda x, r, p: x + torch.rand(())), "use only `random`"),
        ("augmentations", replace(BRIGHTER, random=lambda rng, n: torch.rand(3)), "one row per image"),
        ("constraints", Constraint("a test", replace_weights), "in place"),
        ("constraints", Constraint("a test", lambda d, v: [p.mul_(float("nan")) for p in d.parameters()]), "finite"),
        ("loggers", lambda run: object(), "is a object, not a sagan_cli.contracts.Logger"),
        ("exporters", Exporter("a test", "weights.bin", write_nothing), r"write made no weights\.bin"),
        ("exporters", Exporter("a test", "weights.bin", lambda m, p, *, notify: p.mkdir()), "must be a file"),
        ("exporters", Exporter("a test", "weights.bin", lambda m, p, *, notify: p.touch()), "is empty"),
        ("exporters", Exporter("a test", "a/b.bin", write_weights), "a name without a folder"),
    ],
)  # fmt: skip
def test_bad_extensions_are_named(kind: str, bad: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        CHECKS[kind](bad)


def test_exceptions_of_an_extension_propagate() -> None:
    with pytest.raises(RuntimeError, match="no grid"):
        CHECKS["loggers"](Failing)


def test_plugins_check_reports_violations_and_exceptions(tmp_path: Path) -> None:
    points = "[sagan.losses]\nflat = fake_terms:FLAT\n[sagan.loggers]\nbroken = fake_terms:Broken\n"
    source = """
    from sagan_cli.contracts import Logger, Loss
    FLAT = Loss("constant", lambda real, fake: real.mean() * 0, lambda real, fake: fake.mean())
    class Broken(Logger):
        def start(self, step):
            raise RuntimeError("no disk")
    """
    install(tmp_path, "fake-terms", points, fake_terms=source)
    done = call("plugins", "--check", path=tmp_path)
    assert done.returncode == 1
    rows = {tuple(row[:2]): row[-1] for row in (line.split("\t") for line in done.stdout.splitlines())}
    assert "a gradient of the discriminator's loss is zero or missing" in rows["losses", "flat"]
    assert "logger 'broken' of fake-terms 1.0 failed: RuntimeError: no disk" in rows["loggers", "broken"]
    assert rows["losses", "hinge"] == "ok"
