"""The table of metrics: what is registered, by the names of their numbers. Imports no torch and no numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sagan_cli.contracts import Metric
from sagan_cli.errors import UsageError, closest
from sagan_cli.plugins import registry

STRUCTURE = "structure"
"""The metric that a dataset brings along."""


def metric(name: str) -> Metric:
    """Return the metric that `--metrics` calls `name`.

    Raises:
        UsageError: an unknown name.
        PluginError: a plugin's metric that cannot be loaded.
    """
    found: Metric = registry.load("metrics", name)
    return found


def parse_metrics(text: str, flag: str = "--metrics") -> tuple[str, ...]:
    """Read a comma list of names.

    Raises:
        UsageError: an unknown name, or an empty list.
    """
    listed = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    known = registry.names("metrics")
    for name in listed:
        if name not in known:
            raise UsageError(f"{flag} {name}: no such metric{closest(name, known)}; there are {', '.join(known)}")
        registry.find("metrics", name)
    if not listed:
        raise UsageError(f"{flag}: names none of {', '.join(known)}")
    return listed


def of_values() -> dict[str, Metric]:
    """Return the metric of every number that a usable metric computes, by the number's name."""
    usable = (entry for entry in registry.entries("metrics") if not entry.problem)
    return {value: found for entry in usable for found in [registry.load_entry(entry)] for value in found.better}


def direction(value: str) -> str | None:
    """Return "lower" or "higher", whichever is better for a number, or None for an unknown one."""
    found = of_values().get(value)
    return None if found is None else found.better[value]


def knobs_of(metrics: Sequence[str], given: Mapping[str, int]) -> dict[str, int]:
    """Return the parameters of the metrics: their defaults, replaced by those in `given`."""
    defaults = {name: value for m in metrics for name, value in metric(m).knobs.items()}
    return {name: given.get(name, value) for name, value in defaults.items()}
