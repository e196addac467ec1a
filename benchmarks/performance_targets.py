"""The performance targets of `sagan`, and the results of `speed.py` relative to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Results = dict[str, Any]
"""A results file of `speed.py`: section -> part -> numbers."""
TOP = 4
"""Number of the most expensive operators that are listed for a missed target."""


@dataclass(frozen=True)
class Target:
    """One number to reach."""

    title: str
    settings: str
    goal: float
    path: tuple[str | int, ...]
    """Keys of the number in the results."""
    unit: str = "x"
    """`x` (relative to the textbook's time), `ms`, or `%` (higher is better)."""
    factor: float = 1.0
    """Conversion from the unit of the results."""
    system: str | None = None
    """System whose profile is shown if the target is missed."""

    def reached(self, whole: Results) -> float | None:
        """Return the measured number; None if it was not measured."""
        at: Any = whole
        for key in self.path:
            if isinstance(at, list):  # rows, identified by batch or title
                at = next((row for row in at if key in (row.get("batch"), row.get("title"))), None)
            else:
                at = at.get(key) if isinstance(at, dict) else None
            if at is None:
                return None
        return float(at) * self.factor

    def missed_by(self, value: float) -> float:
        """Return the distance to the goal; 0 or less if it is reached."""
        return self.goal - value if self.unit == "%" else value - self.goal

    def text(self, value: float) -> str:
        """Format a number in this target's unit."""
        return {"x": f"{value:.2f}", "ms": f"{value:.0f} ms", "%": f"{value:.0f} %"}[self.unit]


def _step(system: str, title: str, side: str, goal: float) -> Target:
    return Target(title, SETTINGS[side], goal, ("steps", system, "as_run", "ratio", side, "median"), system=system)


def _share(system: str, title: str, side: str, goal: float) -> Target:
    path = ("steps", system, "share_of_peak", side, "share", "median")
    return Target(title, SETTINGS[side], goal, path, unit="%", factor=100, system=system)


def _draw(title: str, form: str, settings: str, goal: float) -> Target:
    return Target(title, settings, goal, ("sampling", "sagan-32", 64, "ratio", form, "median"))


def _absolute(system: str, title: str, goal: float) -> Target:
    path = ("steps", system, "together", "seconds", "default", "median")
    return Target(title, SETTINGS["default"], goal, path, unit="ms", factor=1000, system=system)


SETTINGS = {"exact": "exact fp32", "default": "default"}
CPU = (
    _step("dcgan-64", "DCGAN-shaped, 64 pixels, batch 16", "exact", 0.42),
    _step("dcgan-64", "DCGAN-shaped, 64 pixels, batch 16", "default", 0.20),
    _step("sagan-32", "SAGAN-32, batch 16", "exact", 0.58),
    _step("sagan-32", "SAGAN-32, batch 16", "default", 0.27),
    _step("sagan-128", "SAGAN-128, batch 4", "exact", 0.60),
    _step("sagan-128", "SAGAN-128, batch 4", "default", 0.30),
    _share("sagan-32", "SAGAN-32, share of the convolution's peak", "exact", 70),
    _share("sagan-32", "SAGAN-32, share of the bf16 convolution's peak", "default", 70),
    _draw("drawing, SAGAN-32, batch 64", "folded fp32", "exact fp32", 0.50),
    _draw("drawing, SAGAN-32, batch 64", "folded bf16", "bf16", 0.30),
    Target("`sagan sample` of 64 images, cold, relative to `import torch`", "exported file", 1.6,
           ("sampling", "start", "SAGAN-32, CIFAR-10's network", "ratio", "exported file", "median")),
)  # fmt: skip
CUDA = (
    _absolute("sagan-128", "SAGAN-128, batch 256, an iteration", 80),
    _absolute("sagan-32", "SAGAN-32, batch 64, an iteration", 5),
    _share("sagan-128", "SAGAN-128, share of the bf16 convolution's peak", "default", 40),
)


def rows(whole: Results) -> str:
    """Return a Markdown table of targets and results, and the most expensive operators of missed targets."""
    lines = ["| | settings | target | reached | missed by |", "|---|---|---|---|---|"]
    held = []
    for target in CUDA if "gpu" in whole["machine"]["facts"] else CPU:
        value = target.reached(whole)
        if value is None:
            told = ("not measured", "")
        else:
            missed = target.missed_by(value)
            told = target.text(value), target.text(missed) if missed > 0 else "reached"
            if missed > 0 and target.system:
                held.append(f"- {target.title}, {target.settings}: {_spent(whole, target)}.")
        lines.append(f"| {target.title} | {target.settings} | {target.text(target.goal)} | {told[0]} | {told[1]} |")
    table = "\n".join(lines)
    return table if not held else table + "\n\nWhere the time of the missed targets goes:\n\n" + "\n".join(held)


def systems_in(whole: Results) -> list[dict[str, Any]]:
    """Return the systems of the section `steps` in the order of measurement."""
    return [found for name, found in whole.get("steps", {}).items() if name != "conditions"]


def plain(operator: str) -> str:
    """Return an operator's name without PyTorch's namespace."""
    return "`" + operator.removeprefix("aten::") + "`"


def _spent(whole: Results, target: Target) -> str:
    side = next(side for side, text in SETTINGS.items() if text == target.settings)
    operators = whole["steps"][target.system]["profile"][side]["operators"][:TOP]
    return ", ".join(f"{plain(o['name'])} {o['share']:.0%}" for o in operators)
