"""What is measured of a finished twin: structure, Frechet distance, diversity, and what its attention does."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagan_cli.ablation.paired import wilson
from sagan_cli.attention.scenes import Pair, of_seeds, open_pair, with_discriminator
from sagan_cli.engine import checkpoint
from sagan_cli.engine.job import Job
from sagan_cli.engine.sample import Sampler, latents, pictures
from sagan_cli.evaluation.image_sets import packed_images, requests_for
from sagan_cli.evaluation.metrics.structure import STRUCTURE
from sagan_cli.evaluation.protocols import DEFAULT, Options, find
from sagan_cli.evaluation.scoring import Context, score_generator
from sagan_cli.runs import Run

KIND, FORMAT = "twin", 1
"""Marks a line of metrics.jsonl; raise the format when a measure changes, and nothing old is read again."""
LOOKED_AT = 32
"""Pictures over which the strength of attention is averaged."""
AT_ONCE = 8
COARSE = 32
"""Pictures are averaged down to sides of at most this before they are told apart."""
TOO_NEAR = 0.01
"""Share of real pictures that count as repeated: it sets the distance below which a drawn one does."""
SAME = 0.5
"""Distance below which two pictures are one: rounding of the averages, no level of any pixel."""
ROWS = 512


@dataclass(frozen=True)
class Yardstick:
    """What twins are measured against: one for all of them."""

    job: Job
    """Any twin's; its pictures are what counts."""
    n: int
    extractor: str | None
    """None leaves the Frechet distance out."""
    context: Context

    @property
    def metrics(self) -> tuple[str, ...]:
        """What `sagan eval-fid` would be asked for."""
        has = packed_images(self.job.pack, self.job.config.data.data).measure(STRUCTURE) is not None
        return (*(("fid",) if self.extractor else ()), *((STRUCTURE,) if has else ()))

    @cached_property
    def real(self) -> dict[int, Spread]:
        """The data's own spread by class, over as many pictures of each as are drawn."""
        pack, spec = self.job.pack, self.job.spec
        shuffled = np.random.default_rng(0).permutation(len(pack.images))
        _, y = latents(requests_for(self.n, 0, None, spec.num_classes), spec, None)
        drawn = np.full(self.n, -1) if y is None else y.numpy()
        labels = np.full(len(shuffled), -1) if y is None else pack.labels
        return {
            int(label): spread_of(pack.images[np.sort(shuffled[labels[shuffled] == label][:count])])
            for label, count in zip(*np.unique(drawn, return_counts=True), strict=True)
        }


@dataclass(frozen=True)
class Spread:
    """How the pictures of one class differ."""

    deviation: float
    """Mean standard deviation of a pixel, in levels of 0 to 255."""
    nearest: NDArray[np.float64]
    """(n,) distance of each picture to its nearest neighbour among the others; empty for fewer than two."""


def measure(run: Run, yardstick: Yardstick) -> dict[str, Any]:
    """The numbers of a run's final moving average, kept as a line of its metrics.jsonl and found there again.

    Raises:
        SaganError, UsageError, DataError: as for `sagan eval-fid`.
    """
    path, context = run.checkpoint_steps()[-1], yardstick.context
    facts = checkpoint.read_facts(path)
    key = {
        "kind": KIND, "format": FORMAT, "step": facts.step, "checkpoint_sha256": facts.digests, "n": yardstick.n,
        "extractor": yardstick.extractor, "data_digest": yardstick.job.pack.digest,
        "precision": context.runtime.precision,
    }  # fmt: skip
    for line in run.metrics():
        if all(line.get(name) == value for name, value in key.items()):
            return line
    pair = with_discriminator(open_pair(path, context.runtime), context.runtime)
    values, intervals = _scores(run, pair.sampler, yardstick)
    found = {
        **key, "values": values | _diversity(pair.sampler, yardstick), "intervals": intervals,
        **_attention(pair, yardstick),
    }  # fmt: skip
    run.append_metrics(found)
    return found


def speed(run: Run) -> float | None:
    """Median of the pictures per second that the run logged while it trained; None where it logged none."""
    logged = [line["images_per_second"] for line in run.metrics() if "images_per_second" in line]
    return statistics.median(logged) if logged else None


def spread_of(drawn: NDArray[np.uint8]) -> Spread:
    """The spread of pictures (n, H, W, C)."""
    if len(drawn) < 2:
        return Spread(0.0, np.zeros(0))
    deviation = float(np.mean([drawn[:, row].astype(np.float32).std(axis=0).mean() for row in range(drawn.shape[1])]))
    flat = np.stack([_coarse(picture) for picture in drawn])  # in float64, where equal pictures are at distance 0
    squares = (flat**2).sum(axis=1)
    nearest = np.empty(len(flat))
    for start in range(0, len(flat), ROWS):
        rows = np.arange(start, min(start + ROWS, len(flat)))
        distances = squares[rows, None] + squares - 2 * flat[rows] @ flat.T
        distances[np.arange(len(rows)), rows] = np.inf
        nearest[rows] = np.sqrt(np.maximum(distances.min(axis=1), 0))
    return Spread(deviation, nearest)


