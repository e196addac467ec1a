"""Which real pictures `sagan eval-fid` holds a model against: those of its run, or those that `--data` names."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from sagan_cli import runs
from sagan_cli.config.resolve import flatten, resolve
from sagan_cli.config.schema import Config, DataConfig
from sagan_cli.errors import UsageError
from sagan_cli.generators import run_of
from sagan_cli.importing.naming import UNKNOWN
from sagan_cli.plugins import registry


def trained_on(checkpoint: Path, source: str, data: str | None) -> DataConfig:
    """The data settings of the run that a checkpoint belongs to; of one that was copied away, the source alone.

    An exported file comes from anywhere: it may name a data set, but no place on this machine.

    Raises:
        UsageError: `data` names nothing, and what the model was trained on is not known or not here.
    """
    if data is None and source == UNKNOWN:
        raise UsageError(
            f"{checkpoint}: was imported, and what it was trained on is not known: name the real pictures with --data"
        )
    run = run_of_model(checkpoint)
    if run is None:
        if data is None and checkpoint.is_file() and source not in registry.names("datasets"):
            raise UsageError(f"{checkpoint}: was trained on {source}: say where those pictures lie with --data")
        return replace(DataConfig(), source=source)
    config: Config = resolve(
        flags={}, sets=[], environ={}, file=None, preset=None, base=flatten(run.read()["config"])
    ).config
    return config.data


def run_of_model(model: Path | None) -> runs.Run | None:
    """The run of a checkpoint; an exported file has none, wherever it lies."""
    return run_of(model) if model is not None and model.is_dir() else None


def data_settings(base: DataConfig, source: str | None, split: str, fit: str | None) -> DataConfig:
    """The data settings of the real side; other pictures than the run's bring their own classes."""
    changes: dict[str, Any] = {"split": split, "root": os.environ.get("SAGAN_DATA_ROOT", base.root)}
    if source is not None:
        changes |= {"source": source, "unconditional": False}
    if fit is not None:
        changes["fit"] = fit
    return replace(base, **changes)


def require_parts(source: str, split: str | None) -> None:
    """Refuse a --split of pictures that have no parts."""
    from sagan_cli.data.sources.opening import has_parts

    if split is not None and not has_parts(source):
        raise UsageError(f"--split {split}: {source} has no parts; name the other folder itself with --data")
