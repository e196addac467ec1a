"""The figure of an ablation: a row per variant, a panel per measure; seeds as dots, the mean as a tick, an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagan_cli.attention import plotting
from sagan_cli.attention.plotting import INK, MUTED, POINT, Plot, add_text, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE, SIZE, SMALL = 16, 12, 10
MARGIN, GAP, PANEL, ROW = 18, 34, 240, 34
FAINT = "#e2e4e8"
RADIUS = 2.8


@dataclass(frozen=True)
class Bar:
    """One variant in one panel."""

    name: str
    values: tuple[float, ...]
    """One per seed; empty where there is none."""
    interval: tuple[float, float] | None
    """Of the mean, or of the pooled share."""


@dataclass(frozen=True)
class Panel:
    """One measure."""

    title: str
    about: str
    """What its intervals are, and which direction is better."""
    bars: Sequence[Bar]
    """The same names in the same order in all panels of a figure."""
    percent: bool = False


def curves(panels: Sequence[Panel], *, title: str, lines: Sequence[str]) -> Plot:
    """Draw panels side by side under a title.

    Args:
        panels: at least one, each with at least one bar.
        lines: smaller text under the title.
    """
    names = [bar.name for bar in panels[0].bars]
    left = math.ceil(MARGIN + max(text_width(name, SIZE) for name in names) + 14)
    pitch = math.ceil(max(PANEL, *(text_width(panel.about, SMALL) for panel in panels))) + GAP
    head = max(text_width(title, TITLE), *(text_width(line, SMALL) for line in lines))
    width = max(left + len(panels) * pitch - GAP + MARGIN, math.ceil(head) + 2 * MARGIN)
    top = MARGIN + TITLE + 8 + len(lines) * (SMALL + 5) + 18
    base = top + 2 * SIZE + 14
    height = ROW * len(names)
    with plotting.figure_style():
        figure = plotting.new_figure(width, base + height + SMALL + 2 * MARGIN)
        add_text(figure, MARGIN, MARGIN + TITLE, title, TITLE)
        for n, line in enumerate(lines, 1):
            add_text(figure, MARGIN, MARGIN + TITLE + 8 + n * (SMALL + 5), line, SMALL, MUTED)
        for i, name in enumerate(names):
            add_text(figure, left - 14, base + ROW * (i + 0.5) + SIZE * 0.36, name, SIZE, ha="right")
        for i, panel in enumerate(panels):
            start = left + i * pitch
            add_text(figure, start, top + SIZE, panel.title, SIZE)
            add_text(figure, start, top + SIZE + SMALL + 6, panel.about, SMALL, MUTED)
            _draw(plotting.add_axes(figure, start, base, PANEL, height), panel)
    about = "; ".join(f"{p.title}: " + ", ".join(_described(bar, p.percent) for bar in p.bars) for p in panels)
    return Plot(figure, title, about)


def _draw(axes: Axes, panel: Panel) -> None:
    """Draw one panel; row i is at y = i."""
    axes.spines[:].set_visible(False)
    axes.set(xlim=_range(panel), ylim=(len(panel.bars) - 0.5, -0.5), yticks=[], axisbelow=True)
    axes.locator_params("x", nbins=5, steps=[1, 2, 5, 10])
    axes.xaxis.set_major_formatter(lambda value, _: _number(value, panel.percent))
    axes.tick_params(length=0, labelsize=SMALL * POINT, labelcolor=MUTED, pad=4 * POINT)
    axes.grid(axis="x", color=FAINT, linewidth=POINT)
    for i, bar in enumerate(panel.bars):
        if bar.interval is not None:
            axes.plot(bar.interval, (i, i), "|-", color=INK, lw=2 * POINT, ms=10 * POINT, mew=2 * POINT, clip_on=False)
        if bar.values:
            axes.plot(sum(bar.values) / len(bar.values), i, "|", color=INK, ms=22 * POINT, mew=3 * POINT)
        # One above the other, so that seeds of equal values are visible.
        apart = min(9.0, (ROW - 8) / max(len(bar.values), 1)) / ROW
        heights = [i + (n - (len(bar.values) - 1) / 2) * apart for n in range(len(bar.values))]
        colour = plotting.QUERY_COLOURS[i % len(plotting.QUERY_COLOURS)]
        plotting.add_markers(axes, bar.values, heights, RADIUS, colour)


def _range(panel: Panel) -> tuple[float, float]:
    seen = [v for bar in panel.bars for v in (*bar.values, *(bar.interval or ()))]
    if not seen:
        return 0.0, 1.0
    low, high = min(seen), max(seen)
    spare = (high - low) * 0.06 or max(abs(high) * 0.05, 0.5)
    low, high = low - spare, high + spare
    return (max(low, 0.0), min(high, max(1.0, *seen))) if panel.percent else (low, high)


def _described(bar: Bar, percent: bool) -> str:
    if not bar.values:
        return f"{bar.name} unknown"
    return f"{bar.name} {_number(sum(bar.values) / len(bar.values), percent)}"


def _number(value: float, percent: bool) -> str:
    if percent:
        return f"{value * 100:.3g} %"
    text = f"{value:.4g}"
    return "0" if float(text) == 0 else text