def relative(drawn: dict[int, Spread], real: dict[int, Spread]) -> dict[str, float]:
    """`spread` and `distinct` of drawn classes, each class counted by its pictures; what cannot be told is left out.

    spread: deviation over the data's. distinct: share of pictures whose nearest neighbour of the class is farther than
    that of the 1 % of real pictures that are nearest to another.
    """
    shares, ratios, weights = [], [], []
    for label, own in drawn.items():
        theirs = real.get(label)
        if theirs is None or not len(own.nearest) or not len(theirs.nearest) or not theirs.deviation:
            continue
        limit = max(float(np.quantile(theirs.nearest, TOO_NEAR)), SAME)
        shares.append(float((own.nearest > limit).mean()))
        ratios.append(own.deviation / theirs.deviation)
        weights.append(len(own.nearest))
    if not weights:
        return {}
    return {
        "spread": float(np.average(ratios, weights=weights)),
        "distinct": float(np.average(shares, weights=weights)),
    }


def _scores(run: Run, sampler: Sampler, yardstick: Yardstick) -> tuple[dict[str, float], dict[str, Any]]:
    """The scores of `sagan eval-fid`, whose record the run keeps, and the Wilson interval of the structure score."""
    metrics, data, context = yardstick.metrics, yardstick.job.config.data, yardstick.context
    if not metrics:
        return {}, {}
    protocol = find(DEFAULT).with_changes(extractor=yardstick.extractor, split=data.split)
    record = score_generator(sampler, data, Options(protocol, metrics, yardstick.n), context)
    assert record is not None, "an ablation runs in one process"
    run.append_metrics(record)
    values: dict[str, float] = {name: record["values"][name] for name in metrics}
    intervals: dict[str, Any] = {name: list(record["intervals"][name]) for name in metrics if record["intervals"][name]}
    if STRUCTURE in values:
        intervals[STRUCTURE] = list(wilson(round(values[STRUCTURE] * record["n_fake"]), record["n_fake"]))
    return values, intervals


def _diversity(sampler: Sampler, yardstick: Yardstick) -> dict[str, float]:
    """Of the same pictures as the scores look at."""
    requests, runtime = requests_for(yardstick.n, 0, None, sampler.spec.num_classes), yardstick.context.runtime
    drawn, labels = [], []
    with yardstick.context.progress("drawing", len(requests)) as tick:
        for part, own in pictures(sampler.generator, sampler.spec, requests, runtime):
            drawn.append(part)
            labels.append(own)
            tick(sum(map(len, drawn)))
    together, of_class = np.concatenate(drawn), np.concatenate(labels)
    found = {int(label): spread_of(together[of_class == label]) for label in np.unique(of_class)}
    return relative(found, yardstick.real)


def _attention(pair: Pair, yardstick: Yardstick) -> dict[str, Any]:
    """gamma and mean |y - x| / |x| of each attention layer, by `G16` and `D16`."""
    chosen = {letter: list(pair.layers(letter)) if pair.has_layers(letter) else [] for letter in "GD"}
    gammas: dict[str, float] = {}
    strengths: dict[str, list[float]] = {}
    if any(chosen.values()):
        requests = requests_for(min(LOOKED_AT, yardstick.n), 0, None, pair.sampler.spec.num_classes)
        for start in range(0, len(requests), AT_ONCE):  # few at a time: maps of large sides fill a memory
            part = requests[start : start + AT_ONCE]
            for letter, layer in of_seeds(pair, part, chosen, yardstick.context.runtime, lambda _: None).layers:
                strengths.setdefault(f"{letter}{layer.name}", []).extend(layer.strength.tolist())
                if layer.gamma is not None:
                    gammas[f"{letter}{layer.name}"] = layer.gamma
    return {"gamma": gammas, "strength": {name: statistics.fmean(v) for name, v in strengths.items()}}


def _coarse(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(H, W, C) averaged over even blocks until no side is above COARSE, laid out as one row."""
    found = picture.astype(np.float64)
    while max(found.shape[:2]) > COARSE and not (found.shape[0] % 2 or found.shape[1] % 2):
        found = (found[::2, ::2] + found[1::2, ::2] + found[::2, 1::2] + found[1::2, 1::2]) / 4
    return found.reshape(-1)
