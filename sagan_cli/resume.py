"""Which run directory a training command means: a new one, or the one that the same command began before."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sagan_cli import __version__, runs
from sagan_cli.config.resolve import RESUMED, Resolved, flatten, frozen_for_resume, same_run
from sagan_cli.config.toml import to_toml
from sagan_cli.errors import SaganError, UsageError
from sagan_cli.files import write_atomic
from sagan_cli.importing.naming import IMPORTED
from sagan_cli.runs import Run


@dataclass(frozen=True)
class Chosen:
    """A run directory, and what its run.json said before this command; None for a new one."""

    run: Run
    record: dict[str, Any] | None


def find(resolved: Resolved, *, out: Path | None, resume: Path | None, new: bool) -> Chosen | None:
    """The run that goes on, or None where a new one is to be created; writes nothing.

    `resume` names a run; `out` names one that may or may not exist; with neither it is the newest run under runs/ that
    was begun with the same settings, unless `new` asks for another.

    Raises:
        UsageError: the directory holds something else, or a run with other settings.
    """
    if resume is not None:
        return _again(resolved, runs.open_run(resume))
    if out is not None:
        if (out / "run.json").exists() and not new:
            return _again(resolved, runs.open_run(out))
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(f"--out {out}: exists already and is no run that could go on; choose another directory")
        return None
    if not new:
        for run in reversed(runs.all_runs()):
            try:
                record = run.read()
                if same_run(resolved, flatten(record["config"])):
                    return Chosen(run, record)
            except (SaganError, KeyError):
                continue  # a damaged run of somebody's is no reason not to begin this one
    return None


def create(label: str, out: Path | None) -> Chosen:
    """A new directory: `out`, or the next number under runs/."""
    if out is None:
        return Chosen(runs.create(runs.RUNS, label), None)
    out.mkdir(parents=True, exist_ok=True)
    return Chosen(Run(out), None)


def _again(resolved: Resolved, run: Run) -> Chosen:
    record = trainable(run)
    frozen_for_resume(resolved, flatten(record["config"]))
    return Chosen(run, record)


def trainable(run: Run) -> dict[str, Any]:
    """run.json of a run that was trained here, and so can go on.

    Raises:
        UsageError: it was imported.
    """
    record = run.read()
    if record.get("status") == IMPORTED:
        raise UsageError(
            f"{run.path}: was imported: it has a generator, but no discriminator and no optimiser to go on with; "
            "begin a run of your own"
        )
    return record


def record_start(chosen: Chosen, resolved: Resolved, facts: dict[str, Any]) -> None:
    """Write run.json and config.toml; `facts` are model, data, machine and versions as this command found them."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    before = chosen.record or {"created": now}
    # A value that was taken over came from where the run had it from.
    first = before.get("sources", {})
    sources = {k: first.get(k, source) if source == RESUMED else source for k, source in resolved.sources.items()}
    resolved = replace(resolved, sources=sources)
    chosen.run.write({
        **before, "status": "training", "sagan": __version__, "command": sys.argv, "updated": now,
        "config": asdict(resolved.config), "sources": resolved.sources, **facts,
    })  # fmt: skip
    write_atomic(chosen.run.path / "config.toml", to_toml(resolved).encode())
