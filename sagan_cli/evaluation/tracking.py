"""Scores during training (`--eval-every`): when the next is due, and which checkpoint is the best so far.

With `auto`, a checkpoint is scored if the time of all scores, including this one, stays below `SHARE` of the time of
the run. The time of the first score is extrapolated from one batch before training starts. With a number N, every N-th
step is scored. Scores do not change training.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from sagan_cli.contracts import Metric, ModelSpec, Tick
from sagan_cli.engine.job import Job
from sagan_cli.evaluation.computation import Context, Scores, compute_scores
from sagan_cli.evaluation.extractors.extractor import Extractor
from sagan_cli.evaluation.image_sets import GeneratedImages, RealImages, packed_images, requests_for
from sagan_cli.evaluation.metrics.structure import STRUCTURE
from sagan_cli.evaluation.options import DEFAULT, Options, find, parse_metrics
from sagan_cli.evaluation.records import better
from sagan_cli.evaluation.scoring import choose_metrics, open_checked, require_held_out

SHARE = 0.05
"""Share of the wall time for all scores together, with `auto`."""
AUTO = "auto"


@dataclass
class Tracker:
    """Scorer of a generator against real images at the steps that are due; every process of a run has one."""

    every: str
    """`auto`, or a number of steps."""
    n: int
    """Number of generated images of a score, and of real images."""
    extractor: Extractor | None
    real: RealImages
    context: Context
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """The metrics by name; the best checkpoint is selected by the first value of the first metric."""
    held_out: RealImages | None = None
    batch: int = 64
    cost: float = 0.0
    """Seconds of one score, estimated or measured."""
    spent: float = 0.0
    """Seconds of all scores so far."""
    begun: float = field(default_factory=time.monotonic)

    def prepare(self, network: nn.Module, spec: ModelSpec) -> None:
        """Compute the features of the real images (cached for all runs), time a score, and start the clock."""
        self._measure(network, spec, self.batch)
        started = time.monotonic()
        self._measure(network, spec, self.batch)
        self.cost = (time.monotonic() - started) * self.n / self.batch
        self.begun = time.monotonic()

    def due(self, step: int, saving: bool) -> bool:
        """Return whether this step is scored; the same on all processes."""
        if self.every != AUTO:
            return step % int(self.every) == 0
        fits = self.spent + self.cost <= SHARE * (time.monotonic() - self.begun)
        return saving and self.context.runtime.any_of(self.context.runtime.leads and fits)

    def score(self, network: nn.Module, spec: ModelSpec) -> dict[str, Any] | None:
        """Return the line for metrics.jsonl; None on non-leading processes."""
        started = time.monotonic()
        scores = self._measure(network, spec, self.n)
        self.cost = time.monotonic() - started
        self.spent += self.cost
        if scores is None:
            return None
        extractor = self.extractor
        return {
            **scores.values, "decides": next(iter(scores.values)), "n_fake": scores.n_fake, "n_real": scores.n_real,
            "extractor": extractor and extractor.name, "weights_sha256": extractor and extractor.digest,
            "seconds": round(self.cost, 3),
        }  # fmt: skip

    def improves(self, found: dict[str, Any], best: dict[str, Any] | None) -> bool:
        """Return whether a score is the best so far; one with another extractor, count or metric is, too."""
        same = ("extractor", "weights_sha256", "n_fake", "n_real")
        value = found["decides"]
        if best is None or best.get("decides", "fid") != value or any(best.get(key) != found[key] for key in same):
            return True
        return bool(found[value] < best[value] if better(value) == "lower" else found[value] > best[value])

    def _measure(self, network: nn.Module, spec: ModelSpec, count: int) -> Scores | None:
        context = replace(self.context, progress=_silent)  # the progress bar of training is on the screen
        fake = GeneratedImages(network, spec, requests_for(count, 0, None, spec.num_classes), context.runtime)
        return compute_scores(
            fake, self.real, self.extractor, self.metrics, context, n_real=self.n, batch=self.batch,
            held_out=self.held_out,
        )  # fmt: skip


def open_tracker(job: Job, context: Context) -> Tracker:
    """Return the tracker for a run's settings, its extractor open and checked.

    Raises:
        UsageError, SaganError, DataError, PluginError: a metric or extractor cannot be used for these images.
    """
    settings, pack = job.config.run, job.pack
    name = settings.eval_extractor
    if name == AUTO:
        name = "classifier" if len(pack.class_names) > 1 else "inception-v3-compat"
    real = packed_images(pack, job.config.data.data, chosen=job.training)
    held_out = packed_images(pack, job.config.data.data, chosen=job.held_out) if len(job.held_out) else None
    listed = parse_metrics(settings.eval_metrics, "--eval-metrics")
    if STRUCTURE not in listed and real.measure(STRUCTURE):
        listed = (*listed, STRUCTURE)
    protocol = find(DEFAULT).with_changes(extractor=name)
    options = Options(protocol, listed, settings.eval_n)
    metrics = choose_metrics(options, real, classes=job.spec.num_classes > 0)
    extractor = open_checked(options, real, metrics, context)
    require_held_out(metrics, held_out)
    return Tracker(settings.eval_every, settings.eval_n, extractor, real, context, metrics, held_out)


@contextmanager
def _silent(label: str, total: int) -> Iterator[Tick]:
    """Report no progress."""
    yield lambda done, total=None: None
