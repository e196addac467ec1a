"""How time and memory grow: with attention positions, batch, width, and the number of processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import interleaved, ratio, summary, timed, waiting

from parts import attention_time, folding
from parts.implementations import DEFAULT, EXACT, TEXTBOOK
from parts.worker import Worker
from sagan_cli.engine.runtime import open_runtime

HERE = Path(__file__).resolve().parent
SYSTEM = {"cpu": "laptop-32", "cuda": "sagan-32"}
"""Whose batch and width are varied."""
BATCHES = {"cpu": (4, 16, 64), "cuda": (16, 64, 256)}
WIDTHS = {"cpu": (16, 32, 64), "cuda": (32, 64, 128)}


def attention(device: torch.device, quick: bool) -> list[dict[str, Any]]:
    """A row for each number of positions, the forms of the product interleaved in one process."""
    rows = []
    with open_runtime(str(device), "fp32"):
        wait = waiting(device)
        for positions in (256, 1024, 4096) if quick else (256, 1024, 4096, 16384):
            work = {form: timed(attention_time.pass_of(form, positions, device), wait) for form in attention_time.FORMS}
            seconds = interleaved(work, 3 if quick or positions > 4096 else 9, warm=1)
            rows.append({
                "positions": positions, "seconds": {form: summary(s) for form, s in seconds.items()},
                "mib": {form: _memory(form, positions, device) for form in attention_time.FORMS},
            })  # fmt: skip
    return rows


def _memory(form: str, positions: int, device: torch.device) -> float:
    if device.type == "cuda":
        run = attention_time.pass_of(form, positions, device)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)
    command = [sys.executable, str(HERE / "attention_time.py"), form, str(positions)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return round(float(done.stdout), 1)


def batch(device: torch.device, quick: bool) -> list[dict[str, Any]]:
    """A row for each batch."""
    return [{"batch": n, **_point(device, quick, batch=n)} for n in BATCHES[device.type][: 2 if quick else None]]


def width(device: torch.device, quick: bool) -> list[dict[str, Any]]:
    """A row for each base width."""
    return [{"width": n, **_point(device, quick, width=n)} for n in WIDTHS[device.type][: 2 if quick else None]]


def _point(device: torch.device, quick: bool, **change: int) -> dict[str, Any]:
    sides = (TEXTBOOK, EXACT, DEFAULT)
    task = {"system": SYSTEM[device.type], "device": str(device), **change}
    with Worker(**task, sides=sides, allocator="kept") as worker:
        work = {s: lambda s=s: worker.step(s) for s in sides}  # type: ignore[misc]
        seconds = interleaved(work, 3 if quick else 5, warm=2)
    memory = {}
    for side in (TEXTBOOK, DEFAULT):
        with Worker(**task, sides=[side], allocator="as run") as worker:
            worker.step(side)
            worker.step(side)
            memory[side] = round(worker.ask("memory", side))
    return {
        "seconds": {s: summary(v) for s, v in seconds.items()}, "peak_mib": memory,
        "ratio": {s: ratio(seconds, s, TEXTBOOK) for s in (EXACT, DEFAULT)},
    }  # fmt: skip


def processes(device: torch.device, quick: bool) -> list[dict[str, Any]]:
    """A row for each number of processes that share one batch, each with one thread on a CPU."""
    counts = (1, 2) if device.type == "cpu" else tuple(n for n in (1, 2, 4, 8) if n <= torch.cuda.device_count())
    rows = []
    for count in counts:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count),
                   str(HERE / "two_processes.py"), str(device), SYSTEM[device.type], "3" if quick else "7"]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        rows.append({"processes": count, **json.loads(done.stdout.splitlines()[-1])})
    return rows


CURVES: dict[str, Callable[[torch.device, bool], list[dict[str, Any]]]] = {
    "attention": attention, "batch": batch, "width": width, "processes": processes,
    "folding": folding.measure,
}  # fmt: skip
