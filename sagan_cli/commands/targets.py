"""Which checkpoint a command means: a RUN, RUN/best, a CHECKPOINT, or nothing for the newest."""

from __future__ import annotations

from pathlib import Path

from sagan_cli import runs
from sagan_cli.errors import CheckpointError, UsageError

BEST = "best"
"""`RUN/best` is the checkpoint that scored best while it was trained."""


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
