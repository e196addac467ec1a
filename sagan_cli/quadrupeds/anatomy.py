"""The skeletons: from a species and a roll of the dice to the strokes of one animal.

Animal coordinates: x forward, y up, (0, 0) on the ground below the middle of the body, in units of the picture's
shorter side at scale 1. Which way the animal faces and where it stands is `draw`'s business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from sagan_cli.quadrupeds.shapes import Colour, Dice, Stroke

Point = tuple[float, float]
MIN_STRIDE = 0.138
"""Least distance between two feet of a pair: at 32 pixels a leg of 2 and a gap of 2 pixels still fit."""


@dataclass(frozen=True)
class Coat:
    """The colours of one variety of a species. All are warm: red is clearly above the mean of green and blue."""

    base: Colour
    mark: Colour
    """Spots, stripes, mane."""
    sock: Colour
    """The lower legs."""
    face: Colour
    """Muzzle, inner ear."""


@dataclass(frozen=True)
class Species:
    """One kind of animal. Lengths as in the module's coordinates."""

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
    """To the poll from the shoulder (dx, dy), and the two radii."""
    head: tuple[float, float, float, float]
    """To the nose from the poll (dx, dy), and the two radii."""
    sock: float
    """Height of the socks as a share of `leg`."""
    hoof: float = 0.03
    shin: float = 0.034
    """Radius of the lower leg."""
    stride: float = MIN_STRIDE
    size: tuple[float, float] = (0.94, 1.04)
    """Range of the scale."""
    ahead: float = 0.0
    """How far the middle of the whole silhouette lies before the middle of the body."""


@dataclass(frozen=True)
class Part:
    """Strokes of one colour; `inside` parts show only where the torso is."""

    colour: Colour
    strokes: list[Stroke]
    inside: bool = False


@dataclass
class Figure:
    """One animal in one pose, its parts in painting order."""

    species: Species
    coat: Coat
    middle: float
    """Height of the body's axis."""
    poll: Point
    nose: Point
    near_legs: list[Stroke] = field(default_factory=list)
    far_legs: list[Stroke] = field(default_factory=list)
    torso: list[Stroke] = field(default_factory=list)
    behind: list[Part] = field(default_factory=list)
    front: list[Part] = field(default_factory=list)


def pose(species: Species, dice: Dice) -> Figure:
    """Body, neck and head. The legs come from `place_legs`, the ears, horns and tail from `add_features`."""
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
    """Adds the legs: two pairs mid-stride whose feet never cross; `count` 3 leaves one out, 5 draws one more."""
    s = figure.species
    hind, fore = (dice.between(s.stride, s.stride + 0.016) for _ in range(2))
    between = dice.between(s.stride + 0.025, s.stride + 0.07)
    start = -(hind + between + fore) / 2 + dice.between(-0.008, 0.008)
    feet = [start, start + hind, start + hind + between, start + hind + between + fore]
    pairs = [sum(feet[:2]) / 2, sum(feet[2:]) / 2]
    far = {dice.pick(2), 2 + dice.pick(2)}
    # Foot, hip, whether a hind leg, whether on the far side. The hips of a pair stand closer than its feet.
    legs = [(x, 0.20 * pairs[i // 2] + 0.74 * x, i < 2, i in far) for i, x in enumerate(feet)]
    bend = dice.between(0.6, 1.2)

    # The checker's test needs the same picture with one leg fewer or more; both choices are always rolled.
    erased, at_front = dice.pick(4), dice.chance(0.5)
    if count == 3:
        del legs[erased]
    elif count == 5:
        figure.far_legs.extend(_extra_leg(s, feet, at_front))

    for foot, hip, is_hind, is_far in legs:
        strokes = _leg(s, foot, hip, is_hind, is_far, bend)
        (figure.far_legs if is_far else figure.near_legs).extend(strokes)


def _leg(s: Species, foot: float, hip_x: float, hind: bool, far: bool, bend: float) -> list[Stroke]:
    """Thigh and shin; hind legs have the hock bent backwards, and far legs stand a little higher in the picture."""
    hip = (hip_x, s.leg + 0.35 * (s.rump if hind else s.chest))
    ground = s.shin + (0.008 if far else 0.0)
    knee = (0.72 * foot + 0.28 * hip[0] + (-0.012 if hind else 0.006) * bend, 0.55 * s.leg)
    thigh = s.shin * (1.45 if hind else 1.3)
    return [(*hip, thigh, *knee, 1.04 * s.shin), (*knee, 1.04 * s.shin, foot, ground, 0.96 * s.shin)]


def _extra_leg(s: Species, feet: list[float], at_front: bool) -> list[Stroke]:
    """A fifth leg before the chest or behind the rump, a stride from its neighbour, joined to the body high up."""
    if at_front:
        body, foot = (s.half, s.leg + 0.4 * s.chest), feet[3] + s.stride
    else:
        body, foot = (-s.half, s.leg + 0.4 * s.rump), feet[0] - s.stride
    knee = (0.98 * foot, 0.92 * s.leg)
    return [(*body, 1.4 * s.shin, *knee, 1.1 * s.shin), (*knee, 1.1 * s.shin, foot, s.shin, 0.96 * s.shin)]


def _turn(origin: Point, step: Point, angle: float) -> Point:
    """`origin` plus `step` turned by `angle` radians, nose up for positive ones."""
    c, sn = math.cos(angle), math.sin(angle)
    return origin[0] + c * step[0] - sn * step[1], origin[1] + sn * step[0] + c * step[1]
