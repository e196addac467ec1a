"""The real pictures of a score: which ones, fitted how, and the facts by which a record names them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagan_cli.config.schema import DataConfig
from sagan_cli.data.packing.pack import Pack, PackRequest
from sagan_cli.data.sources import opening as sources
from sagan_cli.engine.jobs import Progress, packed
from sagan_cli.errors import UsageError
from sagan_cli.evaluation.images.pictures import open_pictures, read_statistics
from sagan_cli.evaluation.measures import Real
from sagan_cli.evaluation.metrics.frechet import Moments
from sagan_cli.evaluation.sides import Packed
from sagan_cli.plugins import registry

Structure = Callable[[NDArray[np.uint8]], NDArray[np.bool_]]


@dataclass(frozen=True)
class Reference:
    """The real side, opened."""

    real: Real
    pack: Pack | None
    """The pictures at the model's size, where they were fitted to one."""
    facts: dict[str, Any]
    """`data`, `data_digest`, `split`, `real_size` and `fit` of the record."""
    structure: Structure | None
    """Which pictures are built right, where the data set can tell."""


def fitted(
    data: DataConfig,
    height: int,
    width: int,
    channels: int | None,
    progress: Progress,
    notify: Callable[[str], None],
    *,
    download: bool = False,
) -> Reference:
    """Pictures fitted to a model's size exactly as training fits them: the same pack, so the same digest.

    Raises:
        UsageError, DataError: as for training.
    """
    dataset = sources.open_source(
        data.source, data_root=Path(data.root), split=data.split, height=height, width=width,
        unconditional=data.unconditional, download=download,
    )  # fmt: skip
    pack = packed(dataset, PackRequest(height, width, channels, data.fit), data.max_bad, progress, notify)
    transform = json.loads(pack.manifest.read_text(encoding="utf-8"))["transform"]
    facts = {
        "data": data.source, "data_digest": pack.digest,
        "split": data.split if sources.has_parts(data.source) else None,
        "real_size": f"{height}x{width}", "fit": transform["fit"],
    }  # fmt: skip
    structure = structure_of(data.source, pack)
    return Reference(Real(Packed(pack), pack.digest, pack.class_names), pack, facts, structure)


def as_they_are(data: DataConfig, open_files: ExitStack) -> Reference:
    """Pictures of a folder, archive or .npz at their own sizes, or the `mu` and `sigma` of a statistics file.

    Raises:
        UsageError, DataError: no such pictures.
    """
    facts = {"data": data.source, "split": None, "real_size": "as they are", "fit": None}
    path = Path(data.source).expanduser()
    if path.suffix.lower() == ".npz" and path.is_file() and (found := read_statistics(path)) is not None:
        mu, sigma = found
        digest = hashlib.sha256(mu.tobytes() + sigma.tobytes()).hexdigest()
        real = Real(None, digest, (), Moments(mu.astype(np.float32), sigma, 0))
        return Reference(real, None, {**facts, "data_digest": digest}, None)
    pictures = open_files.enter_context(open_pictures(data.source, flag="--data"))
    real = Real(pictures, pictures.digest(), tuple(pictures.class_names))
    return Reference(real, None, {**facts, "data_digest": real.digest}, None)


def needs_fitting(data: DataConfig, fit: str | None) -> bool:
    """Whether `--data` is brought to the size of the scored pictures: a data set with parts, or anything with --fit."""
    return fit is not None or sources.has_parts(data.source)


def structure_of(source: str, pack: Pack) -> Structure | None:
    """The structure score that a registered data set brings along as its factory's attribute `structure`."""
    if pack.images.shape[-1] != 3 or source not in registry.names("datasets"):
        return None
    found: Structure | None = getattr(registry.load("datasets", source), "structure", None)
    return found


def require_structure(structure: Structure | None, metrics: tuple[str, ...], source: str) -> None:
    """Refuse a structure score that nobody can give.

    Raises:
        UsageError: the data set has none.
    """
    if "structure" in metrics and structure is None:
        raise UsageError(f"--metrics structure: the data {source} has no structure score (quadrupeds has one)")
