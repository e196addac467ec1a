"""Attention laid on the picture without a shift: cells, smoothing, regions, outlines."""

from __future__ import annotations

import numpy as np
import pytest

from sagan_cli.attention.cells import cell_at, centre_of, heaviest, inset, outlines, spread


@pytest.mark.parametrize(("picture", "grid"), [((32, 32), (16, 16)), ((64, 16), (8, 2)), ((12, 16), (3, 4))])
def test_cells_tile_the_picture_and_their_centres_are_theirs(picture, grid) -> None:
    height, width = picture
    found = np.array([[cell_at(x + 0.5, y + 0.5, picture, grid) for x in range(width)] for y in range(height)])
    rows, columns = height // grid[0], width // grid[1]
    want = np.arange(grid[0] * grid[1]).reshape(grid).repeat(rows, 0).repeat(columns, 1)
    np.testing.assert_array_equal(found, want)
    for cell in range(grid[0] * grid[1]):
        x, y = centre_of(cell, picture, grid)
        own = np.argwhere(want == cell) + 0.5
        np.testing.assert_allclose((y, x), own.mean(0))
        assert cell_at(x, y, picture, grid) == cell
    assert cell_at(width, height, picture, grid) == grid[0] * grid[1] - 1


def test_a_key_s_colour_covers_the_positions_that_it_was_pooled_from() -> None:
    values = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(spread(values, (8, 12), smooth=False), values.repeat(4, 0).repeat(4, 1))


def test_smoothing_moves_nothing() -> None:
    values = np.random.default_rng(0).random((3, 4))
    fine = spread(values, (3 * 9, 4 * 9), smooth=True)  # 9 is odd: the middle pixel of a cell is at its centre
    np.testing.assert_allclose(fine[4::9, 4::9], values, atol=1e-12)
    # Between the two pixels at a border both cells weigh alike: along a row of centres that is their mean.
    wide = spread(values, (3 * 9, 4 * 8), smooth=True)[4::9]
    np.testing.assert_allclose((wide[:, 7:-1:8] + wide[:, 8::8]) / 2, (values[:, 1:] + values[:, :-1]) / 2, atol=1e-12)
    # Beyond the outer centres it is level, nowhere does it overshoot, and mirrored it is the same.
    np.testing.assert_allclose(fine[:5], fine[4:5].repeat(5, 0), atol=1e-12)
    assert values.min() - 1e-12 <= fine.min() <= fine.max() <= values.max() + 1e-12
    np.testing.assert_allclose(spread(values[::-1, ::-1], (27, 36), smooth=True), fine[::-1, ::-1], atol=1e-12)


def test_the_centre_of_mass_stays() -> None:
    values = np.zeros((8, 8))
    values[2, 5] = 1
    for smooth in (False, True):
        fine = spread(values, (192, 192), smooth=smooth)
        y, x = np.mgrid[0:192, 0:192] + 0.5
        np.testing.assert_allclose([(fine * x).sum(), (fine * y).sum()] / fine.sum(), [5.5 * 24, 2.5 * 24])


def test_the_peak_of_smoothing_is_a_smoothstep() -> None:
    line = spread(np.array([[0.0, 1.0]]), (1, 200), smooth=True)[0]
    t = np.clip((np.arange(200) + 0.5) / 100 - 0.5, 0, 1)
    np.testing.assert_allclose(line, 3 * t**2 - 2 * t**3, atol=1e-12)


def test_the_heaviest_cells_are_the_fewest_that_hold_half() -> None:
    row = np.array([0.1, 0.3, 0.05, 0.25, 0.3])
    np.testing.assert_array_equal(heaviest(row), [False, True, False, False, True])
    assert heaviest(row, 0.61).sum() == 3
    np.testing.assert_array_equal(np.flatnonzero(heaviest(np.full(4, 0.25, np.float32))), [0, 1])
    np.testing.assert_array_equal(np.flatnonzero(heaviest(np.array([0.0, 1.0, 0.0]))), [1])
    for seed in range(20):
        row = np.random.default_rng(seed).dirichlet(np.full(40, 0.3)).astype(np.float32)
        chosen = heaviest(row)
        assert row[chosen].sum() >= 0.5 - 1e-6
        assert row[chosen].sum() - row[chosen].min() < 0.5
        assert row[chosen].min() >= row[~chosen].max()


def area(loop: np.ndarray) -> float:
    """Shoelace formula; positive for true on the right of the way, with y down."""
    x, y = loop.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


@pytest.mark.parametrize("seed", range(20))
def test_outlines_enclose_exactly_the_cells(seed: int) -> None:
    mask = np.random.default_rng(seed).random((6, 9)) < 0.45
    loops = outlines(mask)
    assert sum(area(loop) for loop in loops) == mask.sum(), "outer loops count up, holes down"
    edges = sum(np.abs(np.roll(loop, -1, axis=0) - loop).sum() for loop in loops)
    padded = np.pad(mask, 1).astype(int)
    assert edges == np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum()


def test_outlines_of_known_shapes() -> None:
    (square,) = outlines(np.array([[0, 0, 0], [0, 1, 1], [0, 1, 1]], bool))
    np.testing.assert_array_equal(square, [[1, 1], [3, 1], [3, 3], [1, 3]])
    assert len(outlines(np.eye(3, dtype=bool))) == 3, "cells that touch by a corner are apart"
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    assert sorted(area(loop) for loop in outlines(ring)) == [-1, 9]
    assert outlines(np.zeros((2, 2), bool)) == []


def test_an_inset_outline_is_smaller_all_around_and_a_hole_s_larger() -> None:
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    hole, outer = sorted((inset(loop, (0.1, 0.2)) for loop in outlines(ring)), key=area)
    assert area(outer) == pytest.approx(2.8 * 2.6)
    assert area(hole) == pytest.approx(-1.2 * 1.4)
