"""The figure of an ablation: a row per variant, a panel per measure; seeds as dots, the mean as a tick, an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sagan_cli.attention.colour import DOTS, INK, MUTED, Colour
from sagan_cli.attention.drawing import Dot, Drawing, Image, Mark, Text
from sagan_cli.attention.raster import width_of

TITLE, SIZE, SMALL = 17, 13, 11
MARGIN, GAP, PANEL, ROW = 18, 34, 240, 34
FAINT: Colour = (226, 228, 232)
RADIUS = 2.6
MOST_TICKS = 5


@dataclass(frozen=True)
class Bar:
    """One variant in one panel."""

    name: str
    values: tuple[float, ...]
    """One per seed; none leaves the row empty."""
    interval: tuple[float, float] | None
    """Of the mean, or of the pooled share."""


@dataclass(frozen=True)
class Panel:
    """One measure."""

    title: str
    about: str
    """What its intervals are, and which way is up."""
    bars: Sequence[Bar]
    """The same names in the same order in all panels of a figure."""
    percent: bool = False


def curves(panels: Sequence[Panel], *, title: str, lines: Sequence[str]) -> Drawing:
    """Panels side by side under a title.

    Args:
        panels: at least one, each with at least one bar.
        lines: smaller ones under the title.
    """
    names = [bar.name for bar in panels[0].bars]
    left = MARGIN + max(width_of(name, SIZE) for name in names) + 14
    wanted = left + len(panels) * (PANEL + GAP) - GAP + MARGIN
    total = max(
        wanted, *(2 * MARGIN + width_of(line, size) for line, size in [(title, TITLE), *((t, SMALL) for t in lines)])
    )
    marks: list[Mark] = [Text(MARGIN, MARGIN + TITLE, title, TITLE)]
    top = MARGIN + TITLE + 8.0
    for line in lines:
        top += SMALL + 5
        marks.append(Text(MARGIN, top, line, SMALL, MUTED))
    top += 18
    base = top + 2 * SIZE + 14
    marks += [Text(left - 14, base + ROW * (i + 0.5) + SIZE * 0.36, n, SIZE, INK, "end") for i, n in enumerate(names)]
    for i, panel in enumerate(panels):
        marks += _panel(panel, left + i * (PANEL + GAP), top, base)
    about = "; ".join(f"{p.title}: " + ", ".join(_told(bar, p.percent) for bar in p.bars) for p in panels)
    return Drawing(total, base + ROW * len(names) + SMALL + 2 * MARGIN, tuple(marks), title, about)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers over a range, at most MOST_TICKS + 1 of them, steps of 1, 2 or 5 times a power of ten."""
    span = high - low
    if not span > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / MOST_TICKS))
    step = next(power * k for k in (1, 2, 5, 10) if span / (power * k) <= MOST_TICKS)
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _panel(panel: Panel, left: float, top: float, base: float) -> list[Mark]:
    low, high = _range(panel)
    bottom = base + ROW * len(panel.bars)

    def place(value: float) -> float:
        return left + (value - low) / (high - low) * PANEL

    marks: list[Mark] = [
        Text(left, top + SIZE, panel.title, SIZE),
        Text(left, top + SIZE + SMALL + 6, panel.about, SMALL, MUTED),
    ]
    for tick in ticks(low, high):
        marks.append(_filled(place(tick) - 0.5, base, 1, bottom - base, FAINT))
        marks.append(Text(place(tick), bottom + SMALL + 5, _number(tick, panel.percent), SMALL, MUTED, "middle"))
    for i, bar in enumerate(panel.bars):
        middle = base + ROW * (i + 0.5)
        colour = DOTS[i % len(DOTS)]
        if bar.interval is not None:
            ends = [place(min(max(end, low), high)) for end in bar.interval]
            marks.append(_filled(ends[0], middle - 1, max(ends[1] - ends[0], 1), 2, INK))
            marks += [_filled(end - 1, middle - 5, 2, 10, INK) for end in ends]
        if bar.values:
            mean = sum(bar.values) / len(bar.values)
            marks.append(_filled(place(mean) - 1.5, middle - 11, 3, 22, INK))
        # One above the other, so that equal seeds are seen.
        apart = min(9.0, (ROW - 8) / max(len(bar.values), 1))
        for n, value in enumerate(bar.values):
            offset = (n - (len(bar.values) - 1) / 2) * apart
            marks.append(Dot(place(value), middle + offset, RADIUS, colour, ""))
    return marks


def _range(panel: Panel) -> tuple[float, float]:
    seen = [v for bar in panel.bars for v in (*bar.values, *(bar.interval or ()))]
    if not seen:
        return 0.0, 1.0
    low, high = min(seen), max(seen)
    spare = (high - low) * 0.06 or max(abs(high) * 0.05, 0.5)
    low, high = low - spare, high + spare
    return (max(low, 0.0), min(high, max(1.0, *seen))) if panel.percent else (low, high)


def _told(bar: Bar, percent: bool) -> str:
    if not bar.values:
        return f"{bar.name} unknown"
    return f"{bar.name} {_number(sum(bar.values) / len(bar.values), percent)}"


def _number(value: float, percent: bool) -> str:
    if percent:
        return f"{value * 100:.3g} %"
    text = f"{value:.4g}"
    return "0" if float(text) == 0 else text


def _filled(left: float, top: float, width: float, height: float, colour: Colour) -> Image:
    return Image(left, top, width, height, np.array([[colour]], np.uint8))
