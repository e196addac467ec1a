"""Timings on a noisy machine: interleaved rounds, medians of ratios within rounds, and the load of the machine.

A ratio is taken within a round, between tasks that ran within seconds of each other. The median over the rounds is
reported with its quartiles. The same task under two names shows the noise.
"""

from __future__ import annotations

import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

Rounds = dict[str, list[float]]
"""Seconds of each task in each round."""


def interleaved(work: Mapping[str, Callable[[], float]], rounds: int, warm: int) -> Rounds:
    """Run all tasks once per round, starting with another one each time; `warm` rounds are discarded.

    Args:
        work: functions that return the seconds they took (see `timed`).
    """
    names = list(work)
    found: Rounds = {name: [] for name in names}
    for n in range(warm + rounds):
        first = n % len(names)
        for name in names[first:] + names[:first]:
            seconds = work[name]()
            if n >= warm:
                found[name].append(seconds)
    return found


def timed(
    function: Callable[[], Any],
    wait: Callable[[], Any] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Callable[[], float]:
    """Return a function that calls `function` and returns the seconds.

    Args:
        wait: returns when an accelerator has finished.
        clock: `time.process_time` counts only the processor time of this process.
    """

    def take() -> float:
        wait()
        begun = clock()
        function()
        wait()
        return clock() - begun

    return take


def waiting(device: torch.device) -> Callable[[], Any]:
    """Return a function that waits until the device has finished."""
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


def summary(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """Return median, quartiles, minimum and maximum."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    named = {"median": middle, "q1": low, "q3": high, "least": min(values), "most": max(values)}
    return {name: float(f"{value:.{digits}g}") for name, value in named.items()} | {"rounds": len(values)}


def ratio(rounds: Rounds, over: str, under: str) -> dict[str, float]:
    """Return the summary of seconds of `over` divided by those of `under`, round by round."""
    return summary([a / b for a, b in zip(rounds[over], rounds[under], strict=True)])


def peak_mib() -> float:
    """Return the peak resident memory of this process, MiB (VmHWM; 0 without /proc)."""
    # Not ru_maxrss, which starts with the peak of the parent process.
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def machine(device: torch.device) -> dict[str, Any]:
    """Return the facts that timings depend on: hardware, threads, versions, environment."""
    facts: dict[str, Any] = {
        "processor": _processor(), "cores": _cores(), "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.system(), "libc": " ".join(platform.libc_ver()), "python": platform.python_version(),
        "torch": torch.__version__, "onednn": torch.backends.mkldnn.is_available(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "environment": {n: os.environ[n] for n in sorted(os.environ)
                        if n.startswith(("OMP_", "MKL_", "KMP_", "GLIBC_", "MALLOC_", "SAGAN_", "LD_PRELOAD"))},
    }  # fmt: skip
    if device.type == "cuda":
        facts |= {
            "gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(), "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "tf32_convolution": torch.backends.cudnn.allow_tf32,
            "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
        }  # fmt: skip
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Clock:
    """Processor time since its creation: of the whole machine (/proc/stat), and of this process and its children."""

    def __init__(self) -> None:
        self.begun, self.stat, self.own = time.monotonic(), _stat(), _own()

    def read(self) -> dict[str, float]:
        """Return the seconds, the average number of cores used by other processes, and the share stolen by the host."""
        seconds = max(time.monotonic() - self.begun, 1e-9)
        if self.stat is None or (now := _stat()) is None:
            return {"seconds": round(seconds, 1)}
        busy, stolen, total = (b - a for a, b in zip(self.stat, now, strict=True))
        others = max(0.0, busy - (_own() - self.own)) / seconds
        return {"seconds": round(seconds, 1), "others_cores": round(others, 2),
                "steal": round(stolen / max(total, 1e-9), 4)}  # fmt: skip


def _stat() -> tuple[float, float, float] | None:
    """Return the seconds of all cores since the start of the machine: busy, stolen by the host, total."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, idle, waiting_, irq, softirq, steal = (int(f) / os.sysconf("SC_CLK_TCK") for f in fields)
    busy = user + nice + system + irq + softirq
    return busy, steal, busy + idle + waiting_ + steal


def _own() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in used)


def wait_for_quiet(limit: float, share: float = 0.1, glance: float = 3.0) -> dict[str, float]:
    """Wait at most `limit` seconds until other processes use fewer cores than `share`; return the final load."""
    begun = time.monotonic()
    while True:
        clock = Clock()
        time.sleep(glance)
        found = clock.read()
        waited = time.monotonic() - begun
        if found.get("others_cores", 0.0) <= share or waited >= limit:
            return {"waited_seconds": round(waited, 1), "others_cores_before": found.get("others_cores", 0.0)}


@contextmanager
def watched(limit: float) -> Iterator[dict[str, Any]]:
    """Yield a dictionary that contains, after the block, the load of the machine before and during it."""
    conditions: dict[str, Any] = wait_for_quiet(limit)
    clock = Clock()
    yield conditions
    conditions |= clock.read()
