"""Open a feature extractor by its name, and check it once on each machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch

from sagan_cli.contracts import Progress
from sagan_cli.data.packing.pack import Pack, cache_dir
from sagan_cli.engine.runtime import Runtime
from sagan_cli.errors import UsageError, closest
from sagan_cli.evaluation.extractors.extractor import CLASSIFIER, Extractor
from sagan_cli.evaluation.extractors.weights import EXTRACTORS
from sagan_cli.evaluation.features import ImageSet

NAMES = (*EXTRACTORS, CLASSIFIER)


def require_extractor(name: str, flag: str) -> None:
    """Refuse an unknown name.

    Raises:
        UsageError: naming the flag and the nearest name.
    """
    if name not in NAMES:
        raise UsageError(f"{flag} {name}: no such extractor{closest(name, NAMES)}; there are {', '.join(NAMES)}")


def open_extractor(
    name: str,
    weights: Path | None,
    pack: Pack | None,
    runtime: Runtime,
    progress: Progress,
    notify: Callable[[str], None],
) -> Extractor:
    """Open an extractor; the leading process downloads or trains what is missing before the others continue.

    Args:
        weights: a file instead of the published one.
        pack: labelled images for the classifier.

    Raises:
        UsageError: no such name, or weights that do not go with it.
        SaganError: weights that cannot be downloaded or read.
        DataError: a classifier without classes.
    """
    require_extractor(name, "--extractor")
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
        from sagan_cli.evaluation.extractors.torch_fidelity import open_torch_fidelity

        return open_torch_fidelity(
            name, weights=weights, device=device, environ=os.environ, progress=progress, notify=notify
        )
    if weights is not None:
        raise UsageError("--weights: the classifier is trained on the data, not loaded; choose another --extractor")
    if pack is None:
        raise UsageError("--extractor classifier is trained on --data, which must be images with classes")
    from sagan_cli.evaluation.extractors.classifier import open_classifier

    return open_classifier(
        pack.images, pack.labels, pack.class_names, pack.digest,
        folder=cache_dir() / "classifiers", device=device, progress=progress, notify=notify,
    )  # fmt: skip


def check_extractor(
    extractor: Extractor, real: ImageSet | None, runtime: Runtime, notify: Callable[[str], None]
) -> str:
    """Run the self-check once per machine, on the leading process; return "passed" or "skipped" for the record.

    Raises:
        SaganError: the check failed.
    """
    if os.environ.get("SAGAN_SELF_CHECK") == "skip" or real is None:
        return "skipped"
    folder = cache_dir() / "self-checks"
    if runtime.leads and not (folder / extractor.passed_check).is_file():
        from sagan_cli.evaluation.extractors.self_check import sample_images, self_check

        self_check(extractor, lambda limit: sample_images(real, limit), folder, notify)
    runtime.barrier()
    return "passed"
