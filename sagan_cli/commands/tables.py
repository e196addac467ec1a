"""Rows as a table: padded for the eye on a terminal, separated by single tabs for `cut` in a pipe."""

from __future__ import annotations

from collections.abc import Sequence

from sagan_cli import console


def table(rows: Sequence[Sequence[str]]) -> str:
    """The rows, the first of which is the heading, as lines; all must be of one length."""
    if not console.result_on_screen():
        return "\n".join("\t".join(row) for row in rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)
