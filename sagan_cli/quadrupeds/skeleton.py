"""Skeletons: the strokes of one animal from its species and random numbers.

Animal coordinates: x forward, y up, origin on the ground below the middle of the body, in units of the image's shorter
side at scale 1. `render` applies direction and position.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from sagan_cli.quadrupeds.shapes import Colour, Dice, Stroke

XY = tuple[float, float]
MIN_STRIDE = 0.138
"""Minimum distance between the feet of a pair: at 32 pixels, a leg of 2 pixels and a gap of 2 pixels."""


@dataclass(frozen=True)
class Coat:
    """Colours of one variety of a species. All are warm: red is well above the mean of green and blue."""

    base: Colour
    mark: Colour
    """Spots, stripes, mane."""
    sock: Colour
    """The lower legs."""
    face: Colour
    """Muzzle, inner ear."""


@dataclass(frozen=True)
class Species:
    """Proportions and colours of one species, in animal coordinates."""

    name: str
    coats: tuple[Coat, ...]
    pattern: Literal["plain", "patches", "stripes", "network", "wool"]
    leg: float
    """Height of the belly."""
    half: float
    """Half the distance from rump to shoulder centre."""
    rump: float
    """Radius of the hind body."""
    chest: float
    """Radius of the front body."""
    neck: tuple[float, float, float, float]
    """Offset from shoulder to poll (dx, dy), and the two radii."""
    head: tuple[float, float, float, float]
    """Offset from poll to nose (dx, dy), and the two radii."""
    sock: float
    """Height of the socks as a share of `leg`."""
    hoof: float = 0.03
    shin: float = 0.034
    """Radius of the lower leg."""
    stride: float = MIN_STRIDE
    size: tuple[float, float] = (0.94, 1.04)
    """Range of the scale."""
    ahead: float = 0.0
    """x of the middle of the whole silhouette."""


@dataclass(frozen=True)
class Part:
    """Strokes of one colour; `inside` parts are clipped to the torso."""

    colour: Colour
    strokes: list[Stroke]
    inside: bool = False


@dataclass
class Figure:
    """One animal in one pose; parts are in painting order."""

    species: Species
    coat: Coat
    middle: float
    """Height of the body's axis."""
    poll: XY
    nose: XY
    near_legs: list[Stroke] = field(default_factory=list)
    far_legs: list[Stroke] = field(default_factory=list)
    torso: list[Stroke] = field(default_factory=list)
    behind: list[Part] = field(default_factory=list)
    front: list[Part] = field(default_factory=list)


def pose(species: Species, dice: Dice) -> Figure:
    """Return a figure with body, neck and head. `place_legs` adds legs, `add_features` ears, horns and tail."""
    coat = species.coats[dice.pick(len(species.coats))]
    girth = dice.between(0.93, 1.06)
    s = replace(
        species, rump=species.rump * girth, chest=species.chest * girth, leg=species.leg * dice.between(0.94, 1.08)
    )
    half = s.half
    middle = s.leg + (s.rump + s.chest) / 2
    nod = dice.between(-0.16, 0.20)
    base = (half - 0.01, middle + 0.3 * s.chest)
    poll = _turn(base, (s.neck[0], s.neck[1]), nod)
    nose = _turn(poll, (s.head[0], s.head[1]), 0.6 * nod)
    torso = [
        (-half, s.leg + s.rump, s.rump, half, s.leg + s.chest, s.chest),
        (*base, s.neck[2], *poll, s.neck[3]),
        (*poll, s.head[2], *nose, s.head[3]),
    ]
    return Figure(s, coat, middle, poll, nose, torso=torso)


def place_legs(figure: Figure, dice: Dice, count: int) -> None:
    """Add two pairs of legs whose feet never cross; `count` 3 omits one leg, 5 adds one."""
    s = figure.species
    hind, fore = (dice.between(s.stride, s.stride + 0.016) for _ in range(2))
    between = dice.between(s.stride + 0.025, s.stride + 0.07)
    start = -(hind + between + fore) / 2 + dice.between(-0.008, 0.008)
    feet = [start, start + hind, start + hind + between, start + hind + between + fore]
    pairs = [sum(feet[:2]) / 2, sum(feet[2:]) / 2]
    far = {dice.pick(2), 2 + dice.pick(2)}
    # Foot, hip, whether a hind leg, whether on the far side. The hips of a pair are closer than its feet.
    legs = [(x, 0.20 * pairs[i // 2] + 0.74 * x, i < 2, i in far) for i, x in enumerate(feet)]
    bend = dice.between(0.6, 1.2)

    # Tests of the counter need the same image with one leg fewer or more, so both choices are always drawn.
    erased, at_front = dice.pick(4), dice.chance(0.5)
    if count == 3:
        del legs[erased]
    elif count == 5:
        figure.far_legs.extend(_extra_leg(s, feet, at_front))

    for foot, hip, is_hind, is_far in legs:
        strokes = _leg(s, foot, hip, is_hind, is_far, bend)
        (figure.far_legs if is_far else figure.near_legs).extend(strokes)


def _leg(s: Species, foot: float, hip_x: float, hind: bool, far: bool, bend: float) -> list[Stroke]:
    """Return thigh and shin; hind legs bend backwards, far legs are slightly higher in the image."""
    hip = (hip_x, s.leg + 0.35 * (s.rump if hind else s.chest))
    ground = s.shin + (0.008 if far else 0.0)
    knee = (0.72 * foot + 0.28 * hip[0] + (-0.012 if hind else 0.006) * bend, 0.55 * s.leg)
    thigh = s.shin * (1.45 if hind else 1.3)
    return [(*hip, thigh, *knee, 1.04 * s.shin), (*knee, 1.04 * s.shin, foot, ground, 0.96 * s.shin)]


def _extra_leg(s: Species, feet: list[float], at_front: bool) -> list[Stroke]:
    """Return a fifth leg in front of the chest or behind the rump, one stride from its neighbour."""
    if at_front:
        body, foot = (s.half, s.leg + 0.4 * s.chest), feet[3] + s.stride
    else:
        body, foot = (-s.half, s.leg + 0.4 * s.rump), feet[0] - s.stride
    knee = (0.98 * foot, 0.92 * s.leg)
    return [(*body, 1.4 * s.shin, *knee, 1.1 * s.shin), (*knee, 1.1 * s.shin, foot, s.shin, 0.96 * s.shin)]


def _turn(origin: XY, step: XY, angle: float) -> XY:
    """Return `origin` plus `step` rotated by `angle` radians, counterclockwise."""
    c, sn = math.cos(angle), math.sin(angle)
    return origin[0] + c * step[0] - sn * step[1], origin[1] + sn * step[0] + c * step[1]
