"""Choose the query points of an image: representative ones by default, or random ones. Both are deterministic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sagan_cli.attention.attention_data import AttentionData, Key
from sagan_cli.attention.cells import Grid, Point, centre_of

Points = Sequence[tuple[Point, ...]]
"""The query points of each image."""
CANDIDATES = 1024
"""Number of cells that are compared; a finer grid is thinned out."""
ROUNDS = 10


def representative_points(data: AttentionData, key: Key, count: int) -> Points:
    """Return the centres of `representative` cells of each image, for one layer."""
    grid = data.layer(key).query_grid
    return _centres(data, grid, [representative(maps, grid, count) for maps in data.layer(key).maps])


def random_points(data: AttentionData, key: Key, count: int, seed: int) -> Points:
    """Return the centres of random cells of each image: a function of the seed and the image's index."""
    grid = data.layer(key).query_grid
    return _centres(data, grid, [scattered(grid, count, [seed, n]) for n in range(len(data.images))])


def _centres(data: AttentionData, grid: Grid, chosen: Sequence[Sequence[int]]) -> Points:
    return [tuple(centre_of(cell, data.size, grid) for cell in cells) for cells in chosen]


def representative(maps: NDArray[np.floating], grid: Grid, count: int) -> list[int]:
    """Return query cells that cover both the image and the different attention patterns in it.

    The distance of two cells is their distance in the image plus the Hellinger distance of their maps, each divided by
    its maximum, so that both have equal weight even if the maps differ little. The first cell has the map of least
    entropy; each next one is the farthest from those chosen (Gonzalez 1985). Then each moves to the medoid of the
    cells nearest to it, as in k-medoids; without this, corners would be chosen.

    Args:
        maps: (N, M), rows sum to 1.
        grid: (height, width) of the N cells.
        count: number of cells; all cells if there are fewer.

    Returns:
        Different row-major cells, in ascending order.
    """
    cells = _candidates(grid)
    count = min(count, len(cells))
    apart = _distances(np.asarray(maps, np.float64)[cells], cells, grid)
    rows = np.asarray(maps, np.float64)[cells]
    entropy = -(rows * np.log(np.maximum(rows, 1e-300))).sum(1)
    chosen = [int(entropy.argmin())]
    nearest = apart[chosen[0]].copy()
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, apart[chosen[-1]])
        nearest[chosen] = -1
    for _ in range(ROUNDS):
        owner = apart[:, chosen].argmin(1)
        owner[chosen] = np.arange(count)
        moved = [int(_middle(apart, np.flatnonzero(owner == k))) for k in range(count)]
        if moved == chosen:
            break
        chosen = moved
    return sorted(int(cells[k]) for k in chosen)


def scattered(grid: Grid, count: int, seed: int | Sequence[int]) -> list[int]:
    """Return different random cells in ascending order, a function of the seed."""
    total = grid[0] * grid[1]
    drawn = np.random.default_rng(seed).choice(total, min(count, total), replace=False)
    return sorted(int(cell) for cell in drawn)


def _candidates(grid: Grid) -> NDArray[np.intp]:
    step = 1
    while -(-grid[0] // step) * -(-grid[1] // step) > CANDIDATES:
        step += 1
    rows, columns = (np.arange(step // 2, side, step) for side in grid)
    cells: NDArray[np.intp] = (rows[:, None] * grid[1] + columns).ravel()
    return cells


def _distances(rows: NDArray[np.float64], cells: NDArray[np.intp], grid: Grid) -> NDArray[np.float64]:
    """Return (n, n) distances between cells: in the image, plus between their maps."""
    roots = np.sqrt(rows)
    hellinger = np.sqrt(np.maximum(1 - roots @ roots.T, 0))
    position = np.stack(np.divmod(cells, grid[1]), axis=1) / max(grid)
    square = (position**2).sum(1)
    between = np.sqrt(np.maximum(square[:, None] + square - 2 * position @ position.T, 0))
    together: NDArray[np.float64] = hellinger / max(hellinger.max(), 1e-6) + between / max(between.max(), 1e-6)
    return together


def _middle(apart: NDArray[np.float64], members: NDArray[np.intp]) -> np.intp:
    """Return the medoid: the member of least total distance to the others."""
    middle: np.intp = members[apart[np.ix_(members, members)].sum(0).argmin()]
    return middle
