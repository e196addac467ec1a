"""Draw images, each an animal in a landscape, as pure functions of (seed, index, size)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sagan_cli.quadrupeds import scenery
from sagan_cli.quadrupeds.shapes import (
    Array,
    Canvas,
    Colour,
    Dice,
    canvas,
    clip01,
    distances,
    mix,
    rgb,
    smoothstep,
    soft_union,
)
from sagan_cli.quadrupeds.skeleton import Figure, Species, place_legs, pose
from sagan_cli.quadrupeds.species import SPECIES, add_features

FAR_SIDE = 0.80
"""Brightness of the two legs on the far side of the body."""
TURN = 2 * np.pi
HOOF: Colour = (0.30, 0.16, 0.10)


def draw(seed: int, index: int, height: int, width: int, legs: int = 4) -> NDArray[np.uint8]:
    """Draw image `index` of the series `seed`: uint8 (height, width, 3) RGB; its species is `index % len(SPECIES)`.

    An image is the same at every size of one aspect ratio, up to sampling.

    Args:
        legs: 3 omits one leg, 5 adds one, all else equal; they exist to test `count_legs` and occur in no dataset.

    Raises:
        ValueError: seed or index outside 0..2^64-1, an empty image, or `legs` other than 3, 4 or 5.
    """
    if not (0 <= seed < 1 << 64 and 0 <= index < 1 << 64):
        raise ValueError(f"seed {seed} and index {index} must lie between 0 and 2^64 - 1")
    if legs not in (3, 4, 5) or min(height, width) < 1:
        raise ValueError(f"cannot draw {legs} legs at {height}x{width}: legs must be 3, 4 or 5, sides at least 1")
    dice, view = Dice(seed, index), canvas(height, width)
    image = scenery.paint(view, dice)
    add_animal(image, view, dice, SPECIES[index % len(SPECIES)], legs=legs)
    return to_uint8(image)


def add_animal(image: Array, view: Canvas, dice: Dice, species: Species, *, middle: float = 0.0, legs: int = 4) -> None:
    """Paint an animal into the image (3, H, W), in place, near x = `middle`, in a random pose."""
    # Pose and position are drawn before the legs, so that `legs` changes nothing else.
    figure = pose(species, dice)
    add_features(figure, dice)
    scale, facing = dice.between(*species.size), 1.0 if dice.chance(0.5) else -1.0
    left = middle + dice.between(-0.025, 0.025) - facing * species.ahead * scale
    ground = dice.between(0.385, 0.43)
    tint = dice.many(3, 0.97, 1.03)[:, None, None] * np.float32(dice.between(0.95, 1.03))
    roll = dice.many(6, 0.0, 1.0)
    place_legs(figure, dice, legs)

    # Animal coordinates of the pixels; the size of a pixel becomes 1 / (scale * view.scale).
    x = (view.x - np.float32(left)) * np.float32(facing / scale)
    y = (np.float32(ground) - view.y) * np.float32(1 / scale)
    scenery.shadow(image, view, left, ground, 0.33 * scale)
    _compose(image, figure, x, y, scale * view.scale, roll, tint)


def to_uint8(image: Array) -> NDArray[np.uint8]:
    """Convert an image (3, H, W) in about [0, 1] to uint8 (H, W, 3), clipped and rounded."""
    image = clip01(image)
    image *= 255
    image += 0.5  # rounds to nearest when truncated
    return np.ascontiguousarray(image.astype(np.uint8).transpose(1, 2, 0))


def _compose(image: Array, f: Figure, x: Array, y: Array, scale: float, roll: Array, tint: Array) -> None:
    """Paint the figure over the image, in place, back to front."""
    groups = [f.far_legs, f.torso + f.near_legs, *(part.strokes for part in (*f.behind, *f.front))]
    starts = np.cumsum([0, *(len(g) for g in groups)])
    every = distances([stroke for g in groups for stroke in g], x, y)
    nearest = np.empty((len(groups), *every.shape[1:]), dtype=np.float32)
    for i in range(len(groups)):
        np.minimum.reduce(every[starts[i] : starts[i + 1]], axis=0, out=nearest[i])
    body = nearest[1] = soft_union(every[starts[1] : starts[2]], 0.012)
    cover = clip01(0.5 - nearest * np.float32(scale))

    # Light from above, and a darker rim that separates each part from those behind it.
    rim = 0.86 + 0.14 * clip01(nearest * np.float32(-1 / 0.025))
    light = 0.80 + 0.13 * clip01(body * np.float32(-1 / 0.05)) + 0.10 * smoothstep(-0.12, 0.14, y - f.middle)
    coat = _fur(f, x, y, roll) * tint

    mix(image, cover[0], coat * np.float32(FAR_SIDE))
    for i, part in enumerate(f.behind, start=2):
        mix(image, cover[i], rim[i] * (rgb(part.colour) * tint))
    mix(image, cover[1], coat * light)
    for i, part in enumerate(f.front, start=2 + len(f.behind)):
        alpha = cover[i] * cover[1] if part.inside else cover[i]
        mix(image, alpha, rim[i] * (rgb(part.colour) * tint))


def _fur(figure: Figure, x: Array, y: Array, roll: Array) -> Array:
    """Return the coat colour at animal coordinates x (1, W), y (H, 1): float32 (3, H, W).

    `roll` are 6 numbers in [0, 1) that position the marks. Marks end at the belly: legs have one colour, with socks and
    hooves, so that each leg is one connected region.
    """
    species, coat = figure.species, figure.coat
    base, mark, sock = (rgb(c) for c in (coat.base, coat.mark, coat.sock))
    where = _PATTERNS[species.pattern](x, y - np.float32(figure.middle), roll)
    where = where * smoothstep(0.75 * species.leg, 1.08 * species.leg, y)
    colour = base + where * (mark - base)
    if species.sock:
        edge = species.sock * species.leg
        colour += smoothstep(edge + 0.02, edge - 0.02, y) * (sock - colour)
    if species.hoof:
        hoof = rgb(HOOF)
        colour += smoothstep(species.hoof + 0.006, species.hoof - 0.006, y) * (hoof - colour)
    return np.asarray(colour, dtype=np.float32)


def _plain(x: Array, y: Array, roll: Array) -> Array:
    return np.zeros((y.shape[0], x.shape[1]), dtype=np.float32)


def _patches(x: Array, y: Array, roll: Array) -> Array:
    """A few large islands: three waves of different directions, thresholded."""
    a, b, c = (np.float32(TURN) * r for r in roll[:3])
    field = np.sin(x * 17 + y * 6 + a) + np.sin(y * 19 - x * 7 + b) + 0.7 * np.sin(x * 11 - y * 15 + c)
    return smoothstep(0.10, 0.30, field)


def _stripes(x: Array, y: Array, roll: Array) -> Array:
    """Stripes across the body, about 0.115 apart, the minimum that is visible at 32 pixels."""
    bow = 1.1 * np.sin(y * 9 + TURN * roll[0]) + 9 * y * (x - 0.05)
    return smoothstep(-0.05, 0.30, np.sin(x * (TURN / 0.115) + bow + TURN * roll[1]))


def _network(x: Array, y: Array, roll: Array) -> Array:
    """Polygonal spots between pale lines: a distorted hexagonal lattice of three waves."""
    u = x + 0.012 * np.sin(y * 31 + TURN * roll[0])
    v = y + 0.012 * np.sin(x * 27 + TURN * roll[1])
    k, turn = TURN / 0.078, 0.35 + roll[2]
    # Each direction is the sum of the other two; phases must be too, or spots and lines would swap.
    directions = ((turn, roll[3] + roll[4]), (turn + TURN / 6, roll[3]), (turn - TURN / 6, roll[4]))
    waves = sum(np.cos(k * (np.cos(t) * u + np.sin(t) * v) + TURN * phase) for t, phase in directions)
    return smoothstep(-0.75, -0.25, np.asarray(waves, dtype=np.float32))


def _wool(x: Array, y: Array, roll: Array) -> Array:
    """Curls: small arcs in staggered rows."""
    row = y * 30 + 0.9 * np.sin(x * 24 + TURN * roll[0])
    across = x * 62 + 1.3 * np.sin(y * 40 + TURN * roll[1])
    return np.float32(0.75) * smoothstep(0.0, 1.0, np.sin(TURN * row * 0.55) * np.sin(across))


_PATTERNS = {"plain": _plain, "patches": _patches, "stripes": _stripes, "network": _network, "wool": _wool}
