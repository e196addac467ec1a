"""Which sizes are legal, and where attention may stand."""

from __future__ import annotations

import pytest

from sagan_cli.errors import UsageError
from sagan_cli.geometry import check_attention, default_attention, geometry


@pytest.mark.parametrize(
    ("size", "start", "stages"),
    [
        ((32, 32), (4, 4), 3),
        ((128, 128), (4, 4), 5),
        ((512, 512), (4, 4), 7),
        ((256, 64), (16, 4), 4),
        ((96, 128), (3, 4), 5),
        ((48, 48), (3, 3), 4),
        ((224, 224), (7, 7), 5),
        ((72, 96), (9, 12), 3),
    ],
)
def test_a_size_is_a_start_grid_doubled(size: tuple[int, int], start: tuple[int, int], stages: int) -> None:
    grid = geometry(*size)
    assert (grid.start_height, grid.start_width, grid.stages) == (*start, stages)
    assert (grid.height, grid.width) == size == grid.maps()[-1]


@pytest.mark.parametrize("size", [(33, 33), (100, 100), (7, 7), (64, 65), (4, 1024), (2, 2)])
def test_other_sizes_are_refused_with_legal_neighbours(size: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="nearest supported sizes") as caught:
        geometry(*size)
    for near in str(caught.value).rsplit(": ", 1)[1].split(", "):
        height, _, width = near.partition("x")
        geometry(int(height), int(width or height))


def test_default_attention_is_32_or_the_largest_map_below() -> None:
    sizes = [(32, 32), (64, 64), (128, 128), (512, 512), (256, 64), (96, 128), (48, 48), (16, 16)]
    assert [default_attention(*s) for s in sizes] == [(16,), (32,), (32,), (32,), (32,), (32,), (24,), (8,)]


def test_attention_stands_between_the_start_grid_and_the_full_picture() -> None:
    check_attention(128, 128, (8, 16, 32, 64))
    for side in (4, 128, 33):
        with pytest.raises(UsageError, match="feature maps 8, 16, 32, 64"):
            check_attention(128, 128, (side,))
    with pytest.raises(UsageError, match="twice"):
        check_attention(128, 128, (32, 32))
