"""The metrics by name: the built-in ones, each a file of this package, and those of plugins.

To add a metric, write a file with a `contracts.Metric` and add its row to `plugins/builtins.py`. These files import
torch and numpy only inside functions, so that names and directions are available quickly.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from sagan_cli.contracts import Metric
from sagan_cli.errors import PluginError, UsageError, closest
from sagan_cli.plugins import registry


@functools.cache
def builtin_metrics() -> dict[str, Metric]:
    """Return the built-in metrics by the name that `--metrics` accepts."""
    return {point.name: registry.load("metrics", point.name) for point in registry.BUILTINS["metrics"]}


def parse_metrics(text: str, flag: str = "--metrics") -> tuple[str, ...]:
    """Return the metrics of a comma-separated list, each once.

    Raises:
        UsageError: a name is unknown, or the list is empty.
        PluginError: a plugin's metric cannot be imported.
    """
    listed = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not listed:
        raise UsageError(f"{flag}: the list is empty; there are {', '.join(registry.names('metrics'))}")
    known = registry.names("metrics")
    for name in listed:
        if name not in known and flag != "--metrics":  # `registry` names the usual flag
            raise UsageError(f"{flag} {name}: no such metric{closest(name, known)}; there are {', '.join(known)}")
        registry.load("metrics", name)
    return listed


def metric_of(value: str) -> Metric | None:
    """Return the metric that computes a value, such as `prc` for "recall"; None if no installed metric does."""
    for metric in builtin_metrics().values():
        if value in metric.better:
            return metric
    found = (_usable(name) for name in registry.names("metrics") if name not in builtin_metrics())
    return next((metric for metric in found if metric is not None and value in metric.better), None)


def _usable(name: str) -> Metric | None:
    """Return a metric, or None for a plugin that cannot be imported, which `sagan plugins --check` reports."""
    try:
        return builtin_metrics().get(name) or registry.load("metrics", name)
    except PluginError:
        return None


def value_names() -> list[str]:
    """Return the names of all values of built-in metrics."""
    return [value for metric in builtin_metrics().values() for value in metric.better]


def require_knobs(knobs: Mapping[str, int]) -> None:
    """Check the names and values of parameters of metrics.

    Raises:
        UsageError: no metric has a parameter, or a value is not positive.
    """
    known = {knob for name in registry.names("metrics") if (m := _usable(name)) is not None for knob in m.knobs}
    for name, value in knobs.items():
        if name not in known:
            raise UsageError(
                f"--knob {name}: no metric has it{closest(name, known)}; there are {', '.join(sorted(known))}"
            )
        if value < 1:
            raise UsageError(f"--knob {name}={value}: write a whole number above 0")


def known_knobs(metrics: Mapping[str, Metric]) -> dict[str, int]:
    """Return the default knobs of the built-in metrics and of `metrics`."""
    return {knob: value for m in (*builtin_metrics().values(), *metrics.values()) for knob, value in m.knobs.items()}
