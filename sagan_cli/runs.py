"""Run directories: their layout, their files, and the search for the run that a command means.

runs/001-quadrupeds-sagan32/
    run.json         configuration with sources, data, network, versions, status
    config.toml      the same configuration, for reading and for --config
    metrics.jsonl    one line of numbers every log_every steps
    samples/         grids of fixed latents
    checkpoints/     one directory per kept step
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sagan_cli import __version__
from sagan_cli.config.resolve import RESUMED, Resolved, flatten, frozen_for_resume, resolve, same_run, to_toml
from sagan_cli.config.schema import Config
from sagan_cli.errors import SaganError, UsageError
from sagan_cli.files import TEMPORARY, encoded, write_atomic

FORMAT = 1
CHECKPOINT_FACTS = "checkpoint.json"
"""The file that marks a directory as a checkpoint."""
RUNS = Path("runs")
LOCK = ".lock"
IMPORTED = "imported"
"""Status of an imported run: it has no discriminator and no optimiser, so it cannot be resumed."""
UNKNOWN_DATA = "unknown pictures"
"""The recorded dataset of an imported run; not a valid path or dataset name."""
MODEL = "model.safetensors"
"""The weights for sampling: in a checkpoint directory, and in an exported Hugging Face folder."""


@dataclass(frozen=True)
class Run:
    """One run directory; the only writer of run.json, config.toml and metrics.jsonl."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """One directory per kept step."""
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        """Grids of the fixed latents."""
        return self.path / "samples"

    def checkpoint_steps(self) -> list[Path]:
        """Return the checkpoint directories, oldest first."""
        return checkpoint_steps(self.checkpoints)

    def read(self) -> dict[str, Any]:
        """Return the contents of run.json.

        Raises:
            SaganError: it is missing, damaged, or of an unknown format.
        """
        file = self.path / "run.json"
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
        except OSError as e:
            raise SaganError(f"{self.path}: not a run directory (no readable run.json)") from e
        except ValueError as e:
            raise SaganError(f"{file}: damaged: {e}") from e
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            version = record.get("format") if isinstance(record, dict) else None
            raise SaganError(f"{file}: run format {version!r}; this version of sagan reads format {FORMAT}")
        for key, kind in (("config", dict), ("sources", dict), ("best", dict), ("kept", dict)):
            if not isinstance(record.get(key) or kind(), kind):
                raise SaganError(f"{file}: damaged: '{key}' is not a table; restore the file, or begin another run")
        return record

    def config(self) -> Config:
        """Return the run's configuration, in the settings of this version.

        Raises:
            SaganError: as `read`.
        """
        base = flatten(self.read()["config"])
        return resolve(flags={}, sets=[], environ={}, file=None, preset=None, base=base).config

    def write(self, record: Mapping[str, Any]) -> None:
        """Replace run.json."""
        text = json.dumps({"format": FORMAT, **record}, indent=2, ensure_ascii=False) + "\n"
        write_atomic(self.path / "run.json", encoded(text))

    def update(self, **fields: Any) -> None:
        """Change some fields of run.json."""
        self.write({**self.read(), **fields})

    def append_metrics(self, values: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl, on a line of its own also after one that a crash left incomplete."""
        with (self.path / "metrics.jsonl").open("ab+") as f:
            if f.seek(0, os.SEEK_END):
                f.seek(-1, os.SEEK_END)
                if f.read(1) != b"\n":
                    f.write(b"\n")
            f.write(json.dumps(values).encode() + b"\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl without those that are damaged or incomplete."""
        file = self.path / "metrics.jsonl"
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []
        found = []
        for line in lines:
            with contextlib.suppress(ValueError):
                if isinstance(row := json.loads(line), dict) and isinstance(row.get("step", 0), int):
                    found.append(row)
        return found

    def rewind_metrics(self, step: int) -> None:
        """Remove the lines after `step`, because a resumed run writes them again."""
        kept = [m for m in self.metrics() if m.get("step", 0) <= step]
        write_atomic(self.path / "metrics.jsonl", "".join(json.dumps(m) + "\n" for m in kept).encode())

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep a second process from training in this directory; the lock ends with its process.

        Raises:
            SaganError: another process holds the lock.
        """
        from filelock import FileLock, Timeout

        try:
            with FileLock(self.path / LOCK, timeout=0):
                yield
        except Timeout as e:
            raise SaganError(f"{self.path}: another process is training here; wait for it or choose --out") from e


def create(parent: Path, label: str) -> Run:
    """Create a directory `NNN-label` under `parent` with the next number."""
    parent.mkdir(parents=True, exist_ok=True)
    safe = re.sub(r"[^A-Za-z0-9._]+", "-", label).strip("-.") or "run"
    number = 1 + max((_number(p) for p in parent.iterdir()), default=0)
    while True:
        path = parent / f"{number:03d}-{safe}"
        # Another process may have created a run of another name with the same number.
        if not list(parent.glob(f"{number:03d}-*")):
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                return Run(path)
        number += 1


def open_run(path: Path) -> Run:
    """Open the run at `path`.

    Raises:
        UsageError: no such directory.
        SaganError: not a run.
    """
    if not path.is_dir():
        raise UsageError(f"{path}: no such run directory")
    run = Run(path)
    run.read()
    return run


def newest(parent: Path = RUNS) -> Run:
    """Return the run under `parent` that was trained last.

    Raises:
        UsageError: there is none.
    """
    runs = all_runs(parent)
    if not runs:
        raise UsageError(f"no run under {parent}/: train one with 'sagan train', or name a run or checkpoint")
    return max(runs, key=_touched)


def all_runs(parent: Path = RUNS) -> list[Run]:
    """Return all runs under `parent`, sorted by name."""
    if not parent.is_dir():
        return []
    return [Run(p) for p in sorted(parent.iterdir()) if (p / "run.json").is_file()]


def checkpoint_steps(folder: Path) -> list[Path]:
    """Return the checkpoint directories in a folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.name.isdecimal() and (p / CHECKPOINT_FACTS).is_file())


