"""The logger that writes metrics.jsonl: one line of statistics every `run.log_every` steps, one for each score."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sagan_cli.contracts import Logger
from sagan_cli.runs import Run


class MetricsJsonl(Logger):
    """Append statistics and scores to the run's metrics.jsonl."""

    def start(self, step: int) -> None:
        """Drop the lines after `step`, which a resumed run writes again."""
        Run(self.run.path).rewind_metrics(step)

    def statistics(self, step: int, numbers: Mapping[str, float]) -> None:
        """Append a line of statistics."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        Run(self.run.path).append_metrics({"step": step, **numbers, "time": now})

    def score(self, step: int, scores: Mapping[str, Any]) -> None:
        """Append a line of scores."""
        Run(self.run.path).append_metrics({"kind": "score", "step": step, **scores})
