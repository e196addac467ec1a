"""From the name of an extractor to one that is open and checked, on every process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sagan_cli.data.packing.pack import Pack, cache_dir
from sagan_cli.engine.jobs import Progress
from sagan_cli.engine.runtime import Runtime
from sagan_cli.errors import UsageError, closest
from sagan_cli.evaluation.extractors import fidelity
from sagan_cli.evaluation.extractors.extractor import Extractor, three_channels
from sagan_cli.evaluation.extractors.self_check import PICTURES, VARIABLE, self_check
from sagan_cli.evaluation.features import next_batch
from sagan_cli.evaluation.sides import Side

CLASSIFIER = "classifier"
NAMES = (*fidelity.NAMES, CLASSIFIER)


def open_extractor(
    name: str,
    weights: Path | None,
    pack: Pack | None,
    runtime: Runtime,
    progress: Progress,
    notify: Callable[[str], None],
) -> Extractor:
    """The extractor of a name; the leading process downloads or trains what is missing, the others find it done.

    Args:
        weights: a file instead of the published one.
        pack: labelled pictures for the classifier.

    Raises:
        UsageError: no such name, or weights that do not go with it.
        SaganError: weights that cannot be had or read.
        DataError: a classifier without classes.
    """
    if name not in NAMES:
        raise UsageError(f"--extractor {name}: no such extractor{closest(name, NAMES)}; there are {', '.join(NAMES)}")
    if not runtime.leads:
        runtime.barrier()
    extractor = _open(name, weights, pack, runtime.device, progress, notify)
    if runtime.leads:
        runtime.barrier()
    return extractor


def _open(
    name: str,
    weights: Path | None,
    pack: Pack | None,
    device: torch.device,
    progress: Progress,
    notify: Callable[[str], None],
) -> Extractor:
    if name != CLASSIFIER:
        return fidelity.open_fidelity(
            name, weights=weights, device=device, environ=os.environ, progress=progress, notify=notify
        )
    if weights is not None:
        raise UsageError("--weights: the classifier is trained on the data, not loaded; choose another --extractor")
    if pack is None:
        raise UsageError("--extractor classifier is trained on --data, which has to be pictures with classes")
    from sagan_cli.evaluation.extractors.classifier_training import open_classifier

    return open_classifier(
        pack.images, pack.labels, pack.class_names, pack.digest,
        folder=cache_dir() / "classifiers", device=device, progress=progress, notify=notify,
    )  # fmt: skip


def check_extractor(extractor: Extractor, real: Side | None, runtime: Runtime, notify: Callable[[str], None]) -> str:
    """The self-check, once per machine, on the leading process; what the record says of it.

    Raises:
        SaganError: it failed.
    """
    if os.environ.get(VARIABLE) == "skip" or real is None:
        return "skipped"
    if runtime.leads:
        self_check(extractor, lambda limit: _some(real, limit), cache_dir() / "self-checks", notify)
    runtime.barrier()
    return "passed"


def _some(side: Side, limit: int = PICTURES) -> Tensor:
    """Up to `limit` pictures from all over a side, those that have the shape of the first; uint8 (n, 3, H, W)."""
    chosen = np.unique(np.linspace(0, len(side) - 1, min(limit, len(side))).astype(np.int64))
    pictures = [three_channels(part) for part in next_batch(side.batches(limit, chosen), len(chosen))]
    return torch.cat([part for part in pictures if part.shape[1:] == pictures[0].shape[1:]])
