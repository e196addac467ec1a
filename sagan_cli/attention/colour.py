"""Colours: a perceptually even scale for attention, and dots that colour-blind eyes tell apart."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]

INK: Colour = (30, 33, 38)
MUTED: Colour = (104, 110, 120)
PAPER: Colour = (255, 255, 255)

# Okabe and Ito 2008, "Color universal design", without its black; the order keeps neighbours far apart.
DOTS: tuple[Colour, ...] = (
    (213, 94, 0), (86, 180, 233), (240, 228, 66), (204, 121, 167), (0, 158, 115), (230, 159, 0), (0, 114, 178),
)  # fmt: skip
"""One per query point: vermillion, sky blue, yellow, reddish purple, bluish green, orange, blue."""

# OKLab (Ottosson 2020) as lightness, chroma and hue in degrees: from near black by violet and red to pale yellow.
_CONTROL = (
    (0.12, 0.02, 285.0), (0.26, 0.13, 290.0), (0.42, 0.22, 325.0), (0.60, 0.24, 15.0), (0.74, 0.17, 50.0),
    (0.88, 0.14, 88.0), (0.985, 0.05, 105.0),
)  # fmt: skip
STEPS = 256


def tint(share: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(...) in [0, 1] -> (..., 3) uint8; values outside are clipped."""
    place = np.clip(np.rint(np.asarray(share, np.float64) * (STEPS - 1)), 0, STEPS - 1).astype(np.intp)
    coloured: NDArray[np.uint8] = scale()[place]
    return coloured


@cache
def scale() -> NDArray[np.uint8]:
    """(256, 3): a Bézier curve through OKLab, walked at even speed, so that equal steps look equally large."""
    return np.rint(np.clip(srgb(curve()), 0, 1) * 255).astype(np.uint8)


@cache
def curve() -> NDArray[np.float64]:
    """(256, 3) L, a, b of the scale; lightness only rises."""
    lightness, chroma, hue = np.array(_CONTROL).T
    points = np.stack([lightness, chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))], axis=1)
    fine = _bezier(points, np.linspace(0, 1, 16 * STEPS))
    walked = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(fine, axis=0), axis=1))])
    even = np.linspace(0, walked[-1], STEPS)
    return np.stack([np.interp(even, walked, fine[:, i]) for i in range(3)], axis=1)


def srgb(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """OKLab (..., 3) -> sRGB (..., 3), in [0, 1] where a screen can show it."""
    to_cone = np.array([[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728],
                        [1, -0.0894841775, -1.2914855480]])  # fmt: skip
    to_linear = np.array([[4.0767416621, -3.3077115913, 0.2309699292], [-1.2684380046, 2.6097574011, -0.3413193965],
                          [-0.0041960863, -0.7034186147, 1.7076147010]])  # fmt: skip
    linear = (lab @ to_cone.T) ** 3 @ to_linear.T
    bent = 1.055 * np.abs(linear) ** (1 / 2.4) - 0.055
    values: NDArray[np.float64] = np.where(linear <= 0.0031308, 12.92 * linear, bent)
    return values


def readable_on(colour: Colour) -> Colour:
    """INK or PAPER, whichever is easier to read on a colour."""
    red, green, blue = (((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour)
    return INK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.3 else PAPER


def _bezier(points: NDArray[np.float64], t: NDArray[np.float64]) -> NDArray[np.float64]:
    """de Casteljau: (k, d) control points at t (n,) -> (n, d)."""
    level = np.repeat(points[:, None], len(t), axis=1)
    while len(level) > 1:
        level = level[:-1] * (1 - t)[:, None] + level[1:] * t[:, None]
    curve_: NDArray[np.float64] = level[0]
    return curve_
