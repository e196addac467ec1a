"""Picture size and attention as the user writes them, turned into numbers before PyTorch is loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sagan_cli import geometry
from sagan_cli.errors import UsageError

DEFAULT_SIZE = 64


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
    geometry.geometry(height, width)
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
        return geometry.default_attention(height, width)
    if text.strip().lower() == "none":
        return ()
    try:
        sides = tuple(sorted(int(side) for side in text.split(",")))
    except ValueError:
        raise UsageError(f"--attn-at {text}: write sides of feature maps, as in 32 or 16,32, or none") from None
    geometry.check_attention(height, width, sides)
    return sides
