"""Drawing of shapes: one signed distance field per kind, antialiased by the distance of each pixel to the edge."""

from __future__ import annotations

import colorsys

import numpy as np

Field = np.ndarray
"""Signed distance to a shape's edge, (H, W), in units of half the image's shorter side; negative inside."""


def draw(kind: str, seed: tuple[int, int], height: int, width: int) -> np.ndarray:
    """Return an image, uint8 (height, width, 3), as a function of the arguments only.

    Raises:
        KeyError: an unknown kind.
    """
    random = np.random.default_rng(seed)
    size = random.uniform(0.35, 0.8)
    turn = random.uniform(0, 2 * np.pi)
    unit = min(height, width) / 2
    room = np.array([height, width]) / (2 * unit) - size  # largest offset of the centre with the shape still inside
    centre = random.uniform(-1, 1, 2) * np.maximum(room, 0)

    y, x = np.mgrid[:height, :width]
    y = (y + 0.5 - height / 2) / unit - centre[0]
    x = (x + 0.5 - width / 2) / unit - centre[1]
    cos, sin = np.cos(turn), np.sin(turn)
    distance = SHAPES[kind](cos * x + sin * y, cos * y - sin * x, size)
    cover = np.clip(0.5 - distance * unit, 0, 1)[..., None]

    ground, paint = _colours(random)
    # A brightness gradient, so that a generator also has something smooth to learn.
    slope = np.linspace(0.85, 1.15, height)[:, None, None] * np.linspace(1.1, 0.9, width)[None, :, None]
    picture = np.clip(ground * slope, 0, 1) * (1 - cover) + paint * cover
    return np.round(picture * 255).astype(np.uint8)


def _colours(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return background and paint, each RGB in [0, 1]: a strong hue on a pale or dark background of another hue."""
    hue = random.uniform()
    dark = random.uniform() < 0.5
    ground = colorsys.hsv_to_rgb((hue + random.uniform(0.3, 0.7)) % 1, 0.35, 0.25 if dark else 0.9)
    paint = colorsys.hsv_to_rgb(hue, 0.85, 0.95 if dark else 0.7)
    return np.array(ground), np.array(paint)


def _circle(x: Field, y: Field, r: float) -> Field:
    return np.hypot(x, y) - r


def _ring(x: Field, y: Field, r: float) -> Field:
    return np.abs(np.hypot(x, y) - 0.75 * r) - 0.25 * r


def _box(x: Field, y: Field, a: float, b: float) -> Field:
    return np.maximum(np.abs(x) - a, np.abs(y) - b)


def _square(x: Field, y: Field, r: float) -> Field:
    return _box(x, y, r / np.sqrt(2), r / np.sqrt(2))


def _cross(x: Field, y: Field, r: float) -> Field:
    return np.minimum(_box(x, y, 0.95 * r, 0.3 * r), _box(x, y, 0.3 * r, 0.95 * r))


def _triangle(x: Field, y: Field, r: float) -> Field:
    return _spiked(x, y, points=3, tip=r, notch=r / 2)


def _star(x: Field, y: Field, r: float) -> Field:
    return _spiked(x, y, points=5, tip=r, notch=0.42 * r)


def _spiked(x: Field, y: Field, points: int, tip: float, notch: float) -> Field:
    """Return a star with `points` tips at radius `tip`, and notches between them at radius `notch`.

    The plane is folded onto half a spike, where the edge is a straight line from the tip to the notch.
    """
    half = np.pi / points
    angle = np.abs((np.arctan2(y, x) + half) % (2 * half) - half)
    radius = np.hypot(x, y)
    px, py = radius * np.cos(angle), radius * np.sin(angle)
    ex, ey = notch * np.cos(half) - tip, notch * np.sin(half)
    return ((px - tip) * ey - py * ex) / np.hypot(ex, ey)


SHAPES = {
    "circle": _circle,
    "ring": _ring,
    "square": _square,
    "cross": _cross,
    "triangle": _triangle,
    "star": _star,
}
"""Kind -> distance field of (x, y, radius of the circle around the shape)."""
