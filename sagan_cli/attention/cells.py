"""Where attention lies on the picture: cells to pixels, without half a pixel of shift, and regions with their outlines.

A grid of h x w cells tiles the picture: cell (i, j) covers rows i H/h to (i+1) H/h and columns j W/w to (j+1) W/w,
whatever the grid is. So keys that were pooled 2x2 lie where the positions lie that they were pooled from.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Grid = tuple[int, int]
"""(height, width) in cells."""
Floats = NDArray[np.float64]


def cell_at(x: float, y: float, picture: Grid, grid: Grid) -> int:
    """The row-major cell of a grid that covers a point; x to the right and y down in pixels, pixel 0 from 0 to 1."""
    row = min(int(y * grid[0] / picture[0]), grid[0] - 1)
    column = min(int(x * grid[1] / picture[1]), grid[1] - 1)
    return row * grid[1] + column


def centre_of(cell: int, picture: Grid, grid: Grid) -> tuple[float, float]:
    """(x, y) of a cell's centre in pixels."""
    row, column = divmod(cell, grid[1])
    return (column + 0.5) * picture[1] / grid[1], (row + 0.5) * picture[0] / grid[0]


def spread(values: NDArray[np.floating], size: Grid, *, smooth: bool) -> Floats:
    """Values of cells (h, w) -> pixels `size` of the picture that they tile.

    Args:
        smooth: a cell's value stands at its centre, half way to the next centre is their mean, and the way between is
            a smoothstep along either axis (bilinear would leave creases that look like stars); level beyond the outer
            centres. Else each cell is one colour.
    """
    rows, columns = (_weights(out, cells, smooth) for out, cells in zip(size, values.shape, strict=True))
    spread_: Floats = rows @ np.asarray(values, np.float64) @ columns.T
    return spread_


def _weights(out: int, cells: int, smooth: bool) -> Floats:
    """(out, cells): what each pixel takes from each cell along one axis."""
    place = (np.arange(out) + 0.5) * cells / out  # the pixel's centre, in cells
    weights = np.zeros((out, cells))
    pixel = np.arange(out)
    if not smooth:
        weights[pixel, np.minimum(place.astype(int), cells - 1)] = 1
        return weights
    place = np.clip(place - 0.5, 0, cells - 1)  # centres of cells lie at whole numbers now
    low = np.minimum(place.astype(int), max(cells - 2, 0))
    share = place - low
    share = share**2 * (3 - 2 * share)
    weights[pixel, low] = 1 - share
    weights[pixel, np.minimum(low + 1, cells - 1)] += share
    return weights


def heaviest(row: NDArray[np.floating], mass: float = 0.5) -> NDArray[np.bool_]:
    """(M,) probabilities -> (M,) the fewest cells that hold at least `mass` of them together."""
    order = np.argsort(-row, kind="stable")
    held = np.cumsum(row[order], dtype=np.float64)
    count = int(np.searchsorted(held, mass * held[-1] * (1 - 1e-9))) + 1
    chosen = np.zeros(len(row), bool)
    chosen[order[:count]] = True
    return chosen


def outlines(mask: NDArray[np.bool_]) -> list[Floats]:
    """(h, w) -> the borders of its true cells as closed loops (k, 2) of corners (x, y) in cells, true on the right.

    Cells that touch by a corner only are apart.
    """
    padded = np.pad(mask, 1)
    following: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for i, j in np.argwhere(mask):
        y, x = int(i), int(j)
        sides = (
            (not padded[y, x + 1], (x, y), (x + 1, y)),
            (not padded[y + 1, x + 2], (x + 1, y), (x + 1, y + 1)),
            (not padded[y + 2, x + 1], (x + 1, y + 1), (x, y + 1)),
            (not padded[y + 1, x], (x, y + 1), (x, y)),
        )
        for outer, start, end in sides:
            if outer:
                following.setdefault(start, []).append(end)
    loops = []
    while following:
        loops.append(_corners(_walk(following)))
    return loops


def inset(loop: Floats, by: tuple[float, float]) -> Floats:
    """A loop of `outlines`, moved inwards by `by` = (x, y) in cells: outlines of one region lie side by side."""
    ahead = np.sign(np.roll(loop, -1, axis=0) - loop)
    inward = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1)  # to the right of the way, as y points down
    moved: Floats = loop + (inward + np.roll(inward, 1, axis=0)) * by
    return moved


def _walk(following: dict[tuple[int, int], list[tuple[int, int]]]) -> list[tuple[int, int]]:
    """Take one closed way out of the edges; where two ways cross in a corner, turn right, around the cell at hand."""
    start = next(iter(following))
    way = [start]
    before: tuple[int, int] | None = None
    here = start
    while True:
        ends = following[here]
        choice = ends[0]
        if len(ends) > 1 and before is not None:
            dx, dy = here[0] - before[0], here[1] - before[1]
            choice = next(e for e in ends if (e[0] - here[0], e[1] - here[1]) == (-dy, dx))
        ends.remove(choice)
        if not ends:
            del following[here]
        before, here = here, choice
        if here == start:
            return way
        way.append(here)


def _corners(way: list[tuple[int, int]]) -> Floats:
    """Only the points where the way turns."""
    points = np.array(way, np.float64)
    turns = ((points - np.roll(points, 1, axis=0)) != (np.roll(points, -1, axis=0) - points)).any(axis=1)
    corners: Floats = points[turns]
    return corners
