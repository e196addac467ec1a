"""The training step: ours against the textbook's, in two readings, with operations, memory and profile.

`together`: all sides in one process, so with one allocator setting (ours). `as run`: each side in a process of its own,
with the allocator as it leaves it, one step at a time in turn.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from measuring import Rounds, interleaved, ratio, summary

from parts.implementations import AGAIN, DEFAULT, EXACT, SIDES, TEXTBOOK, count_parameters
from parts.peaks import KINDS, operations
from parts.systems import System
from parts.worker import Worker

WARM = 2
UNEQUAL = {
    "sagan-dcgan": "textbook: fakes not detached, D's gradients computed in G's update, D twice a step",
    "residual": "textbook: D's passes over real and fake apart (fakes detached, gradients toggled)",
    "both": "textbook: spectral norm advances in each forward pass, NCHW, Adam unfused, losses read each step, no "
    "moving average; ours: once an optimiser step, channels last, fused, not read, with the moving average",
}


def measure(system: System, device: torch.device, rounds: int) -> dict[str, Any]:
    """Everything about one system."""
    together = _together(system, device, rounds)
    alone = _alone(system, device, rounds)
    counts = count_parameters(system)
    kind = system.arch if system.arch in UNEQUAL else "residual"
    return {
        "title": system.title, "batch": system.batch, "parameters": counts["ours"],
        "unequal": [UNEQUAL[kind], UNEQUAL["both"]], **together, **alone,
    }  # fmt: skip


def _together(system: System, device: torch.device, rounds: int) -> dict[str, Any]:
    with Worker(system=system.name, sides=SIDES, device=str(device), allocator="kept", convolutions=KINDS) as worker:
        names = [*SIDES, *(f"convolution {kind}" for kind in KINDS)]
        seconds = interleaved({n: lambda n=n: worker.step(n) for n in names}, rounds, WARM)  # type: ignore[misc]
        flops = {side: worker.ask("flops", side) for side in (TEXTBOOK, EXACT, DEFAULT)}
        profiles = {side: worker.ask("profile", side) for side in (TEXTBOOK, EXACT, DEFAULT)}
        precision = worker.hello["precision"]
    return {
        "precision": precision, "together": _reading(seconds), "flops": flops,
        "share_of_peak": _shares(seconds, flops, device, precision), "profile": profiles,
    }  # fmt: skip


def _alone(system: System, device: torch.device, rounds: int) -> dict[str, Any]:
    task = {"system": system.name, "device": str(device), "allocator": "as run"}
    if device.type == "cuda":
        # There is one allocator whoever runs, and a GPU does not hold four processes of this size: memory alone.
        memory = {}
        for side in (TEXTBOOK, EXACT, DEFAULT):
            with Worker(**task, sides=[side]) as worker:
                for _ in range(WARM + 1):
                    worker.step(side)
                memory[side] = {"peak_mib": round(worker.ask("memory", side))}
        return {"memory": memory}
    with ExitStack() as stack:
        workers = {side: stack.enter_context(Worker(**task, sides=[side])) for side in SIDES}
        seconds = interleaved({s: lambda s=s: workers[s].step(s) for s in SIDES}, rounds, WARM)  # type: ignore[misc]
        memory = {
            side: {"peak_mib": round(workers[side].ask("memory", side)),
                   "imported_mib": round(workers[side].hello["imported_mib"])}
            for side in (TEXTBOOK, EXACT, DEFAULT)
        }  # fmt: skip
    return {"as_run": _reading(seconds), "memory": memory}


def _reading(seconds: Rounds) -> dict[str, Any]:
    return {
        "seconds": {name: summary(values) for name, values in seconds.items()},
        "ratio": {name: ratio(seconds, name, TEXTBOOK) for name in (EXACT, DEFAULT, AGAIN)},
    }


def _shares(seconds: Rounds, flops: dict[str, int], device: torch.device, precision: str) -> dict[str, Any]:
    """Rate of each side's step over that of the convolution in the same round and precision."""
    kinds = {TEXTBOOK: "float32", EXACT: "float32", DEFAULT: "bfloat16" if precision == "bf16" else "float32"}
    found = {}
    for side, kind in kinds.items():
        limits = [operations(device) / s for s in seconds[f"convolution {kind}"]]
        rates = [flops[side] / s for s in seconds[side]]
        found[side] = {
            "of": kind, "share": summary([r / p for r, p in zip(rates, limits, strict=True)]),
            "gflops": summary([r / 1e9 for r in rates])["median"],
            "peak_gflops": summary([p / 1e9 for p in limits])["median"],
        }  # fmt: skip
    return found
