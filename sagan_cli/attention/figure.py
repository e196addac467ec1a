"""The static figure (Zhang et al. 2019, figures 1 and 5): images with numbered queries, and their maps."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sagan_cli.attention import plotting
from sagan_cli.attention.attention_data import AttentionData, Key, LayerAttention
from sagan_cli.attention.cells import Point, cell_at, heaviest, inset, outlines, spread
from sagan_cli.attention.plotting import (
    INK,
    MUTED,
    POINT,
    QUERY_COLOURS,
    Plot,
    add_axes,
    add_text,
    colour_of,
    text_width,
    wrapped,
)
from sagan_cli.attention.query_points import Points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL = 192
"""Least length in pixels of the longer side of a panel."""
MARGIN, GAP, ROW_GAP = 16, 12, 14
CAPTION = 20
"""Height of the text under a panel."""
TITLE, SMALL, LEADING = 16, 11, 16
FRAME, LINE, SEAM, RADIUS = 3, 1.6, 0.9, 7
COLOUR_BAR = 96
HALF, QUARTER = 0.5, 0.25
"""An outlined region holds this share of the attention, and takes at most this share of the cells."""
FLAT = 2.0
"""`auto` draws the maps of a row from their minimum where the median maximum is below FLAT times uniform attention."""
DIM = 0.42
"""Brightness of the image under a map."""


@dataclass(frozen=True)
class Style:
    """How maps are drawn."""

    cells: bool = False
    """Each key's cell in one colour, not smoothed."""
    plain: bool = False
    """The map alone, without the darkened image under it."""
    scale: str = "auto"
    """Where the dark end is: `zero`, `range` (the map's own minimum) or `auto`."""


@dataclass(frozen=True)
class Row:
    """One image with the maps of one layer."""

    data: AttentionData
    layer: LayerAttention
    index: int
    """Of the image."""
    points: tuple[Point, ...]
    caption: str

    def map_at(self, point: Point) -> NDArray[np.float32]:
        """Return the map (kh, kw) of the query cell at a point."""
        cell = cell_at(*point, self.data.size, self.layer.query_grid)
        attention: NDArray[np.float32] = self.layer.maps[self.index, cell].reshape(self.layer.key_grid)
        return attention

    def contrasted(self, style: Style) -> bool:
        """Return whether the maps are drawn from their own minimum."""
        if style.scale != "auto":
            return style.scale == "range"
        peaks = [float(self.map_at(point).max()) for point in self.points]
        return bool(np.median(peaks) * self.layer.maps.shape[2] < FLAT)


def figure(rows: Sequence[Row], *, title: str, lines: Sequence[str], style: Style) -> Plot:
    """Draw rows of panels under a title, and a legend below them.

    Args:
        rows: images of one size; at least one row, each with at least one point.
        lines: smaller text under the title; long lines are wrapped.
    """
    height, width = rows[0].data.size
    factor = max(1, math.ceil(PANEL / max(height, width)))
    panel = height * factor, width * factor
    columns = 1 + max(len(row.points) for row in rows)
    total = max(2 * MARGIN + columns * (panel[1] + GAP) - GAP, 2 * MARGIN + 420)
    across = total - 2 * MARGIN
    titles = wrapped(title, TITLE, across)
    subtitles = [part for line in lines for part in wrapped(line, SMALL, across)]
    first_row = MARGIN + len(titles) * round(1.4 * TITLE) + len(subtitles) * LEADING + 10
    row_height = panel[0] + CAPTION + ROW_GAP
    outlined = any(_regions(row.map_at(point), 0, panel) for row in rows for point in row.points)
    words = legend(style, {row.contrasted(style) for row in rows}, outlined)
    bar = MARGIN + math.ceil(text_width("less", SMALL)) + 6
    indent = bar + COLOUR_BAR + 54
    legend_lines = wrapped(words, SMALL, total - MARGIN - indent)
    bottom = first_row + len(rows) * row_height
    with plotting.figure_style():
        drawn = plotting.new_figure(total, bottom + LEADING * len(legend_lines) + MARGIN)
        for n, line in enumerate(titles):
            add_text(drawn, MARGIN, MARGIN + TITLE + n * round(1.4 * TITLE), line, TITLE)
        for n, line in enumerate(subtitles):
            add_text(drawn, MARGIN, first_row - 14 - (len(subtitles) - 1 - n) * LEADING, line, SMALL, MUTED)
        for i, row in enumerate(rows):
            top = first_row + i * row_height
            for j, caption in enumerate([row.caption, *_values(row, style)]):
                left = MARGIN + j * (panel[1] + GAP)
                axes = add_axes(drawn, left, top, panel[1], panel[0])
                _draw_panel(axes, row, j - 1, panel, style)
                text = plotting.shortened(caption, SMALL, panel[1])
                add_text(drawn, left, top + panel[0] + 17, text, SMALL, MUTED if j else INK)
        add_text(drawn, MARGIN, bottom + 11, "less", SMALL, MUTED)
        axes = add_axes(drawn, bar, bottom + 1, COLOUR_BAR, 11)
        axes.imshow(plotting.table()[None], aspect="auto", interpolation="none")
        axes.axis("off")
        add_text(drawn, bar + COLOUR_BAR + 6, bottom + 11, "more", SMALL, MUTED)
        for n, line in enumerate(legend_lines):
            add_text(drawn, indent, bottom + 11 + n * LEADING, line, SMALL, MUTED)
    return Plot(drawn, title, "; ".join([*lines, *(row.caption for row in rows), words]))


