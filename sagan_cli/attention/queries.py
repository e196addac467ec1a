"""Which points of a picture to ask: telling ones by default, or random ones. Deterministic, both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sagan_cli.attention.cells import Grid

CANDIDATES = 1024
"""Points compared with each other; a finer grid is thinned out to this many."""
ROUNDS = 10


def telling(maps: NDArray[np.floating], grid: Grid, count: int) -> list[int]:
    """Query cells that stand for the different ways in which a picture is looked at, each for its own part of it.

    Distance between two cells is their distance on the picture plus the Hellinger distance between their maps, each
    over its largest, so that both count alike even where the maps differ little. The first point is the one with the
    most definite map (least entropy), each next one the farthest from those chosen (Gonzalez 1985); then, as in
    k-medoids, each moves to the middle of the cells that are nearest to it. Without that, corners would be chosen:
    nothing is farther away.

    Args:
        maps: (N, M), rows sum to 1.
        grid: (height, width) of the N cells.
        count: how many; all cells where there are fewer.

    Returns:
        Row-major cells, all different, from the top down.
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
    """Different query cells at random, a function of the seed alone, from the top down."""
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
    """(n, n) between cells: on the picture, plus between their maps."""
    roots = np.sqrt(rows)
    hellinger = np.sqrt(np.maximum(1 - roots @ roots.T, 0))
    place = np.stack(np.divmod(cells, grid[1]), axis=1) / max(grid)
    square = (place**2).sum(1)
    between = np.sqrt(np.maximum(square[:, None] + square - 2 * place @ place.T, 0))
    together: NDArray[np.float64] = hellinger / max(hellinger.max(), 1e-6) + between / max(between.max(), 1e-6)
    return together


def _middle(apart: NDArray[np.float64], members: NDArray[np.intp]) -> np.intp:
    """The member that is nearest to all others."""
    middle: np.intp = members[apart[np.ix_(members, members)].sum(0).argmin()]
    return middle
