"""Measures of a finished run: structure score, FID, diversity, and gamma and strength of its attention."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagan_cli.ablation.statistics import wilson
from sagan_cli.attention.compute_maps import CheckpointNetworks, maps_of_seeds, open_generator, with_discriminator
from sagan_cli.engine import checkpoint
from sagan_cli.engine.job import Job
from sagan_cli.engine.sample import Sampler, latents, pictures
from sagan_cli.evaluation.computation import Context
from sagan_cli.evaluation.image_sets import packed_images, requests_for
from sagan_cli.evaluation.metrics.structure import STRUCTURE
from sagan_cli.evaluation.options import DEFAULT, Options, find
from sagan_cli.evaluation.scoring import score_generator
from sagan_cli.runs import Run

KIND, FORMAT = "twin", 1
"""Of a line in metrics.jsonl; raise the format when a measure changes, so that old lines are not reused."""
STRENGTH_IMAGES = 32
"""Images over which the strength of attention is averaged."""
STRENGTH_BATCH = 8
COARSE = 32
"""Images are averaged down to sides of at most this before distances are computed."""
DUPLICATE_QUANTILE = 0.01
"""Share of real images that count as duplicates; it sets the distance threshold."""
SAME = 0.5
"""Distance below which two images are equal up to rounding."""
DISTANCE_ROWS = 512


@dataclass(frozen=True)
class MeasureOptions:
    """Dataset, number of images, extractor and device, the same for all runs."""

    job: Job
    """Of any trial: only its dataset is used."""
    n: int
    """Generated images per run."""
    extractor: str | None
    """None omits the FID."""
    context: Context

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that are computed as by `sagan eval-fid`."""
        has = packed_images(self.job.pack, self.job.config.data.data).measure(STRUCTURE) is not None
        return (*(("fid",) if self.extractor else ()), *((STRUCTURE,) if has else ()))

    @cached_property
    def real(self) -> dict[int, Spread]:
        """Spread of real images by class, over as many images of each class as are generated."""
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
    """Variation among the images of one class."""

    deviation: float
    """Mean standard deviation of a pixel, in levels (0 to 255)."""
    nearest: NDArray[np.float64]
    """(n,) distance of each image to its nearest neighbour; empty for fewer than two images."""


def measure(run: Run, options: MeasureOptions) -> dict[str, Any]:
    """Measure the EMA of the last checkpoint and add a line to metrics.jsonl, or return that line if it exists.

    Raises:
        SaganError, UsageError, DataError: as for `sagan eval-fid`.
    """
    path, context = run.checkpoint_steps()[-1], options.context
    facts = checkpoint.read_facts(path)
    key = {
        "kind": KIND, "format": FORMAT, "step": facts.step, "checkpoint_sha256": facts.digests, "n": options.n,
        "extractor": options.extractor, "data_digest": options.job.pack.digest,
        "precision": context.runtime.precision,
    }  # fmt: skip
    for line in run.metrics():
        if all(line.get(name) == value for name, value in key.items()):
            return line
    networks = with_discriminator(open_generator(path, context.runtime), context.runtime)
    values, intervals = _scores(run, networks.sampler, options)
    found = {
        **key, "values": values | _diversity(networks.sampler, options), "intervals": intervals,
        **_attention(networks, options),
    }  # fmt: skip
    run.append_metrics(found)
    return found


def speed(run: Run) -> float | None:
    """Return the median of the logged training images per second; None if there are none."""
    logged = [line["images_per_second"] for line in run.metrics() if "images_per_second" in line]
    return statistics.median(logged) if logged else None


def spread_of(drawn: NDArray[np.uint8]) -> Spread:
    """Return the spread of images (n, H, W, C)."""
    if len(drawn) < 2:
        return Spread(0.0, np.zeros(0))
    deviation = float(np.mean([drawn[:, row].astype(np.float32).std(axis=0).mean() for row in range(drawn.shape[1])]))
    flat = np.stack([_coarse(image) for image in drawn])
    squares = (flat**2).sum(axis=1)
    nearest = np.empty(len(flat))
    for start in range(0, len(flat), DISTANCE_ROWS):
        rows = np.arange(start, min(start + DISTANCE_ROWS, len(flat)))
        distances = squares[rows, None] + squares - 2 * flat[rows] @ flat.T
        distances[np.arange(len(rows)), rows] = np.inf
        nearest[rows] = np.sqrt(np.maximum(distances.min(axis=1), 0))
    return Spread(deviation, nearest)


