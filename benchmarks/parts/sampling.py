"""Drawing: our folded generator against the textbook's with its hooks in evaluation mode, and `sagan sample` cold."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from measuring import interleaved, ratio, summary, timed, waiting

from parts.implementations import TEXTBOOK
from parts.systems import SYSTEMS as ALL
from parts.systems import System
from sagan_cli.config.schema import TrainConfig
from sagan_cli.engine import checkpoint, networks
from sagan_cli.engine import sample as sampler
from sagan_cli.engine.runtime import Runtime, open_runtime

SYSTEMS = ("sagan-32", "dcgan-64", "sagan-128")
BATCHES = (1, 16, 64)
LARGEST = {"sagan-128": 16}
"""Largest batch on a CPU, where more would take minutes."""
EXACT, HALF, COMMAND = "folded fp32", "folded bf16", "`sagan sample`"
IMPORT, CHECKPOINT, FILE = "import torch", "checkpoint", "exported file"


def measure(system: System, device: torch.device, quick: bool) -> list[dict[str, Any]]:
    """A row for each batch: seconds, and ratios to the textbook's."""
    spec, rows = system.spec, []
    with open_runtime(str(device), "fp32") as runtime:
        torch.manual_seed(0)
        textbook = system.textbook()[0].to(device).eval()
        ours = sampler.ready(networks.build(system.arch, spec)[0], device)
        for n in BATCHES[:2] if quick else BATCHES:
            if device.type == "cpu" and n > LARGEST.get(system.name, n):
                continue
            z, y = torch.randn(n, spec.latent, device=device), None
            if spec.num_classes:
                y = torch.randint(spec.num_classes, (n,), device=device)
            labels = [None] * n if y is None else y.tolist()
            requests = [sampler.Request(i, label) for i, label in enumerate(labels)]

            def hooked(z: torch.Tensor = z, y: torch.Tensor | None = y) -> None:
                with torch.inference_mode():
                    textbook(z) if y is None else textbook(z, y)

            def folded(precision: str, z: torch.Tensor = z, y: torch.Tensor | None = y) -> None:
                with torch.inference_mode(), Runtime(device, precision).autocast():
                    ours(z, y)

            def command(requests: list[sampler.Request] = requests) -> None:
                list(sampler.pictures(ours, spec, requests, runtime))

            wait = waiting(device)
            work = {TEXTBOOK: hooked, EXACT: lambda: folded("fp32"), HALF: lambda: folded("bf16"), COMMAND: command,
                    f"{TEXTBOOK} again": hooked}  # fmt: skip
            rounds = 3 if quick else 7 if n > 1 else 21
            seconds = interleaved({name: timed(f, wait) for name, f in work.items()}, rounds, warm=2)
            rows.append({
                "batch": n, "pictures_per_second": {k: summary([n / s for s in v]) for k, v in seconds.items()},
                "ratio": {name: ratio(seconds, name, TEXTBOOK) for name in work if name != TEXTBOOK},
            })  # fmt: skip
    return rows


def start(quick: bool) -> list[dict[str, Any]]:
    """Wall time of `sagan sample -n 64` as a process, against a process that imports torch; a row for each network."""
    rows = []
    for system in (ALL["laptop-32"], ALL["sagan-32"]):
        with tempfile.TemporaryDirectory() as folder:
            saved = _checkpoint(system, Path(folder))
            _sagan(folder, "export", str(saved), "--out", "model.safetensors", "--quiet")
            work = {
                IMPORT: lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True),
                CHECKPOINT: lambda at=str(saved): _sample(folder, at),  # type: ignore[misc]
                FILE: lambda: _sample(folder, "model.safetensors"),
            }
            again = f"{IMPORT} again"
            works = {name: timed(f) for name, f in {**work, again: work[IMPORT]}.items()}
            seconds = interleaved(works, 3 if quick else 5, warm=1)
            rows.append({
                "title": system.title, "pictures": 64, "seconds": {k: summary(v) for k, v in seconds.items()},
                "ratio": {k: ratio(seconds, k, IMPORT) for k in (CHECKPOINT, FILE, again)},
            })  # fmt: skip
    return rows


def _sample(folder: str, model: str) -> None:
    _sagan(folder, "sample", model, "-n", "64", "--out", "grid.png", "--force", "--quiet")


def _sagan(folder: str, *words: str) -> None:
    # The repository stands first on the path, whatever is installed.
    path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "sagan_cli", *words]
    subprocess.run(command, check=True, cwd=folder, env=_environment(path), stdout=subprocess.DEVNULL)


def _environment(path: str) -> dict[str, str]:
    # Compiled files are kept, as they are for a user: the interpreter's own already are.
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPATH": path}


def _checkpoint(system: System, folder: Path) -> Path:
    """A checkpoint of untrained networks: drawing costs the same, whatever was learnt."""
    players, ema = networks.create(system.arch, system.spec, TrainConfig(), torch.device("cpu"))
    about = {
        "arch": system.arch, "arch_package": "sagan-cli", "spec": system.spec,
        "class_names": [str(n) for n in range(system.spec.num_classes)],
        "data": {"source": "none", "digest": "0" * 64, "count": 0},
    }  # fmt: skip
    return checkpoint.save(folder / "checkpoints", 1, players, ema, about)
