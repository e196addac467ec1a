"""Ground and sky behind the animals, in cool hues so that warm coats can be told from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sagan_cli.quadrupeds.shapes import Array, Canvas, Colour, Dice, clip01, mix, rgb, smoothstep


@dataclass(frozen=True)
class Landscape:
    """Colours of one kind of landscape, RGB in [0, 1]; red is never the strongest channel."""

    name: str
    zenith: Colour
    haze: Colour
    ridges: tuple[Colour, Colour]
    far_ground: Colour
    near_ground: Colour
    trees: Colour | None
    light: str
    """In the sky: "sun", "moon" or "none"."""
    specks: Colour | None
    """Colour of flowers or glints on the ground."""


SCENES = (
    Landscape("meadow", (0.36, 0.64, 0.94), (0.78, 0.91, 0.98), ((0.44, 0.66, 0.72), (0.32, 0.60, 0.54)),
          (0.47, 0.76, 0.53), (0.26, 0.60, 0.38), (0.16, 0.44, 0.36), "sun", (0.90, 0.94, 1.00)),
    Landscape("snow", (0.46, 0.66, 0.88), (0.82, 0.91, 0.98), ((0.62, 0.75, 0.89), (0.70, 0.82, 0.93)),
          (0.86, 0.93, 1.00), (0.72, 0.83, 0.96), (0.24, 0.45, 0.52), "none", None),
    Landscape("dusk", (0.20, 0.22, 0.50), (0.60, 0.60, 0.88), ((0.33, 0.33, 0.62), (0.24, 0.27, 0.52)),
          (0.34, 0.42, 0.66), (0.21, 0.30, 0.50), (0.13, 0.19, 0.38), "moon", None),
    Landscape("dunes", (0.42, 0.58, 0.86), (0.80, 0.86, 0.98), ((0.60, 0.66, 0.90), (0.52, 0.60, 0.84)),
          (0.64, 0.72, 0.93), (0.48, 0.57, 0.82), None, "sun", None),
    Landscape("shore", (0.32, 0.66, 0.86), (0.76, 0.93, 0.96), ((0.30, 0.62, 0.76), (0.22, 0.58, 0.70)),
          (0.50, 0.80, 0.74), (0.30, 0.66, 0.62), None, "sun", (0.86, 0.98, 1.00)),
    Landscape("night", (0.06, 0.09, 0.24), (0.22, 0.32, 0.56), ((0.13, 0.20, 0.40), (0.10, 0.19, 0.34)),
          (0.17, 0.33, 0.44), (0.11, 0.25, 0.34), (0.06, 0.14, 0.24), "moon", (0.40, 0.62, 0.74)),
)  # fmt: skip


def paint(canvas: Canvas, dice: Dice) -> Array:
    """Draw a landscape without animals: float32 (3, H, W) in about [0, 1].

    Every landscape draws the same number of random numbers, so that the animal does not depend on it.
    """
    scene = SCENES[dice.pick(len(SCENES))]
    jitter = 1 + dice.many(3, -0.03, 0.03)[:, None, None]
    horizon = dice.between(-0.02, 0.09)

    # Sky: from haze at the horizon to the zenith.
    height = smoothstep(horizon, min(canvas.top, -0.5) - 0.05, canvas.y)
    haze, zenith = rgb(scene.haze), rgb(scene.zenith)
    image = np.repeat(haze + height * (zenith - haze), canvas.width, axis=2)
    _sky(image, canvas, dice, scene, horizon)

    # Two ridges of hills, then optional trees; each is one outline over the columns.
    slow = dice.many(8, 0, 2 * np.pi)
    low, high = dice.between(0.05, 0.10), dice.between(0.01, 0.05)
    far = horizon - low - 0.05 * np.sin(canvas.x * 5 + slow[0]) - 0.02 * np.sin(canvas.x * 13 + slow[1])
    mix(image, canvas.coverage(far - canvas.y), rgb(scene.ridges[0]))
    near = horizon - high - 0.03 * np.sin(canvas.x * 7 + slow[2]) - 0.012 * np.sin(canvas.x * 19 + slow[3])
    mix(image, canvas.coverage(near - canvas.y), rgb(scene.ridges[1]))
    _trees(image, canvas, dice, scene, horizon)

    # Ground: lighter far away, with soft waves and specks.
    edge = horizon + 0.006 * np.sin(canvas.x * 9 + slow[4])
    depth = smoothstep(horizon, max(canvas.bottom, 0.5), canvas.y)
    waves = np.sin(canvas.y * 55 + 2.5 * np.sin(canvas.x * 4 + slow[5]) + slow[6]) * np.sin(canvas.x * 8 + slow[7])
    near_ground, far_ground = rgb(scene.near_ground), rgb(scene.far_ground)
    ground = (far_ground + depth * (near_ground - far_ground)) * (1 + 0.035 * depth * waves)
    mix(image, canvas.coverage(edge - canvas.y), ground)
    _specks(image, canvas, dice, scene, horizon)
    image *= jitter
    return np.asarray(image, dtype=np.float32)


def shadow(image: Array, canvas: Canvas, x: float, y: float, half_width: float) -> None:
    """Darken the ground below an animal whose feet are at height y, in place."""
    one = np.ones(1, np.float32)
    dark = canvas.blobs(one * x, one * (y - 0.005), half_width, 0.035, 0.42)
    image *= 1 - dark


def _sky(image: Array, canvas: Canvas, dice: Dice, scene: Landscape, horizon: float) -> None:
    """Paint sun or moon, clouds or stars."""
    x, y, r = dice.between(-0.42, 0.42), dice.between(-0.42, -0.30), dice.between(0.045, 0.065)
    if scene.light != "none":
        disc = rgb((0.93, 0.98, 1.0) if scene.light == "sun" else (0.82, 0.91, 1.0))
        mix(image, canvas.blobs(x * _ONE, y * _ONE, 3 * r, 3 * r, 0.35), disc)
        mix(image, canvas.coverage(np.hypot(canvas.x - np.float32(x), canvas.y - np.float32(y)) - r), disc)
    xs, ys = dice.many(9, canvas.left, canvas.right), dice.many(9, canvas.top, horizon - 0.15)
    sizes = dice.many(9, 0.6, 1)
    if scene.name in ("dusk", "night"):
        mix(image, clip01(canvas.blobs(xs, ys, 0.006 * sizes, 0.006 * sizes)), rgb((0.88, 0.93, 1.0)))
    else:
        # A cloud consists of three adjacent puffs.
        xs = xs[[0, 0, 0, 1, 1, 1]] + np.array([-0.07, 0, 0.075, -0.06, 0, 0.07], np.float32)
        ys = ys[[0, 0, 0, 1, 1, 1]] + np.array([0.01, -0.012, 0.012, 0.01, -0.012, 0.01], np.float32)
        puffs = canvas.blobs(xs, ys, 0.075 * sizes[:6], 0.032 * sizes[:6])
        mix(image, 0.85 * smoothstep(0.15, 0.9, puffs), rgb((0.92, 0.97, 1.0)))


def _trees(image: Array, canvas: Canvas, dice: Dice, scene: Landscape, horizon: float) -> None:
    """Paint a few distant conifers or round trees on the horizon."""
    xs, tall = dice.many(6, canvas.left, canvas.right)[:, None], dice.many(6, 0.07, 0.17)[:, None]
    wanted, pointed = dice.chance(0.6), dice.chance(0.5)
    if scene.trees is None or not wanted:
        return
    away = np.abs(canvas.x - xs)
    if pointed or scene.name == "snow":
        crown = tall - away * 3.2
    else:
        crown = np.where(away < 0.4 * tall, 0.5 * tall + np.sqrt(np.maximum((0.4 * tall) ** 2 - away**2, 0)), 0)
    outline = horizon - np.maximum(crown.max(axis=0, keepdims=True), -0.01)
    mix(image, canvas.coverage(outline - canvas.y), rgb(scene.trees))


def _specks(image: Array, canvas: Canvas, dice: Dice, scene: Landscape, horizon: float) -> None:
    """Paint flowers in the grass or glints on the water."""
    xs, ys = dice.many(14, canvas.left, canvas.right), dice.many(14, horizon + 0.06, canvas.bottom)
    if scene.specks is not None:
        size = 0.004 + 0.012 * (ys - horizon)
        mix(image, np.float32(0.8) * clip01(canvas.blobs(xs, ys, size * 1.2, size)), rgb(scene.specks))


_ONE = np.ones(1, np.float32)