def relative(drawn: dict[int, Spread], real: dict[int, Spread]) -> dict[str, float]:
    """Return `spread` and `distinct`, averaged over classes by their number of images; {} without comparable classes.

    spread: deviation relative to the data's. distinct: share of images whose nearest neighbour in the class is farther
    than the 1 % quantile of the same distance among real images.
    """
    shares, ratios, weights = [], [], []
    for label, own in drawn.items():
        theirs = real.get(label)
        if theirs is None or not len(own.nearest) or not len(theirs.nearest) or not theirs.deviation:
            continue
        limit = max(float(np.quantile(theirs.nearest, DUPLICATE_QUANTILE)), SAME)
        shares.append(float((own.nearest > limit).mean()))
        ratios.append(own.deviation / theirs.deviation)
        weights.append(len(own.nearest))
    if not weights:
        return {}
    return {
        "spread": float(np.average(ratios, weights=weights)),
        "distinct": float(np.average(shares, weights=weights)),
    }


def _scores(run: Run, sampler: Sampler, options: MeasureOptions) -> tuple[dict[str, float], dict[str, Any]]:
    """Return scores and intervals as of `sagan eval-fid`, whose record is appended to the run."""
    metrics, data, context = options.metrics, options.job.config.data, options.context
    if not metrics:
        return {}, {}
    protocol = find(DEFAULT).with_changes(extractor=options.extractor, split=data.split)
    record = score_generator(sampler, data, Options(protocol, metrics, options.n), context)
    assert record is not None, "an ablation runs in one process"
    run.append_metrics(record)
    values: dict[str, float] = {name: record["values"][name] for name in metrics}
    intervals: dict[str, Any] = {name: list(record["intervals"][name]) for name in metrics if record["intervals"][name]}
    if STRUCTURE in values:
        intervals[STRUCTURE] = list(wilson(round(values[STRUCTURE] * record["n_fake"]), record["n_fake"]))
    return values, intervals


def _diversity(sampler: Sampler, options: MeasureOptions) -> dict[str, float]:
    """Return `relative` for the images that were scored."""
    requests, runtime = requests_for(options.n, 0, None, sampler.spec.num_classes), options.context.runtime
    drawn, labels = [], []
    with options.context.progress("drawing", len(requests)) as tick:
        for part, own in pictures(sampler.generator, sampler.spec, requests, runtime):
            drawn.append(part)
            labels.append(own)
            tick(sum(map(len, drawn)))
    together, of_class = np.concatenate(drawn), np.concatenate(labels)
    found = {int(label): spread_of(together[of_class == label]) for label in np.unique(of_class)}
    return relative(found, options.real)


def _attention(networks: CheckpointNetworks, options: MeasureOptions) -> dict[str, Any]:
    """Return gamma and mean |y - x| / |x| of each attention layer, named as in `G16` and `D16`."""
    chosen = {letter: list(networks.layers(letter)) if networks.has_layers(letter) else [] for letter in "GD"}
    gammas: dict[str, float] = {}
    strengths: dict[str, list[float]] = {}
    if any(chosen.values()):
        requests = requests_for(min(STRENGTH_IMAGES, options.n), 0, None, networks.sampler.spec.num_classes)
        for start in range(0, len(requests), STRENGTH_BATCH):  # small batches: large maps need much memory
            part = requests[start : start + STRENGTH_BATCH]
            for letter, layer in maps_of_seeds(networks, part, chosen, options.context.runtime, lambda _: None).layers:
                strengths.setdefault(f"{letter}{layer.name}", []).extend(layer.strength.tolist())
                if layer.gamma is not None:
                    gammas[f"{letter}{layer.name}"] = layer.gamma
    return {"gamma": gammas, "strength": {name: statistics.fmean(v) for name, v in strengths.items()}}


def _coarse(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Average (H, W, C) over 2x2 blocks until no side is above COARSE; return it flat."""
    found = image.astype(np.float64)
    while max(found.shape[:2]) > COARSE and not (found.shape[0] % 2 or found.shape[1] % 2):
        found = (found[::2, ::2] + found[1::2, ::2] + found[::2, 1::2] + found[1::2, 1::2]) / 4
    return found.reshape(-1)
