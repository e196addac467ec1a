"""Fail if a training step has become slower relative to the textbook's. Only ratios are used, on any machine.

    python benchmarks/gate.py      # under a minute on two cores; exit code 1 and one line for each ratio that is off

Both sides run in turn in one process on one thread. Processor time is measured, so that other work on the machine has
little effect. A ratio is off if its median exceeds its limit in gate.toml by more than the noise of the same run, which
is the ratio of the textbook to a second copy of itself. The gate fails only if a ratio is off in two runs.
"""

from __future__ import annotations

import sys
import time
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from measuring import Rounds, interleaved, ratio, timed
from parts.implementations import AGAIN, DEFAULT, EXACT, SIDES, TEXTBOOK, side
from parts.systems import SYSTEMS

from sagan_cli.engine.runtime import Runtime, open_runtime

LIMITS = Path(__file__).parent / "gate.toml"
ROUNDS, WARM = 5, 1
LEAST_MARGIN = 0.05
"""Relative; smaller differences also occur between two builds of the same code."""


@dataclass(frozen=True)
class Ratio:
    """The time of one side relative to the textbook's, and its limit."""

    name: str
    value: float
    limit: float
    margin: float

    @property
    def off(self) -> bool:
        """Whether it exceeds its limit by more than the noise."""
        return self.value > self.limit * (1 + self.margin)

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.value:.3f} of the textbook's time, limit {self.limit:.3f}, noise {self.margin:.0%}: "
            f"{'SLOWER' if self.off else 'ok'}"
        )


def judge(name: str, seconds: Rounds, limits: dict[str, float]) -> list[Ratio]:
    """Return the ratios of one system with their limits and the margin from the second copy of the textbook."""
    same = ratio(seconds, AGAIN, TEXTBOOK)
    margin = max(LEAST_MARGIN, abs(same["median"] - 1) + (same["q3"] - same["q1"]) / 2)
    return [Ratio(f"{name} {s}", ratio(seconds, s, TEXTBOOK)["median"], limits[s], margin) for s in limits]


def measure(name: str, row: dict[str, Any], runtime: Runtime) -> list[Ratio]:
    """Measure one system."""
    system = SYSTEMS[name]
    system = replace(system, batch=row["batch"], spec=replace(system.spec, base_width=row["width"]))
    limits = {EXACT: row[EXACT], DEFAULT: row[DEFAULT]}
    if runtime.precision == "fp32":  # without bf16, the default equals the exact side
        del limits[DEFAULT]
    work = {s: timed(side(s, system, runtime), clock=time.process_time) for s in SIDES}
    return judge(name, interleaved(work, ROUNDS, WARM), limits)


def main() -> int:
    torch.set_num_threads(1)
    rows = tomllib.loads(LIMITS.read_text(encoding="utf-8"))
    with open_runtime("cpu", "auto") as runtime:
        failed = False
        for name, row in rows.items():
            found = measure(name, row, runtime)
            if any(r.off for r in found):
                pairs = zip(found, measure(name, row, runtime), strict=True)
                found = [second if first.off else first for first, second in pairs]
            for r in found:
                print(r)
            failed |= any(r.off for r in found)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
