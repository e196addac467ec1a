"""One row of the figure: the picture with its points and their regions, then one attention map per point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sagan_cli.attention.cells import cell_at, heaviest, inset, outlines, spread
from sagan_cli.attention.colour import DOTS, MUTED, tint
from sagan_cli.attention.drawing import Dot, Frame, Image, Mark, Outline, Point, Text
from sagan_cli.attention.raster import width_of
from sagan_cli.attention.scene import Layer, Scene

CAPTION = 20
"""Room for the words under a panel."""
SMALL = 12.5
FRAME, LINE, RADIUS = 3, 1.6, 7
HALF, QUARTER = 0.5, 0.25
"""An outlined region holds this share of the attention, and takes at most this share of the cells."""
FLAT = 2.0
"""Maps whose largest value is below so many times that of even attention show nothing when they start at 0."""
SCALES = ("auto", "zero", "range")
"""Where a map's dark end is: at 0, at the map's own least value (which shows faint differences, and makes them look
large), or there where the row's maps are flat."""
DIM = 0.42
"""Brightness of the picture under a map."""


@dataclass(frozen=True)
class Style:
    """How maps are drawn."""

    cells: bool = False
    """Each key's cell in one colour, not smoothed."""
    plain: bool = False
    """The map alone, without the darkened picture under it."""
    scale: str = "auto"
    """One of SCALES."""


@dataclass(frozen=True)
class Row:
    """One picture of a scene with one layer's maps."""

    scene: Scene
    layer: Layer
    picture: int
    points: tuple[Point, ...]
    """(x, y) in pixels of the picture; pixel 0 lies between 0 and 1."""
    caption: str

    def map_at(self, point: Point) -> NDArray[np.float32]:
        """(kh, kw): where the query cell under a point looks."""
        height, width = self.scene.pictures.shape[1:3]
        cell = cell_at(*point, (height, width), self.layer.query_grid)
        attention: NDArray[np.float32] = self.layer.maps[self.picture, cell].reshape(self.layer.key_grid)
        return attention

    def contrasted(self, style: Style) -> bool:
        """Whether the maps are drawn from their own least value."""
        if style.scale != "auto":
            return style.scale == "range"
        peaks = [float(self.map_at(point).max()) for point in self.points]
        return bool(np.median(peaks) * self.layer.maps.shape[2] < FLAT)


def panels(row: Row, left: float, top: float, panel: tuple[int, int], gap: float, style: Style) -> list[Mark]:
    """The marks of one row; `panel` is (height, width) of each of its parts."""
    picture = on_white(row.scene.pictures[row.picture])
    down, across = panel[0] / picture.shape[0], panel[1] / picture.shape[1]
    maps = [row.map_at(point) for point in row.points]
    places = [(x * across, y * down) for x, y in row.points]
    contrast = row.contrasted(style)
    marks: list[Mark] = [Image(left, top, panel[1], panel[0], picture)]
    for n, attention in enumerate(maps):
        marks += _region(attention, n, left, top, panel)
    marks += [_dot(n, left, top, place) for n, place in enumerate(places)]
    marks.append(Text(left, top + panel[0] + 17, _short(row.caption, panel[1]), SMALL))
    for n, (place, attention) in enumerate(zip(places, maps, strict=True)):
        left += panel[1] + gap
        marks.append(Frame(left, top, panel[1], panel[0], DOTS[n], FRAME))
        marks.append(Image(left, top, panel[1], panel[0], coloured(attention, picture, panel, style, contrast)))
        marks.append(_dot(n, left, top, place))
        marks.append(Text(left, top + panel[0] + 17, _short(_values(attention, contrast), panel[1]), SMALL, MUTED))
    return marks


def coloured(
    attention: NDArray[np.float32], picture: NDArray[np.uint8], panel: tuple[int, int], style: Style, contrast: bool
) -> NDArray[np.uint8]:
    """A map (kh, kw) over its picture (h, w, 3) as pixels (*panel, 3); `panel` is whole multiples of the picture."""
    least = float(attention.min()) if contrast else 0.0
    most = float(attention.max())
    share = (spread(attention, panel, smooth=not style.cells) - least) / max(most - least, 1e-12)
    if style.plain:
        return tint(share)
    gray = picture @ np.array([0.2126, 0.7152, 0.0722]) * DIM
    for axis in (0, 1):
        gray = gray.repeat(panel[axis] // picture.shape[axis], axis=axis)
    # Half of the largest value hides the picture; less lets it through, so that dark means little attention.
    cover = np.sqrt(np.clip(2 * share, 0, 1))[..., None]
    mixed: NDArray[np.uint8] = np.rint(gray[..., None] * (1 - cover) + tint(share) * cover).astype(np.uint8)
    return mixed


def percent(share: float, digits: int = 2) -> str:
    """0.0156 -> `1.6 %`, 0.966 -> `97 %`."""
    return f"{share * 100:.{digits}g} %" if share < 0.995 else f"{share * 100:.0f} %"


def on_white(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(h, w, 1|3|4) -> (h, w, 3); transparency shows white."""
    if picture.shape[2] == 4:
        alpha = picture[..., 3:].astype(np.float64) / 255
        opaque: NDArray[np.uint8] = np.rint(picture[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
        return opaque
    return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture


def _values(attention: NDArray[np.float32], contrast: bool) -> str:
    most = float(attention.max())
    if contrast:
        least, even = percent(float(attention.min()), 3), percent(1 / attention.size, 3)
        return f"{least.removesuffix(' %')} to {percent(most, 3)}, even {even}"
    return f"max {percent(most)}, even {percent(1 / attention.size)}"


def _region(attention: NDArray[np.float32], n: int, left: float, top: float, panel: tuple[int, int]) -> list[Mark]:
    mask = heaviest(attention.ravel(), HALF)
    if mask.mean() > QUARTER:
        return []
    cell = panel[1] / attention.shape[1], panel[0] / attention.shape[0]
    # Each point keeps its own distance from the border of the cells: where regions coincide, every line is seen.
    step = min(1 + 2.2 * n, 0.4 * min(cell))
    by = step / cell[0], step / cell[1]
    return [
        Outline(tuple((left + x * cell[0], top + y * cell[1]) for x, y in inset(loop, by)), DOTS[n], LINE)
        for loop in outlines(mask.reshape(attention.shape))
    ]


def _dot(n: int, left: float, top: float, place: Point) -> Dot:
    return Dot(left + place[0], top + place[1], RADIUS, DOTS[n], str(n + 1))


def _short(text: str, width: float) -> str:
    """Words cut to the width of a panel."""
    if width_of(text, SMALL) <= width:
        return text
    while text and width_of(text + "...", SMALL) > width:
        text = text[:-1]
    return text.rstrip() + "..."