def rows_of(data: AttentionData, keys: Sequence[Key], points: Points) -> list[Row]:
    """Return one row for each image and layer."""
    return [
        Row(data, data.layer(key), n, points[n], caption if len(keys) == 1 else f"{caption}, {key[0]} {key[1]}")
        for n, caption in enumerate(data.captions)
        for key in keys
    ]


def rows_by_step(checkpoints: Sequence[AttentionData], keys: Sequence[Key], points: Points) -> list[Row]:
    """Return one row for each checkpoint, for each layer of each image."""
    rows = []
    for n in range(len(checkpoints[0].captions)):
        for key in keys:
            for data in checkpoints:
                layer = data.layer(key)
                caption = f"step {data.step or 0:,}, adds {percent(float(layer.strength[n]))}"
                rows.append(Row(data, layer, n, points[n], f"{layer.key}: {caption}" if len(keys) > 1 else caption))
    return rows


def describe(layer: LayerAttention) -> str:
    """Return the properties of a layer in one line."""
    query, key = (f"{h}x{w}" for h, w in (layer.query_grid, layer.key_grid))
    gamma = "" if layer.gamma is None else f"gamma {layer.gamma:.3g}, "
    return (
        f"{layer.key}: {query} queries, {key} keys; {gamma}|gamma o| / |x| {layer.strength.mean():.2g}, "
        f"entropy {layer.entropy.mean():.2f} of 1, mean distance {layer.distance.mean():.2f} of the longer side"
    )


def legend(style: Style, contrasts: Set[bool], outlined: bool) -> str:
    """Explain the marks; `contrasts` holds whether rows are drawn from the maps' minimum (True), from 0, or both."""
    zero, least = "from 0 to its own maximum", "from its own minimum to its own maximum"
    ends = f"{zero}, or {least} where a range is given under it" if len(contrasts) > 1 else zero
    if contrasts == {True}:
        ends = least
    beneath = "" if style.plain else ", over the darkened image"
    region = (
        " Outlines on the image: the smallest region with half of a query's attention, where that is at most a "
        "quarter of the image."
    )
    return (
        f"Each number is a query; the map in its colour shows the attention of that query to each part of the image, "
        f"{ends}{beneath}. Under the map: these values as shares of all attention, and the share under uniform "
        f"attention.{region if outlined else ''}"
    )


