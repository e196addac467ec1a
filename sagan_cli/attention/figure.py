"""The still figure (Zhang et al. 2019, figures 1 and 5): pictures with query points, beside them where each looks."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass

from sagan_cli.attention.colour import DOTS, INK, MUTED, scale
from sagan_cli.attention.drawing import Drawing, Image, Mark, Outline, Text
from sagan_cli.attention.panels import CAPTION, SMALL, Row, Style, panels
from sagan_cli.attention.raster import width_of
from sagan_cli.attention.scene import Layer

PANEL = 192
"""The longer side of a picture at least, in pixels."""
MOST_POINTS = len(DOTS)
MARGIN, GAP, ROW_GAP = 16, 12, 14
TITLE, LEADING = 17, 17
_BAR = 96


@dataclass(frozen=True)
class _Line:
    words: str
    size: float


def figure(rows: Sequence[Row], *, title: str, lines: Sequence[str], style: Style) -> Drawing:
    """Rows of panels under a title, a legend below.

    Args:
        rows: pictures of one size; at least one row, each with at least one point.
        lines: smaller ones under the title; long ones are wrapped.
    """
    height, width = rows[0].scene.pictures.shape[1:3]
    factor = max(1, math.ceil(PANEL / max(height, width)))
    panel = height * factor, width * factor
    columns = 1 + max(len(row.points) for row in rows)
    total = max(2 * MARGIN + columns * (panel[1] + GAP) - GAP, 2 * MARGIN + 420)
    across = total - 2 * MARGIN
    head = [*_wrapped(title, TITLE, across), *(part for line in lines for part in _wrapped(line, SMALL, across))]
    marks: list[Mark] = []
    top = float(MARGIN)
    for line in head:
        marks.append(Text(MARGIN, top + line.size, line.words, line.size, INK if line.size == TITLE else MUTED))
        top += round(line.size * 1.4)
    top += 10
    for row in rows:
        marks += panels(row, MARGIN, top, panel, GAP, style)
        top += panel[0] + CAPTION + ROW_GAP
    outlined = any(isinstance(mark, Outline) for mark in marks)
    words = legend(style, {row.contrasted(style) for row in rows}, outlined)
    below = _legend(words, top, across)
    marks += below
    top = max(mark.y for mark in below if isinstance(mark, Text))
    about = "; ".join([*lines, *(row.caption for row in rows), words])
    return Drawing(total, top + MARGIN, tuple(marks), title, about)


def describe(layer: Layer) -> str:
    """`G 16: 16x16 points look at 8x8 places; ...`, the facts of a layer in a line."""
    query, key = (f"{h}x{w}" for h, w in (layer.query_grid, layer.key_grid))
    gamma = "" if layer.gamma is None else f"gamma {layer.gamma:.3g}, "
    return (
        f"{layer.key}: {query} points look at {key} places; {gamma}|gamma o| / |x| {layer.strength.mean():.2g}, "
        f"entropy {layer.entropy.mean():.2f} of 1, mean distance {layer.distance.mean():.2f} of the picture"
    )


def legend(style: Style, contrasts: Set[bool], outlined: bool) -> str:
    """What the marks mean; `contrasts` says whether rows are drawn from the maps' least value, from 0, or either."""
    zero, least = "from none to its own maximum", "from its own least to its own largest value"
    ends = f"{zero}, or where a range stands under it {least}" if len(contrasts) > 1 else zero
    if contrasts == {True}:
        ends = least
    beneath = "" if style.plain else ", over the darkened picture"
    region = (
        " Outlines on the picture: the smallest region with half of a point's attention, where that is at most a "
        "quarter of the picture."
    )
    return (
        f"Each numbered point asks; its map shows where it looks, {ends}{beneath}. Below it, in shares of all "
        f"attention, these values, and that of attention spread evenly.{region if outlined else ''}"
    )


def _legend(words: str, top: float, across: float) -> list[Mark]:
    indent = width_of("less", SMALL) + 6
    marks: list[Mark] = [
        Text(MARGIN, top + 11, "less", SMALL, MUTED),
        Image(MARGIN + indent, top + 1, _BAR, 11, scale()[None]),
        Text(MARGIN + indent + _BAR + 6, top + 11, "more", SMALL, MUTED),
    ]
    indent += _BAR + 54
    for n, line in enumerate(_wrapped(words, SMALL, across - indent)):
        marks.append(Text(MARGIN + indent, top + 11 + n * LEADING, line.words, SMALL, MUTED))
    return marks


def _wrapped(text: str, size: float, width: float) -> list[_Line]:
    """Lines of at most `width` pixels; 4 % are kept free for fonts that run wider."""
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and width_of(longer, size) > 0.96 * width:
            lines.append(line)
            longer = word
        line = longer
    return [_Line(words, size) for words in [*lines, line] if words]
