"""Write an imported generator as a run directory: run.json, and one checkpoint without discriminator."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sagan_cli import __version__, runs
from sagan_cli.config.schema import SETTINGS, Config, DataConfig, ModelConfig, TrainConfig
from sagan_cli.engine import networks
from sagan_cli.engine.checkpoint import FACTS, FORMAT, MODEL, write_tensors
from sagan_cli.errors import CheckpointError, UsageError
from sagan_cli.files import write_directory
from sagan_cli.importing.foreign import Converted, Loaded
from sagan_cli.importing.formats import FORMATS
from sagan_cli.plugins import registry
from sagan_cli.runs import IMPORTED, UNKNOWN_DATA, Run


def checked(converted: Converted, path: Path) -> dict[str, Tensor]:
    """Return the tensors in fp32 after comparing names and shapes with the architecture's generator.

    Raises:
        CheckpointError: one does not fit, or is too large for fp32.
    """
    with torch.device("meta"):  # shapes without numbers
        generator: nn.Module = networks.build(converted.arch, converted.spec)[0]
    wanted = {name: tensor.shape for name, tensor in generator.state_dict().items()}
    state = {name: tensor.float().contiguous() for name, tensor in converted.state.items()}
    for name in sorted(wanted.keys() | state.keys()):
        if name not in wanted or name not in state or wanted[name] != state[name].shape:
            found = tuple(state[name].shape) if name in state else "missing"
            raise CheckpointError(f"{path}: '{name}' of architecture '{converted.arch}' would be {found}")
        if not bool(torch.isfinite(state[name]).all()):
            raise CheckpointError(f"{path}: '{name}' of architecture '{converted.arch}' would not be finite")
    return state


def require_empty(out: Path) -> None:
    """Refuse a directory that is not empty.

    Raises:
        UsageError: it is not.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out}: exists already; choose another directory")


def write(loaded: Loaded, format_: str, converted: Converted, state: dict[str, Tensor], out: Path | None) -> Run:
    """Write the run in `out`, or under the next number of runs/, with a checkpoint of the file's step.

    Raises:
        SaganError: it cannot be written.
        UsageError: `out` cannot be made.
    """
    side = converted.spec.height
    if out is None:
        run = runs.create(runs.RUNS, f"{format_}-{converted.arch}{side}")
    else:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise UsageError(f"--out {out}: cannot be made: {e.strerror or e}") from e
        run = Run(out)
    arch = registry.find("architectures", converted.arch)
    package = f"{arch.package} {arch.version}"
    names = [str(i) for i in range(converted.spec.num_classes)]
    # The digest of the images is unknown; that of the file identifies the origin.
    data = {"source": UNKNOWN_DATA, "digest": loaded.sha256, "count": 0}
    spec = {**asdict(converted.spec), "options": dict(converted.spec.options)}
    about = {"arch": converted.arch, "arch_package": package, "spec": spec, "class_names": names, "data": data}
    _write_checkpoint(run.checkpoints / f"{loaded.step:08d}", loaded.step, state, about)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    config = _config(converted, loaded.step)
    run.write({
        "created": now, "status": IMPORTED, "sagan": __version__, "command": sys.argv, "updated": now,
        "config": asdict(config), "sources": dict.fromkeys(SETTINGS, IMPORTED),
        "model": {"arch": converted.arch, "package": package, **spec},
        "data": {**data, "skipped": 0, "class_names": names},
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("torch", "safetensors")},
        },
        "imported": {
            "format": format_, "project": FORMATS[format_], "file": loaded.path.name, "sha256": loaded.sha256,
        },
        "step": loaded.step,
    })  # fmt: skip
    return run


def _write_checkpoint(path: Path, step: int, state: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write a checkpoint as `engine.checkpoint.save`, without the state that only training needs."""

    def fill(work: Path) -> None:
        # A file has one set of weights and does not tell whether it is an EMA.
        tensors = {f"{prefix}.{name}": t.clone() for prefix in ("generator", "ema") for name, t in state.items()}
        write_tensors(tensors, work / MODEL)
        with (work / MODEL).open("rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
        facts = {"format": FORMAT, "sagan": __version__, "step": step, **about, "sha256": {MODEL: digest}}
        (work / FACTS).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    write_directory(path, fill)


def _config(converted: Converted, step: int) -> Config:
    """Return the settings that follow from a generator, and defaults for the others."""
    spec = converted.spec
    data = DataConfig(
        data=UNKNOWN_DATA, size=str(spec.height), channels=str(spec.channels), unconditional=not spec.num_classes
    )
    model = ModelConfig(
        arch=converted.arch, width=spec.base_width, latent=spec.latent,
        attn_at=",".join(map(str, spec.attn_at)) or "none", options=dict(spec.options),
    )  # fmt: skip
    return replace(Config(), data=data, model=model, train=TrainConfig(steps=max(step, 1)))