def coloured(
    attention: NDArray[np.float32], image: NDArray[np.uint8], panel: tuple[int, int], style: Style, contrast: bool
) -> NDArray[np.uint8]:
    """Return a map (kh, kw) over its image (h, w, 3) as pixels (*panel, 3); `panel` is a multiple of the image."""
    least = float(attention.min()) if contrast else 0.0
    most = float(attention.max())
    share = (spread(attention, panel, smooth=not style.cells) - least) / max(most - least, 1e-12)
    if style.plain:
        return colour_of(share)
    gray = image @ np.array([0.2126, 0.7152, 0.0722]) * DIM
    for axis in (0, 1):
        gray = gray.repeat(panel[axis] // image.shape[axis], axis=axis)
    # From half of the maximum on, the map is opaque; below, the image shows through.
    cover = np.sqrt(np.clip(2 * share, 0, 1))[..., None]
    mixed: NDArray[np.uint8] = np.rint(gray[..., None] * (1 - cover) + colour_of(share) * cover).astype(np.uint8)
    return mixed


def percent(share: float, digits: int = 2) -> str:
    """0.0156 -> `1.6 %`, 0.966 -> `97 %`."""
    return f"{share * 100:.{digits}g} %" if share < 0.995 else f"{share * 100:.0f} %"


def on_white(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert (h, w, 1|3|4) to (h, w, 3); transparency becomes white."""
    if image.shape[2] == 4:
        alpha = image[..., 3:].astype(np.float64) / 255
        opaque: NDArray[np.uint8] = np.rint(image[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
        return opaque
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def _draw_panel(axes: Axes, row: Row, query: int, panel: tuple[int, int], style: Style) -> None:
    """Draw the map of a query, or for query -1 the image with all queries and their regions, in pixels of the image."""
    image = on_white(row.data.images[row.index])
    height, width = image.shape[:2]
    if query < 0:
        axes.axis("off")
        pixels = image
        for n, point in enumerate(row.points):
            for corners in _regions(row.map_at(point), n, panel):
                plotting.add_outline(axes, corners * (width, height), QUERY_COLOURS[n], LINE, SEAM)
    else:
        # The image covers the inner half of the frame.
        axes.spines[:].set(color=QUERY_COLOURS[query], linewidth=2 * FRAME * POINT, zorder=0)
        pixels = coloured(row.map_at(row.points[query]), image, panel, style, row.contrasted(style))
    axes.set(xticks=[], yticks=[])
    axes.imshow(pixels, extent=(0, width, height, 0), aspect="auto", interpolation="none", zorder=1)
    for n, point in enumerate(row.points):
        if query in (-1, n):
            _draw_query(axes, n, point)


def _draw_query(axes: Axes, n: int, point: Point) -> None:
    plotting.add_markers(axes, [point[0]], [point[1]], RADIUS, QUERY_COLOURS[n])
    axes.annotate(
        str(n + 1), point, ha="center", va="center_baseline", fontsize=10 * POINT, annotation_clip=False, zorder=4,
        color=plotting.readable_on(QUERY_COLOURS[n]),
    )  # fmt: skip


def _values(row: Row, style: Style) -> list[str]:
    """Return the text under each map of a row."""
    captions = []
    for attention in map(row.map_at, row.points):
        most, uniform = float(attention.max()), 1 / attention.size
        if row.contrasted(style):
            least = percent(float(attention.min()), 3).removesuffix(" %")
            captions.append(f"{least} to {percent(most, 3)}, even {percent(uniform, 3)}")
        else:
            captions.append(f"max {percent(most)}, even {percent(uniform)}")
    return captions


def _regions(attention: NDArray[np.float32], n: int, panel: tuple[int, int]) -> list[NDArray[np.float64]]:
    """Return the outlines of query n's region, corners (k, 2) as shares of the image's width and height."""
    mask = heaviest(attention.ravel(), HALF).reshape(attention.shape)
    if mask.mean() > QUARTER:
        return []
    grid = np.array(attention.shape[::-1])
    cell = panel[1] / grid[0], panel[0] / grid[1]
    # Each query has its own distance from the border of the cells, so that lines around the same cells do not overlap.
    step = min(1 + 2.2 * n, 0.4 * min(cell))
    return [inset(loop, (step / cell[0], step / cell[1])) / grid for loop in outlines(mask)]
