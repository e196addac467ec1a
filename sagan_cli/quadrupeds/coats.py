"""Fur: the colour of the animal at every pixel, with patches, stripes, a giraffe's network or curls of wool."""

from __future__ import annotations

import numpy as np

from sagan_cli.quadrupeds.anatomy import Figure
from sagan_cli.quadrupeds.shapes import Array, Colour, rgb, smoothstep

TURN = 2 * np.pi
HOOF: Colour = (0.30, 0.16, 0.10)


def fur(figure: Figure, x: Array, y: Array, roll: Array) -> Array:
    """Colour at animal coordinates x (1, W), y (H, 1): float32 (3, H, W), meaningful on the torso and legs.

    `roll` is 6 numbers in [0, 1) that place the marks. Marks end at the belly: legs are of one colour, with socks and
    hooves, so that each leg stands out whole.
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
    """A few large islands: three waves of different directions, cut at a level."""
    a, b, c = (np.float32(TURN) * r for r in roll[:3])
    field = np.sin(x * 17 + y * 6 + a) + np.sin(y * 19 - x * 7 + b) + 0.7 * np.sin(x * 11 - y * 15 + c)
    return smoothstep(0.10, 0.30, field)


def _stripes(x: Array, y: Array, roll: Array) -> Array:
    """Stripes across the body that lean and fork a little; about 0.115 apart, the least that 32 pixels can show."""
    bow = 1.1 * np.sin(y * 9 + TURN * roll[0]) + 9 * y * (x - 0.05)
    return smoothstep(-0.05, 0.30, np.sin(x * (TURN / 0.115) + bow + TURN * roll[1]))


def _network(x: Array, y: Array, roll: Array) -> Array:
    """Polygonal spots between pale lines: a hexagonal lattice of three waves, bent so that no two spots are alike."""
    u = x + 0.012 * np.sin(y * 31 + TURN * roll[0])
    v = y + 0.012 * np.sin(x * 27 + TURN * roll[1])
    k, turn = TURN / 0.078, 0.35 + roll[2]
    # Each direction is the sum of its neighbours, and so must the phases be, or the spots would turn into holes.
    directions = ((turn, roll[3] + roll[4]), (turn + TURN / 6, roll[3]), (turn - TURN / 6, roll[4]))
    waves = sum(np.cos(k * (np.cos(t) * u + np.sin(t) * v) + TURN * phase) for t, phase in directions)
    return smoothstep(-0.75, -0.25, np.asarray(waves, dtype=np.float32))


def _wool(x: Array, y: Array, roll: Array) -> Array:
    """Curls: little arcs in staggered rows."""
    row = y * 30 + 0.9 * np.sin(x * 24 + TURN * roll[0])
    across = x * 62 + 1.3 * np.sin(y * 40 + TURN * roll[1])
    return np.float32(0.75) * smoothstep(0.0, 1.0, np.sin(TURN * row * 0.55) * np.sin(across))


_PATTERNS = {"plain": _plain, "patches": _patches, "stripes": _stripes, "network": _network, "wool": _wool}