def _number(path: Path) -> int:
    match = re.match(r"(\d+)-", path.name)
    return int(match[1]) if match else 0


def _touched(run: Run) -> int:
    newest_time = 0
    # Not metrics.jsonl: a later score does not make an old run the newest.
    for path in (run.path / "run.json", run.checkpoints):
        with contextlib.suppress(FileNotFoundError):
            newest_time = max(newest_time, path.stat().st_mtime_ns)
    return newest_time


@dataclass(frozen=True)
class Chosen:
    """A run directory, and its run.json before this command; None for a new run."""

    run: Run
    record: dict[str, Any] | None


def find_run(resolved: Resolved, *, out: Path | None, resume: Path | None, new: bool) -> Chosen | None:
    """Return the run to resume, or None for a new one; write nothing.

    Args:
        out: directory of a run that may exist.
        resume: directory of a run that must exist.
        new: whether to start a new run. Without any of the three, the newest run under runs/ that was started with the
            same settings is resumed.

    Raises:
        UsageError: the directory has other contents, or a run with other settings.
    """
    if resume is not None:
        return _again(resolved, open_run(resume))
    if out is not None:
        if (out / "run.json").exists() and not new:
            return _again(resolved, open_run(out))
        if out.exists() and (not out.is_dir() or any(not _leftover(path) for path in out.iterdir())):
            raise UsageError(f"--out {out}: exists already and is not a run to resume; choose another directory")
        return None
    if not new:
        for run in reversed(all_runs()):
            try:
                record = run.read()
                same = same_run(resolved, record)
            except (SaganError, KeyError):
                continue  # a damaged run does not prevent a new one
            if same:
                return _continued(resolved, run, record)
    return None


def new_run(label: str, out: Path | None) -> Chosen:
    """Create a run directory: `out`, or the next number under `runs/`."""
    if out is None:
        return Chosen(create(RUNS, label), None)
    out.mkdir(parents=True, exist_ok=True)
    return Chosen(Run(out), None)


def _leftover(path: Path) -> bool:
    """Return whether a killed process left this before its run began."""
    return path.name == LOCK or path.name.startswith(TEMPORARY)


def _again(resolved: Resolved, run: Run) -> Chosen:
    """Return a run to resume; a run without a checkpoint has nothing to lose, and begins anew with other settings."""
    record = trainable(run)
    if not run.checkpoint_steps() and not same_run(resolved, record):
        return Chosen(run, None)
    frozen_for_resume(resolved, record)
    return _continued(resolved, run, record)


def _continued(resolved: Resolved, run: Run, record: dict[str, Any]) -> Chosen:
    kept, steps = run.checkpoint_steps(), resolved.config.train.steps
    if kept and int(kept[-1].name) > steps:
        done = int(kept[-1].name)
        raise UsageError(
            f"--steps {steps}: {run.path} has {done} steps already: give --steps {done} or more, or another run"
        )
    return Chosen(run, record)


def trainable(run: Run) -> dict[str, Any]:
    """Return run.json of a run that can be resumed.

    Raises:
        UsageError: the run was imported.
    """
    record = run.read()
    if record.get("status") == IMPORTED:
        raise UsageError(
            f"{run.path}: was imported without discriminator and optimiser and cannot be resumed; start a new run"
        )
    return record


def record_start(chosen: Chosen, resolved: Resolved, facts: dict[str, Any]) -> None:
    """Write run.json and config.toml; `facts` are model, data, machine and versions of this command."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    before = {"id": uuid.uuid4().hex, **(chosen.record or {"created": now})}
    # A setting taken from the run keeps its first source.
    first = before.get("sources", {})
    sources = {k: first.get(k, source) if source == RESUMED else source for k, source in resolved.sources.items()}
    resolved = replace(resolved, sources=sources)
    chosen.run.write({
        **before, "status": "training", "sagan": __version__, "command": sys.argv, "updated": now,
        "config": asdict(resolved.config), "sources": resolved.sources, **facts,
    })  # fmt: skip
    write_atomic(chosen.run.path / "config.toml", encoded(to_toml(resolved)))
