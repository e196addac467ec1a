"""Which picture sizes a SAGAN can have, and where its attention can stand: plain arithmetic, no torch.

A picture of height x width is a start grid doubled `stages` times (the official SAGAN-128 is 4x4 doubled 5 times).
A feature map is named by its longer side, as the paper's "feat32" names the 32x32 map.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sagan_cli.errors import UsageError

DEFAULT_SIZE = 64
MIN_STAGES = 2
MIN_START_SIDE = 3
MAX_START_CELLS = 256
"""A start grid above 16x16 cells leaves the first linear layer most of the work; such sizes are refused."""


@dataclass(frozen=True)
class Geometry:
    """A start grid and the number of times it is doubled."""

    start_height: int
    start_width: int
    stages: int

    @property
    def height(self) -> int:
        return self.start_height << self.stages

    @property
    def width(self) -> int:
        return self.start_width << self.stages

    def maps(self) -> list[tuple[int, int]]:
        """Feature maps from the start grid to the full picture, (height, width) each; `stages + 1` of them."""
        return [(self.start_height << i, self.start_width << i) for i in range(self.stages + 1)]

    def attention_sites(self) -> dict[int, int]:
        """Longer side -> number of doublings, for every map on which both G and D can attend.

        The start grid and the full picture are left out: in G no block ends on the first, in D none on the second.
        """
        return {max(grid): i for i, grid in enumerate(self.maps()) if 0 < i < self.stages}


def _split(height: int, width: int) -> Geometry | None:
    """The geometry with the most stages, or None where no legal one exists."""
    stages = 0
    while height % 2 == 0 and width % 2 == 0 and min(height, width) // 2 >= MIN_START_SIDE:
        height, width, stages = height // 2, width // 2, stages + 1
    legal = stages >= MIN_STAGES and height * width <= MAX_START_CELLS
    return Geometry(height, width, stages) if legal else None


def geometry(height: int, width: int) -> Geometry:
    """The start grid and stages of a picture size.

    Raises:
        UsageError: the size has no legal start grid; the message offers the nearest ones that do.
    """
    found = _split(height, width)
    if found is None:
        near = ", ".join(_show(*size) for size in _nearest(height, width))
        raise UsageError(
            f"--size {_show(height, width)}: each side must be the same power of two times a start grid "
            f"(as 128 = 32 x 4, 96x128 = 32 x 3x4); nearest that fit: {near}"
        )
    return found


def default_attention(height: int, width: int) -> tuple[int, ...]:
    """The largest legal map of at most 32: 32 for pictures from 64 pixels up, 16 for 32 pixels."""
    sites = [side for side in geometry(height, width).attention_sites() if side <= 32]
    return (max(sites),) if sites else ()


def check_attention(height: int, width: int, attn_at: tuple[int, ...]) -> None:
    """Refuse attention on a map that these pictures do not have.

    Raises:
        UsageError: naming the maps that exist.
    """
    sites = geometry(height, width).attention_sites()
    for side in attn_at:
        if side not in sites:
            legal = ", ".join(str(s) for s in sites)
            raise UsageError(
                f"--attn-at {side}: pictures of {_show(height, width)} have feature maps {legal} (or none)"
            )
    if len(set(attn_at)) != len(attn_at):
        raise UsageError(f"--attn-at {','.join(map(str, attn_at))}: the same map twice")


def _nearest(height: int, width: int) -> list[tuple[int, int]]:
    """Up to three legal sizes, nearest first by the sum of side differences."""
    square = height == width
    reach = max(32, max(height, width) // 2)
    candidates = [
        (h, w)
        for h in range(max(12, (height - reach) // 4 * 4), height + reach + 1, 4)
        for w in ([h] if square else range(max(12, (width - reach) // 4 * 4), width + reach + 1, 4))
        if _split(h, w)
    ]
    return sorted(candidates, key=lambda s: (abs(s[0] - height) + abs(s[1] - width), s))[:3] or [(32, 32), (64, 64)]


def _show(height: int, width: int) -> str:
    return str(height) if height == width else f"{height}x{width}"


@dataclass(frozen=True)
class Shape:
    """The picture size and the attended feature maps that a configuration comes to."""

    height: int
    width: int
    attn_at: tuple[int, ...]


def parse_shape(size: str, attn_at: str, native: tuple[int, int] | None) -> Shape:
    """Turn `auto` into numbers and check that such networks exist.

    Args:
        size: auto, N or HEIGHTxWIDTH.
        attn_at: auto, none, or longer sides of feature maps.
        native: the height and width that the data set would like `auto` to be; None leaves it at DEFAULT_SIZE.

    Raises:
        UsageError: a size that no SAGAN has, or a feature map that the size has not.
    """
    height, width = _size(size, native or (DEFAULT_SIZE, DEFAULT_SIZE))
    geometry(height, width)
    return Shape(height, width, _attention(attn_at, height, width))


def _size(text: str, auto: tuple[int, int]) -> tuple[int, int]:
    if text == "auto":
        return auto
    match = re.fullmatch(r"(\d{1,5})(?:[xX×](\d{1,5}))?", text.strip())
    if not match:
        raise UsageError(f"--size {text}: write one side, as in 64, or HEIGHTxWIDTH, as in 96x128")
    return int(match[1]), int(match[2] or match[1])


def _attention(text: str, height: int, width: int) -> tuple[int, ...]:
    if text == "auto":
        return default_attention(height, width)
    if text.strip().lower() == "none":
        return ()
    try:
        sides = tuple(sorted(int(side) for side in text.split(",")))
    except ValueError:
        raise UsageError(f"--attn-at {text}: write sides of feature maps, as in 32 or 16,32, or none") from None
    check_attention(height, width, sides)
    return sides
