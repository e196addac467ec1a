"""Geometry of attention maps: cells to pixels without a shift of half a cell, regions and their outlines.

A grid of h x w cells tiles the image: cell (i, j) covers rows i H/h to (i+1) H/h and columns j W/w to (j+1) W/w. A key
that was pooled from 2x2 positions therefore covers these positions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Grid = tuple[int, int]
"""(height, width) in cells."""
Point = tuple[float, float]
"""(x, y) in pixels of the image; pixel 0 lies between 0 and 1."""
Floats = NDArray[np.float64]


def cell_at(x: float, y: float, image: Grid, grid: Grid) -> int:
    """Return the row-major cell of a grid that covers a point; `image` is (height, width) in pixels."""
    row = min(int(y * grid[0] / image[0]), grid[0] - 1)
    column = min(int(x * grid[1] / image[1]), grid[1] - 1)
    return row * grid[1] + column


def centre_of(cell: int, image: Grid, grid: Grid) -> Point:
    """Return the centre of a cell."""
    row, column = divmod(cell, grid[1])
    return (column + 0.5) * image[1] / grid[1], (row + 0.5) * image[0] / grid[0]


def spread(values: NDArray[np.floating], size: Grid, *, smooth: bool) -> Floats:
    """Resize values of cells (h, w) to the pixels `size` of the image that they tile.

    Args:
        smooth: interpolate between cell centres by a smoothstep along each axis (bilinear interpolation has visible
            creases), constant beyond the outer centres; otherwise each cell has one value.
    """
    rows, columns = (_weights(out, cells, smooth) for out, cells in zip(size, values.shape, strict=True))
    pixels: Floats = rows @ np.asarray(values, np.float64) @ columns.T
    return pixels


def _weights(out: int, cells: int, smooth: bool) -> Floats:
    """Return (out, cells): the weight of each cell in each pixel along one axis."""
    centre = (np.arange(out) + 0.5) * cells / out  # of each pixel, in cells
    weights = np.zeros((out, cells))
    pixel = np.arange(out)
    if not smooth:
        weights[pixel, np.minimum(centre.astype(int), cells - 1)] = 1
        return weights
    centre = np.clip(centre - 0.5, 0, cells - 1)  # now cell centres are whole numbers
    low = np.minimum(centre.astype(int), max(cells - 2, 0))
    share = centre - low
    share = share**2 * (3 - 2 * share)
    weights[pixel, low] = 1 - share
    weights[pixel, np.minimum(low + 1, cells - 1)] += share
    return weights


def heaviest(row: NDArray[np.floating], mass: float = 0.5) -> NDArray[np.bool_]:
    """Return a mask (M,) of the fewest cells whose probabilities (M,) sum to at least `mass`."""
    order = np.argsort(-row, kind="stable")
    total = np.cumsum(row[order], dtype=np.float64)
    count = int(np.searchsorted(total, mass * total[-1] * (1 - 1e-9))) + 1
    chosen = np.zeros(len(row), bool)
    chosen[order[:count]] = True
    return chosen


def outlines(mask: NDArray[np.bool_]) -> list[Floats]:
    """Return the borders of the true cells of (h, w) as closed loops (k, 2) of corners (x, y), true on the right.

    Cells that touch only at a corner are separate.
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
    """Move a loop of `outlines` inwards by `by` = (x, y) in cells."""
    ahead = np.sign(np.roll(loop, -1, axis=0) - loop)
    inward = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1)  # to the right, as y points down
    moved: Floats = loop + (inward + np.roll(inward, 1, axis=0)) * by
    return moved


def _walk(following: dict[tuple[int, int], list[tuple[int, int]]]) -> list[tuple[int, int]]:
    """Remove one closed loop from the edges; where two loops share a corner, turn right and stay at the same cell."""
    start = next(iter(following))
    loop = [start]
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
            return loop
        loop.append(here)


def _corners(loop: list[tuple[int, int]]) -> Floats:
    """Return the points where the loop turns."""
    points = np.array(loop, np.float64)
    turns = ((points - np.roll(points, 1, axis=0)) != (np.roll(points, -1, axis=0) - points)).any(axis=1)
    corners: Floats = points[turns]
    return corners
