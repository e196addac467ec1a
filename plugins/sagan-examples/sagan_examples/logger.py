"""The logger `csv`: writes the statistics of a run to metrics.csv, one column for each name."""

from __future__ import annotations

import csv
from collections.abc import Mapping

from sagan_cli.contracts import Logger


class CsvLogger(Logger):
    """Write metrics.csv in the run directory; a resumed run replaces it."""

    def start(self, step: int) -> None:
        """Start without rows."""
        self.rows: list[dict[str, float]] = []

    def statistics(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add a row and write the file."""
        self.rows.append({"step": step, **numbers})
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        with (self.run.path / "metrics.csv").open("w", newline="", encoding="utf-8") as f:
            writer = csv.DictWriter(f, columns)
            writer.writeheader()
            writer.writerows(self.rows)
