"""A figure as a list of marks in order of painting: laid out once, painted as pixels or written as vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sagan_cli.attention.colour import INK, Colour

Point = tuple[float, float]


@dataclass(frozen=True)
class Image:
    """Pixels stretched over a rectangle, each pixel an even patch."""

    left: float
    top: float
    width: float
    height: float
    pixels: NDArray[np.uint8]
    """(h, w, 3)."""


@dataclass(frozen=True)
class Frame:
    """A line around a rectangle, drawn outside it."""

    left: float
    top: float
    width: float
    height: float
    colour: Colour
    line: float


@dataclass(frozen=True)
class Outline:
    """A closed line with a dark seam under it, by which it stands out from any picture."""

    points: tuple[Point, ...]
    colour: Colour
    line: float
    seam: float = 0.9
    """Width of the seam on either side."""


@dataclass(frozen=True)
class Dot:
    """A filled circle with a white and a dark ring, and a short label in it."""

    x: float
    y: float
    radius: float
    colour: Colour
    label: str


@dataclass(frozen=True)
class Text:
    """One line of words."""

    x: float
    y: float
    """The baseline."""
    words: str
    size: float
    colour: Colour = INK
    anchor: str = "start"
    """`start`, `middle` or `end`: which part of the words stands at x."""


Mark = Image | Frame | Outline | Dot | Text


@dataclass(frozen=True)
class Drawing:
    """Marks on white paper; lengths are in pixels of the plain size."""

    width: float
    height: float
    marks: tuple[Mark, ...]
    title: str
    """For readers who do not see it."""
    about: str
    """The same, at length."""
