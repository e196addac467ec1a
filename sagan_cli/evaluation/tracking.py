"""Scores while training: when the next is due, what it costs, and which checkpoint is the best so far.

The cost is bounded by the clock. Before training begins, one batch is drawn and measured, and the cost of a whole score
follows from it. With `auto` a score is due at a checkpoint if all scores so far and this one together stay under
`SHARE` of the time that training has taken, so that a slow extractor means fewer scores and never a slow run. With a
number of steps it is due then, whatever it costs. Training's own numbers are the same with and without.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from sagan_cli.contracts import ModelSpec
from sagan_cli.engine.jobs import Job, Tick
from sagan_cli.evaluation.evaluate import evaluate
from sagan_cli.evaluation.extractors.extractor import Extractor
from sagan_cli.evaluation.extractors.opening import check_extractor, open_extractor
from sagan_cli.evaluation.measures import Real, Scores, Want
from sagan_cli.evaluation.metrics.table import STRUCTURE, direction, knobs_of, parse_metrics
from sagan_cli.evaluation.reference import Reference, structure_of
from sagan_cli.evaluation.scoring import Room
from sagan_cli.evaluation.sides import Drawn, Packed, requests_for

SHARE = 0.05
"""Of the wall time, for all scores together, with `auto`."""
OFF, AUTO = "off", "auto"


@dataclass
class Tracker:
    """Scores a generator against a reference at the steps that are due; every process of a run has one."""

    every: str
    """`auto`, or a number of steps."""
    pictures: int
    """Drawn for a score, and compared with as many real ones."""
    extractor: Extractor
    reference: Reference
    room: Room
    metrics: tuple[str, ...] = ("fid",)
    """The first number of the first one decides which checkpoint is the best."""
    batch: int = 64
    cost: float = 0.0
    """Seconds of a score, as far as is known."""
    spent: float = 0.0
    """Seconds of all scores so far."""
    begun: float = field(default_factory=time.monotonic)

    def prepare(self, network: nn.Module, spec: ModelSpec) -> None:
        """Measure the real pictures, once for all runs, and what a score costs; the clock starts after it."""
        self._measure(network, spec, self.batch)
        started = time.monotonic()
        self._measure(network, spec, self.batch)
        self.cost = (time.monotonic() - started) * self.pictures / self.batch
        self.begun = time.monotonic()

    def due(self, step: int, saving: bool) -> bool:
        """Whether this step is scored; one answer for all processes."""
        if self.every != AUTO:
            return step % int(self.every) == 0
        fits = self.spent + self.cost <= SHARE * (time.monotonic() - self.begun)
        return saving and self.room.runtime.any_of(self.room.runtime.leads and fits)

    def score(self, network: nn.Module, spec: ModelSpec) -> dict[str, Any] | None:
        """The line for metrics.jsonl; None on all processes but the leading one."""
        started = time.monotonic()
        scores = self._measure(network, spec, self.pictures)
        self.cost = time.monotonic() - started
        self.spent += self.cost
        if scores is None:
            return None
        return {
            **scores.values, "decides": next(iter(scores.values)),
            "n_fake": scores.n_fake, "n_real": scores.n_real,
            "extractor": self.extractor.name, "weights_sha256": self.extractor.digest, "seconds": round(self.cost, 3),
        }  # fmt: skip

    def _measure(self, network: nn.Module, spec: ModelSpec, count: int) -> Scores | None:
        metrics = self.metrics
        fake = Drawn(network, spec, requests_for(count, 0, None, spec.num_classes), self.room.runtime)
        want = Want(
            metrics, self.pictures, batch=self.batch, knobs=knobs_of(metrics, {}), structure=self.reference.structure
        )
        return evaluate(fake, self.reference.real, self.extractor, want, self.room.runtime, self.room.store, _silent)


def open_tracker(job: Job, room: Room) -> Tracker | None:
    """The tracker that a run's settings ask for, its extractor open and checked; None where they ask for none.

    Raises:
        UsageError, SaganError, DataError: an extractor that cannot be had for these pictures.
    """
    settings, pack = job.config.run, job.pack
    if settings.eval_every == OFF:
        return None
    name = settings.eval_extractor
    if name == AUTO:
        name = "classifier" if len(pack.class_names) > 1 else "inception-v3-compat"
    structure = structure_of(job.config.data.source, pack)
    reference = Reference(Real(Packed(pack), pack.digest, pack.class_names), pack, {}, structure)
    extractor = open_extractor(name, None, pack, room.runtime, room.progress, room.notify)
    check_extractor(extractor, reference.real.side, room.runtime, room.notify)
    metrics = parse_metrics(settings.eval_metrics, "--eval-metrics")
    if structure is not None and STRUCTURE not in metrics:
        metrics = (*metrics, STRUCTURE)
    return Tracker(settings.eval_every, settings.eval_n, extractor, reference, room, metrics)


def better(found: dict[str, Any], best: dict[str, Any] | None) -> bool:
    """Return whether a score is the best so far; a score by another extractor or of another count starts anew."""
    same = ("extractor", "weights_sha256", "n_fake", "n_real", "decides")
    if best is None or any(best.get(k, "fid" if k == "decides" else None) != found[k] for k in same):
        return True
    name = found["decides"]
    return bool(found[name] < best[name] if direction(name) == "lower" else found[name] > best[name])


@contextmanager
def _silent(label: str, total: int) -> Iterator[Tick]:
    """No progress of its own: the training display is on the screen."""
    yield lambda done, total=None: None
