"""Image sizes that a SAGAN supports, and the feature maps that can have attention.

An image of height x width is a start grid doubled `stages` times (the official SAGAN-128 is 4x4 doubled 5 times).
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
"""Largest start grid, 16x16: above it the first linear layer would have most of the cost."""


MAX_MULTIPLIER = 16
"""Largest width of a feature map of `sagan`, in multiples of the width at full resolution."""


def channels_at(base_width: int, halvings: int) -> int:
    """Return the number of channels of a `sagan` feature map whose side is the image's side divided by 2^halvings."""
    return base_width * min(MAX_MULTIPLIER, 1 << halvings)


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
        """Return the (height, width) of the `stages + 1` feature maps, from the start grid to the full image."""
        return [(self.start_height << i, self.start_width << i) for i in range(self.stages + 1)]

    def attention_sites(self) -> dict[int, int]:
        """Return longer side -> number of doublings for every map on which both G and D can have attention.

        The start grid and the full image are omitted: in G no block ends on the first, in D none on the second.
        """
        return {max(grid): i for i, grid in enumerate(self.maps()) if 0 < i < self.stages}


def _split(height: int, width: int) -> Geometry | None:
    """Return the geometry with the most stages, or None if the size is not supported."""
    stages = 0
    while height % 2 == 0 and width % 2 == 0 and min(height, width) // 2 >= MIN_START_SIDE:
        height, width, stages = height // 2, width // 2, stages + 1
    legal = stages >= MIN_STAGES and height * width <= MAX_START_CELLS
    return Geometry(height, width, stages) if legal else None


def geometry(height: int, width: int) -> Geometry:
    """Return the start grid and stages of an image size.

    Raises:
        UsageError: the size is not supported; the message names the nearest supported sizes.
    """
    found = _split(height, width)
    if found is None:
        near = ", ".join(_show(*size) for size in _nearest(height, width))
        raise UsageError(
            f"--size {_show(height, width)}: each side must be the same power of two times a start grid "
            f"(128 = 32 x 4, 96x128 = 32 x 3x4); nearest supported sizes: {near}"
        )
    return found


def default_attention(height: int, width: int) -> tuple[int, ...]:
    """Return the largest map of at most 32: 32 for images from 64 pixels up, 16 for 32 pixels."""
    sites = [side for side in geometry(height, width).attention_sites() if side <= 32]
    return (max(sites),) if sites else ()


def check_attention(height: int, width: int, attn_at: tuple[int, ...]) -> None:
    """Check that images of this size have the given feature maps.

    Raises:
        UsageError: a map does not exist or is repeated; the message names the maps.
    """
    sites = geometry(height, width).attention_sites()
    for side in attn_at:
        if side not in sites:
            legal = ", ".join(str(s) for s in sites)
            raise UsageError(f"--attn-at {side}: images of {_show(height, width)} have feature maps {legal} (or none)")
    if len(set(attn_at)) != len(attn_at):
        raise UsageError(f"--attn-at {','.join(map(str, attn_at))}: a map is listed twice")


def _nearest(height: int, width: int) -> list[tuple[int, int]]:
    """Return up to three supported sizes, nearest first by the sum of side differences."""
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
    """The image size and the feature maps with attention of a configuration."""

    height: int
    width: int
    attn_at: tuple[int, ...]


def parse_shape(size: str, attn_at: str, native: tuple[int, int] | None) -> Shape:
    """Parse an image size and feature maps, resolve `auto`, and check them.

    Args:
        size: auto, N or HEIGHTxWIDTH.
        attn_at: auto, none, or longer sides of feature maps.
        native: the height and width that `auto` means for the dataset; None for DEFAULT_SIZE.

    Raises:
        UsageError: an unsupported size, or a feature map that images of this size do not have.
    """
    height, width = _size(size, native or (DEFAULT_SIZE, DEFAULT_SIZE))
    geometry(height, width)
    return Shape(height, width, _attention(attn_at, height, width))


def _size(text: str, auto: tuple[int, int]) -> tuple[int, int]:
    if text == "auto":
        return auto
    match = re.fullmatch(r"(\d{1,5})(?:[xX×](\d{1,5}))?", text.strip())
    if not match:
        raise UsageError(f"--size {text}: write one side, such as 64, or HEIGHTxWIDTH, such as 96x128")
    return int(match[1]), int(match[2] or match[1])


def _attention(text: str, height: int, width: int) -> tuple[int, ...]:
    if text == "auto":
        return default_attention(height, width)
    if text.strip().lower() == "none":
        return ()
    try:
        sides = tuple(sorted(int(side) for side in text.split(",")))
    except ValueError:
        raise UsageError(f"--attn-at {text}: write sides of feature maps, such as 32 or 16,32, or none") from None
    check_attention(height, width, sides)
    return sides
