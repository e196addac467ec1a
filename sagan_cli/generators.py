"""The generator that a command's argument means: a run's, a checkpoint's, an exported one, or one from a pipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sagan_cli import runs
from sagan_cli.errors import CheckpointError, UsageError
from sagan_cli.export.naming import exported_file, in_checkpoint

if TYPE_CHECKING:
    from sagan_cli.engine.runtime import Runtime
    from sagan_cli.engine.sample import Sampler

STDIN = "-"
BEST = "best"
"""`RUN/best` is the checkpoint that scored best while it was trained."""


def find_model(target: str | None) -> Path:
    """The checkpoint directory or .safetensors file that a target means; `-` itself is standard input.

    Raises:
        UsageError: there is nothing there, or standard input is a keyboard.
        CheckpointError: a run without checkpoints.
    """
    if target == STDIN:
        if sys.stdin is None or sys.stdin.isatty():
            what = "closed" if sys.stdin is None else "a terminal"
            source = "as from 'sagan export --format safetensors --out -'"
            raise UsageError(f"-: standard input is {what}: pipe a model in, {source}")
        return Path(STDIN)
    if target is not None:
        if (file := exported_file(Path(target))) is not None:
            return file
        if in_checkpoint(Path(target)):
            return Path(target).parent
    return find_checkpoint(target)


def open_found(found: Path, runtime: Runtime, *, raw: bool) -> Sampler:
    """The generator at a place that `find_model` found.

    Raises:
        UsageError: `raw` is wanted of a file that holds the moving average.
        CheckpointError: it is damaged, of another format, or of an architecture that is not there.
    """
    from sagan_cli.export.generator import as_wanted, open_model
    from sagan_cli.export.single_file import read_file

    if found == Path(STDIN):
        return as_wanted(read_file(sys.stdin.buffer, runtime.device), raw)
    return open_model(found, runtime, raw=raw)


def find_checkpoint(target: str | None) -> Path:
    """The checkpoint directory that a RUN, RUN/best, a CHECKPOINT or nothing means: the newest of the newest run.

    Raises:
        UsageError: there is nothing there.
        CheckpointError: a run without checkpoints, or without a best one.
    """
    path = Path(target) if target is not None else runs.newest().path
    if path.name == BEST and not path.exists() and (path.parent / "run.json").is_file():
        return _best(runs.open_run(path.parent))
    if not path.exists():
        raise UsageError(f"{path}: no such run or checkpoint")
    if (path / runs.CHECKPOINT_FACTS).is_file():
        return path
    if not path.is_dir():
        raise UsageError(f"{path}: not a run or checkpoint directory")
    kept = runs.open_run(path).checkpoint_steps()
    if not kept:
        raise CheckpointError(f"{path}: has no checkpoint yet; train it further, or name another run")
    return kept[-1]


def run_of(checkpoint: Path) -> runs.Run | None:
    """The run that a checkpoint belongs to; None for one that was copied away."""
    path = checkpoint.resolve().parent.parent
    return runs.Run(path) if (path / "run.json").is_file() else None


def _best(run: runs.Run) -> Path:
    best = run.read().get("best")
    if not best:
        raise CheckpointError(f"{run.path}/{BEST}: this run was not scored while it trained; see train --eval-every")
    path = run.checkpoints / f"{best['step']:08d}"
    if not path.is_dir():
        raise CheckpointError(f"{path}: the best checkpoint is gone")
    return path
