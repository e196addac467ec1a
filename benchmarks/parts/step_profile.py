"""Into one training step: how many floating-point operations, how many kernels, and where the time goes."""

from __future__ import annotations

from typing import Any

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiler
from torch.utils.flop_counter import FlopCounterMode

from parts.implementations import Take

TOP = 10


def flops(take: Take, device: torch.device) -> int:
    """Operations of one step as PyTorch counts them: products and convolutions, a multiplication and its sum as two."""
    with FlopCounterMode(display=False) as counter:
        take()
    return int(counter.get_total_flops())


def profile(take: Take, device: torch.device) -> dict[str, Any]:
    """The operators that a step spends its own time in, largest first, as shares; kernels launched on CUDA."""
    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profiler(activities=activities) as found:
        take()
        if cuda:
            torch.cuda.synchronize()
    events = found.key_averages()
    spent = {e.key: (e.self_device_time_total if cuda else e.self_cpu_time_total) for e in events}
    total = sum(spent.values())
    rows = sorted(((name, us / total) for name, us in spent.items()), key=lambda row: -row[1])[:TOP]
    kernels = sum(e.count for e in events if e.device_type == torch.autograd.DeviceType.CUDA) if cuda else None
    return {
        "operators": [{"name": name, "share": round(share, 4)} for name, share in rows],
        "calls": sum(e.count for e in events),
        "kernels": kernels,
    }
