"""Evaluate a target: from a run, a model file or images, and the settings of the evaluation, to a score record.

`sagan eval-fid` and `sagan_cli.evaluate` both call `evaluate_target`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sagan_cli import runs
from sagan_cli.config.schema import DataConfig
from sagan_cli.errors import UsageError
from sagan_cli.evaluation.protocols import DEFAULT, find
from sagan_cli.evaluation.real_images import data_settings, require_parts, run_of_model, trained_on
from sagan_cli.generators import exported_file, find_model, open_found


@dataclass(frozen=True)
class Request:
    """What to evaluate, and how; the fields are the flags of `sagan eval-fid`."""

    target: str | None = None
    """A run, a checkpoint, an exported file, or images; None is the newest run, `-` images from stdin."""
    data: str | None = None
    metrics: Sequence[str] | None = None
    n: int | None = None
    n_real: int | str | None = None
    """A number, or "all"."""
    protocol: str = DEFAULT
    extractor: str | None = None
    weights: Path | None = None
    per_class: bool = False
    split: str | None = None
    fit: str | None = None
    seed: int = 0
    truncation: float | None = None
    raw: bool = False
    batch: int = 64
    device: str = "auto"
    precision: str = "fp32"
    knobs: Mapping[str, int] = field(default_factory=dict)


def evaluate_target(
    request: Request,
    progress: Any,
    notify: Callable[[str], None],
    warn: Callable[[str], None],
    on_runtime: Callable[[Any], None] = lambda runtime: None,
) -> dict[str, Any] | None:
    """Return the score record, which is also appended to the run's metrics.jsonl; None on processes that do not lead.

    Args:
        progress: (label, total) -> context manager of a tick, as `console.progress`.
        notify: receives one line for the user; `warn` likewise.
        on_runtime: called once with the opened runtime.

    Raises:
        UsageError, DataError, SaganError: with one line that names the flag or file.
    """
    rules = find(request.protocol)
    if request.truncation is not None and not 0 < request.truncation < float("inf"):
        raise UsageError(f"--truncation {request.truncation}: must be above 0")
    if request.weights is not None and not request.weights.is_file():
        raise UsageError(f"--weights {request.weights}: no such file")
    of_images = request.target == "-" or (request.target is not None and is_images(Path(request.target)))
    if of_images and request.data is None:
        raise UsageError(f"{request.target}: images are scored against other images: name those with --data")
    checkpoint = None if of_images else find_model(request.target)
    n_real = None if request.n_real == "all" else request.n_real
    begun = time.monotonic()

    from sagan_cli.engine.runtime import open_runtime
    from sagan_cli.evaluation import scoring
    from sagan_cli.evaluation.rules import Plan, with_rules

    changes = {
        "extractor": request.extractor, "split": request.split, "truncation": request.truncation,
        "ema": False if request.raw else None,
    }  # fmt: skip
    plan = Plan(
        with_rules(rules, **changes), None if request.metrics is None else tuple(request.metrics), request.n,
        None if n_real is None else int(n_real), request.n_real == "all", request.weights, request.per_class,
        request.fit, request.seed, request.batch, request.knobs,
    )  # fmt: skip
    with open_runtime(request.device, request.precision, distributed=True) as runtime:
        on_runtime(runtime)
        room = scoring.Room(runtime, progress, notify, warn)
        if checkpoint is None:
            assert request.target is not None
            real = data_settings(DataConfig(), request.data, plan.protocol.split, request.fit)
            require_parts(real.source, request.split)
            record = scoring.score_pictures(request.target, sys.stdin.buffer, real, plan, room)
        else:
            sampler = open_found(checkpoint, runtime, raw=not plan.protocol.ema)
            trained = trained_on(checkpoint, sampler.facts.data["source"], request.data)
            # The default protocol means the images trained on, whichever part of a dataset they are.
            part = request.split or (trained.split if rules.name == DEFAULT else rules.split)
            if request.target is None:
                notify(f"scoring {checkpoint.parent.parent}, step {sampler.facts.step}")
            real = data_settings(trained, request.data, part, request.fit)
            require_parts(real.source, request.split)
            record = scoring.score_model(sampler, real, plan, room)
            same = record and request.data is None and part == trained.split
            if record and same and record["data_digest"] != sampler.facts.data["digest"]:
                warn("the images are no longer the ones that this model was trained on")
    if record is None:
        return None
    record["seconds"] = round(time.monotonic() - begun, 3)
    run = run_of_model(checkpoint)
    if run is not None:
        try:
            run.append_metrics(record)
        except OSError as e:
            warn(f"{run.path}/metrics.jsonl: the score could not be written there: {e.strerror}")
    return record


def is_images(path: Path) -> bool:
    """Return whether a target is images, and not a model."""
    if exported_file(path) is not None:
        return False
    if path.is_dir():
        return not any((path / name).is_file() for name in ("run.json", runs.CHECKPOINT_FACTS))
    return path.suffix.lower() in (".zip", ".npz")
