"""Draws one picture: an animal of the wanted species on a scene, as a pure function of (seed, index, size)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sagan_cli.quadrupeds import scenery
from sagan_cli.quadrupeds.anatomy import Figure, Species, place_legs, pose
from sagan_cli.quadrupeds.coats import fur
from sagan_cli.quadrupeds.shapes import Array, Canvas, Dice, canvas, clip01, distances, mix, rgb, smoothstep, soft_union
from sagan_cli.quadrupeds.species import SPECIES, add_features

FAR_SIDE = 0.80
"""Brightness of the two legs on the far side of the body."""


def draw(seed: int, index: int, height: int, width: int, legs: int = 4) -> NDArray[np.uint8]:
    """Picture `index` of the series `seed`: uint8 (height, width, 3) RGB; its species is `index % len(SPECIES)`.

    A picture is the same at every size of one shape, up to sampling. `legs` 3 erases one of the legs and 5 draws one
    more, everything else being equal; they exist to test `count_legs` and occur in no data set.

    Raises:
        ValueError: seed or index outside 0..2^64-1, an empty picture, or `legs` other than 3, 4 or 5.
    """
    if not (0 <= seed < 1 << 64 and 0 <= index < 1 << 64):
        raise ValueError(f"seed {seed} and index {index} must lie between 0 and 2^64 - 1")
    if legs not in (3, 4, 5) or min(height, width) < 1:
        raise ValueError(f"cannot draw {legs} legs at {height}x{width}: legs must be 3, 4 or 5, sides at least 1")
    dice, view = Dice(seed, index), canvas(height, width)
    picture = scenery.paint(view, dice)
    place(picture, view, dice, SPECIES[index % len(SPECIES)], legs=legs)
    return as_bytes(picture)


def place(picture: Array, view: Canvas, dice: Dice, species: Species, *, middle: float = 0.0, legs: int = 4) -> None:
    """Paints an animal into the picture (3, H, W), in place: about `middle` across, in a pose that the dice roll."""
    # The pose and place of the animal, all rolled before the legs so that `legs` changes nothing else.
    figure = pose(species, dice)
    add_features(figure, dice)
    scale, facing = dice.between(*species.size), 1.0 if dice.chance(0.5) else -1.0
    left = middle + dice.between(-0.025, 0.025) - facing * species.ahead * scale
    ground = dice.between(0.385, 0.43)
    tint = dice.many(3, 0.97, 1.03)[:, None, None] * np.float32(dice.between(0.95, 1.03))
    roll = dice.many(6, 0.0, 1.0)
    place_legs(figure, dice, legs)

    # Pixels in animal coordinates, which also makes a pixel 1 / (scale * view.scale) long.
    x = (view.x - np.float32(left)) * np.float32(facing / scale)
    y = (np.float32(ground) - view.y) * np.float32(1 / scale)
    scenery.shadow(picture, view, left, ground, 0.33 * scale)
    _compose(picture, figure, x, y, scale * view.scale, roll, tint)


def as_bytes(picture: Array) -> NDArray[np.uint8]:
    """A picture (3, H, W) in about [0, 1], which is overwritten, as uint8 (H, W, 3)."""
    picture = clip01(picture)
    # Adding a half before the cut to whole numbers rounds to the nearest one.
    picture *= 255
    picture += 0.5
    return np.ascontiguousarray(picture.astype(np.uint8).transpose(1, 2, 0))


def _compose(picture: Array, f: Figure, x: Array, y: Array, scale: float, roll: Array, tint: Array) -> None:
    """Paints the figure over the picture, in place, back to front."""
    groups = [f.far_legs, f.torso + f.near_legs, *(part.strokes for part in (*f.behind, *f.front))]
    starts = np.cumsum([0, *(len(g) for g in groups)])
    every = distances([stroke for g in groups for stroke in g], x, y)
    nearest = np.empty((len(groups), *every.shape[1:]), dtype=np.float32)
    for i in range(len(groups)):
        np.minimum.reduce(every[starts[i] : starts[i + 1]], axis=0, out=nearest[i])
    body = nearest[1] = soft_union(every[starts[1] : starts[2]], 0.012)
    cover = clip01(0.5 - nearest * np.float32(scale))

    # Light from above, and a darker rim that sets each part off from what lies behind it.
    rim = 0.86 + 0.14 * clip01(nearest * np.float32(-1 / 0.025))
    light = 0.80 + 0.13 * clip01(body * np.float32(-1 / 0.05)) + 0.10 * smoothstep(-0.12, 0.14, y - f.middle)
    coat = fur(f, x, y, roll) * tint

    mix(picture, cover[0], coat * np.float32(FAR_SIDE))
    for i, part in enumerate(f.behind, start=2):
        mix(picture, cover[i], rim[i] * (rgb(part.colour) * tint))
    mix(picture, cover[1], coat * light)
    for i, part in enumerate(f.front, start=2 + len(f.behind)):
        alpha = cover[i] * cover[1] if part.inside else cover[i]
        mix(picture, alpha, rim[i] * (rgb(part.colour) * tint))
