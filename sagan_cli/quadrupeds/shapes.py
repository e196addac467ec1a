"""Tapered strokes, their pixel coverage, colour mixing, and seeded random numbers.

Lengths are in units of the image's shorter side; x grows to the right, y downwards, (0, 0) is the centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Colour = tuple[float, float, float]
"""RGB in [0, 1]."""
Stroke = tuple[float, float, float, float, float, float]
"""x0, y0, r0, x1, y1, r1: a line with round ends whose radius changes linearly from r0 to r1."""


class Dice:
    """Random numbers that depend on (seed, index) only, in a fixed order.

    They are drawn in one block, because each call of NumPy's generator costs as much as a small array operation.
    """

    def __init__(self, seed: int, index: int) -> None:
        # Philox is counter-based: every key (seed, index) has an independent stream, without a seeding cost.
        source = np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64)))
        self._values = iter(source.random(256).tolist())

    def between(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * float(next(self._values))

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return float(next(self._values)) < probability

    def pick(self, count: int) -> int:
        """Return an integer in 0..count-1."""
        return int(next(self._values) * count)

    def many(self, count: int, low: float, high: float) -> Array:
        """Return `count` numbers in [low, high): float32 (count,)."""
        return np.array([self.between(low, high) for _ in range(count)], dtype=np.float32)


class Canvas:
    """Pixel centres of an image: `x` (1, W), `y` (H, 1), and `scale`, the pixels per unit of length."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width, self.scale = height, width, float(min(height, width))
        self.x: Array = ((np.arange(width, dtype=np.float32) + 0.5 - width / 2) / np.float32(self.scale))[None, :]
        self.y: Array = ((np.arange(height, dtype=np.float32) + 0.5 - height / 2) / np.float32(self.scale))[:, None]
        self.top, self.bottom = float(-height / 2 / self.scale), float(height / 2 / self.scale)
        self.left, self.right = float(-width / 2 / self.scale), float(width / 2 / self.scale)

    def coverage(self, distance: Array) -> Array:
        """Return the share of each pixel inside a shape from signed distances (negative inside)."""
        return clip01(0.5 - distance * np.float32(self.scale))

    def blobs(self, x: Array, y: Array, rx: Array | float, ry: Array | float, weight: Array | float = 1.0) -> Array:
        """Return the sum of n Gaussian bumps with centres (x, y) and radii (rx, ry): float32 (H, W)."""
        # Bumps narrower than a pixel are widened and weakened; otherwise they would flicker with their position.
        least = 0.5 / self.scale
        wide, tall = np.maximum(rx, least), np.maximum(ry, least)
        strength = weight * (rx / wide) * (ry / tall)
        across = np.exp(-(((self.x.T - x) / wide) ** 2))
        down = np.exp(-(((self.y - y) / tall) ** 2)) * strength
        return np.asarray(down @ across.T, dtype=np.float32)


@lru_cache(maxsize=8)
def canvas(height: int, width: int) -> Canvas:
    """Return the canvas of a size, built once per process."""
    return Canvas(height, width)


def distances(strokes: Sequence[Stroke], x: Array, y: Array) -> Array:
    """Return the signed distance of every pixel to every stroke, negative inside: float32 (K, H, W).

    It is the distance to the round cross-section at the nearest point of the line: exact for constant radii, a close
    approximation for the small tapers used here.
    """
    table = np.array(strokes, dtype=np.float32)[:, :, None, None]
    x0, y0, r0, x1, y1, r1 = (table[:, i] for i in range(6))
    dx, dy = x1 - x0, y1 - y0
    norm = np.float32(1) / np.maximum(dx * dx + dy * dy, np.float32(1e-9))
    px, py = x - x0, y - y0
    along = px * (dx * norm) + py * (dy * norm)
    np.maximum(along, 0, out=along)
    np.minimum(along, 1, out=along)
    px = px - along * dx
    py = py - along * dy
    px *= px
    py *= py
    px += py
    np.sqrt(px, out=px)
    along *= r1 - r0
    along += r0
    px -= along
    return np.asarray(px, dtype=np.float32)


def soft_union(distance: Array, softness: float) -> Array:
    """Return the union of shapes (K, H, W) -> (H, W) with rounded inner corners."""
    # Without the clip, all terms would underflow far outside, and the result would be log(0).
    powers = np.exp(np.minimum(np.maximum(distance * np.float32(-1 / softness), -60), 60))
    return np.asarray(np.log(powers.sum(axis=0)) * np.float32(-softness), dtype=np.float32)


def clip01(value: Array) -> Array:
    """Clip to [0, 1]; at 32 pixels this takes half the time of np.clip."""
    return np.asarray(np.minimum(np.maximum(value, 0), 1), dtype=np.float32)


def rgb(colour: Colour) -> Array:
    """Return a colour as float32 (3, 1, 1)."""
    return np.array(colour, dtype=np.float32)[:, None, None]


def mix(image: Array, alpha: Array, colour: Array) -> None:
    """Paint `colour`, (3, H, W) or (3, 1, 1), over the image (3, H, W) with opacity `alpha` (H, W), in place."""
    image += alpha * (colour - image)


def smoothstep(low: float, high: float, value: Array) -> Array:
    """Interpolate smoothly from 0 at `low` to 1 at `high`, constant beyond; `low` may exceed `high`."""
    t = clip01((value - np.float32(low)) * np.float32(1 / (high - low)))
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)
