"""Create the loggers of a run and send them the events of training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sagan_cli.contracts import Logger, RunInfo
from sagan_cli.errors import SaganError
from sagan_cli.plugins import registry

ALWAYS = ("progress", "jsonl")
"""Loggers of every run."""


class Events:
    """Sends each event to all loggers: `events.grid(step, path)` calls `grid(step, path)` of each.

    A plugin's logger that raises is dropped with one warning; an error of a built-in one ends training.
    """

    def __init__(self, loggers: Iterable[tuple[str, Logger, bool]], warn: Callable[[str], None]) -> None:
        """Take loggers as (name, logger, whether it is built in)."""
        self._loggers, self._warn = list(loggers), warn

    def send(self, event: str, *values: Any) -> None:
        """Call the method `event` of every logger."""
        for entry in list(self._loggers):
            name, logger, builtin = entry
            try:
                getattr(logger, event)(*values)
            except Exception as e:
                if builtin:
                    raise
                self._loggers.remove(entry)
                self._warn(f"--logger {name}: {type(e).__name__}: {e}; training continues without it")


def open_events(names: str, run: RunInfo, warn: Callable[[str], None], *, leads: bool = True) -> Events:
    """Create the loggers of a run: the usual ones and those of `--logger`; none on processes that do not lead.

    Raises:
        UsageError: an unknown name.
        PluginError: a plugin's logger that cannot be created.
    """
    chosen = dict.fromkeys((*ALWAYS, *(n.strip() for n in names.split(",") if n.strip()))) if leads else {}
    loggers = []
    for name in chosen:
        entry = registry.find("loggers", name)
        try:
            loggers.append((name, registry.load_entry(entry)(run), entry.builtin))
        except SaganError:
            raise
        except Exception as e:
            if entry.builtin:
                raise
            raise registry.failure(entry, e) from e
    return Events(loggers, warn)
