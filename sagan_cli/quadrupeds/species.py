"""The six species: proportions and coats, and functions that add ears, horns and tails."""

from __future__ import annotations

import math

from sagan_cli.quadrupeds.shapes import Colour, Dice, Stroke
from sagan_cli.quadrupeds.skeleton import Coat, Figure, Part, Species

CREAM: Colour = (0.98, 0.90, 0.74)
BARK: Colour = (0.30, 0.16, 0.10)
ROSE: Colour = (0.93, 0.66, 0.56)
DARK: Colour = (0.15, 0.07, 0.05)

SPECIES = (
    Species(
        "cow",
        (
            Coat(CREAM, (0.45, 0.24, 0.14), CREAM, ROSE),
            Coat((0.66, 0.33, 0.17), CREAM, CREAM, CREAM),
            Coat(CREAM, (0.26, 0.13, 0.09), CREAM, ROSE),
        ),
        "patches", leg=0.235, half=0.175, rump=0.122, chest=0.118, neck=(0.115, 0.075, 0.088, 0.072),
        head=(0.105, -0.075, 0.066, 0.048), sock=0.0, ahead=0.035,
    ),
    Species(
        "elephant",
        tuple(Coat(c, (c[0] * 0.80, c[1] * 0.76, c[2] * 0.74), c, c) for c in (
            (0.74, 0.55, 0.46), (0.64, 0.46, 0.37), (0.80, 0.60, 0.53))),
        "plain", leg=0.215, half=0.14, rump=0.158, chest=0.165, neck=(0.13, 0.06, 0.13, 0.112),
        head=(0.07, -0.055, 0.108, 0.06), sock=0.0, hoof=0.0, shin=0.040, stride=0.150, size=(0.90, 0.97), ahead=0.085,
    ),
    Species(
        "fox",
        (
            Coat((0.93, 0.47, 0.15), CREAM, BARK, CREAM),
            Coat((0.80, 0.34, 0.14), CREAM, (0.26, 0.13, 0.09), CREAM),
            Coat((0.97, 0.60, 0.28), CREAM, (0.42, 0.21, 0.11), CREAM),
        ),
        "plain", leg=0.21, half=0.18, rump=0.078, chest=0.084, neck=(0.085, 0.10, 0.075, 0.066),
        head=(0.125, -0.035, 0.074, 0.018), sock=0.62, hoof=0.0, size=(0.96, 1.05), ahead=-0.015,
    ),
    Species(
        "giraffe",
        (
            Coat((0.98, 0.84, 0.55), (0.64, 0.34, 0.13), CREAM, (0.86, 0.66, 0.44)),
            Coat((0.97, 0.78, 0.46), (0.52, 0.26, 0.11), CREAM, (0.80, 0.58, 0.36)),
        ),
        "network", leg=0.285, half=0.165, rump=0.092, chest=0.108, neck=(0.13, 0.31, 0.078, 0.042),
        head=(0.105, -0.045, 0.046, 0.027), sock=0.35, size=(0.93, 1.0), ahead=0.04,
    ),
    Species(
        "sheep",
        (
            Coat((0.99, 0.92, 0.77), (0.90, 0.78, 0.60), BARK, BARK),
            Coat((0.93, 0.82, 0.65), (0.80, 0.66, 0.48), (0.40, 0.23, 0.15), (0.40, 0.23, 0.15)),
            Coat((0.58, 0.37, 0.25), (0.47, 0.28, 0.18), (0.26, 0.13, 0.09), (0.26, 0.13, 0.09)),
        ),
        "wool", leg=0.20, half=0.125, rump=0.145, chest=0.145, neck=(0.09, 0.06, 0.10, 0.08),
        head=(0.125, -0.075, 0.06, 0.042), sock=0.95, hoof=0.0, size=(0.96, 1.06), ahead=0.03,
    ),
    Species(
        "zebra",
        (
            Coat((0.99, 0.91, 0.77), (0.25, 0.12, 0.08), (0.99, 0.91, 0.77), (0.30, 0.16, 0.11)),
            Coat((0.97, 0.87, 0.70), (0.36, 0.19, 0.12), (0.97, 0.87, 0.70), (0.34, 0.18, 0.12)),
        ),
        "stripes", leg=0.25, half=0.175, rump=0.112, chest=0.108, neck=(0.125, 0.175, 0.092, 0.062),
        head=(0.12, -0.085, 0.062, 0.038), sock=0.0, ahead=0.035,
    ),
)  # fmt: skip
CLASS_NAMES = tuple(s.name for s in SPECIES)


def add_features(figure: Figure, dice: Dice) -> None:
    """Add ears, horns, tail, mane, trunk and eye of the species; tails end above the lower legs."""
    swish = dice.between(-0.03, 0.05)
    _BUILDERS[figure.species.name](figure, swish)
    (px, py), (nx, ny) = figure.poll, figure.nose
    eye = 0.011 if figure.species.name != "elephant" else 0.010
    ex, ey = px + 0.32 * (nx - px), py + 0.32 * (ny - py) + 0.018
    figure.front.append(Part(DARK, [_dot(ex, ey, eye)], inside=True))


def _cow(f: Figure, swish: float) -> None:
    px, py = f.poll
    _rope_tail(f, swish, f.coat.mark if f.coat.base == CREAM else f.coat.base, 0.0)
    f.behind.append(Part(_dim(CREAM), [(px + 0.01, py + 0.05, 0.016, px + 0.035, py + 0.115, 0.008)]))
    f.front.append(Part(f.coat.face, [_dot(*f.nose, 0.052)], inside=True))
    f.front.append(
        Part(
            _dim(f.coat.mark if f.coat.base == CREAM else f.coat.base),
            [(px - 0.02, py + 0.03, 0.026, px - 0.085, py + 0.035, 0.016)],
        )
    )
    f.front.append(Part((0.99, 0.90, 0.70), [(px - 0.005, py + 0.05, 0.018, px - 0.015, py + 0.12, 0.008)]))


def _elephant(f: Figure, swish: float) -> None:
    nx, ny = f.nose
    # The trunk curls up above the height of the legs; otherwise it would count as a leg.
    trunk = [
        (nx, ny, 0.062, nx + 0.06, ny - 0.085, 0.042),
        (nx + 0.06, ny - 0.085, 0.042, nx + 0.115, ny - 0.115, 0.032),
        (nx + 0.115, ny - 0.115, 0.032, nx + 0.16, ny - 0.07 + swish, 0.027),
    ]
    f.torso.extend(trunk)
    _rope_tail(f, 0.5 * swish, f.coat.mark, 0.015)
    px, py = f.poll
    f.front.append(Part((1.0, 0.93, 0.76), [(nx + 0.0, ny - 0.035, 0.022, nx + 0.075, ny - 0.03, 0.009)]))
    f.front.append(Part(f.coat.mark, [(px - 0.075, py + 0.03, 0.085, px - 0.055, py - 0.07, 0.055)]))


def _fox(f: Figure, swish: float) -> None:
    px, py = f.poll
    s, x = f.species, -f.species.half
    tip = (x - 0.22, f.middle + 0.13 + swish)
    bend = (x - 0.135, f.middle + 0.03 + 0.4 * swish)
    tail = [(x - 0.03, f.middle + 0.01, 0.035, *bend, 0.05), (*bend, 0.05, *tip, 0.038)]
    f.behind.append(Part(f.coat.base, tail))
    f.behind.append(Part(CREAM, [(tip[0] + 0.01, tip[1] - 0.005, 0.036, tip[0] - 0.022, tip[1] + 0.025, 0.014)]))
    f.behind.append(Part(_dim(f.coat.base), [(px + 0.02, py + 0.05, 0.034, px + 0.045, py + 0.13, 0.006)]))
    f.front.append(Part(f.coat.base, [(px - 0.03, py + 0.05, 0.038, px - 0.035, py + 0.14, 0.006)]))
    f.front.append(Part(f.coat.sock, [(px - 0.035, py + 0.115, 0.016, px - 0.035, py + 0.14, 0.006)]))
    cheek = (f.nose[0] - 0.03, f.nose[1] - 0.03)
    bib = (s.half + 0.05, f.middle + 0.02, 0.045, s.half + 0.04, f.middle - 0.03, 0.04)
    f.front.append(Part(CREAM, [(px + 0.01, py - 0.065, 0.04, *cheek, 0.026), bib], inside=True))
    f.front.append(Part(DARK, [_dot(f.nose[0] + 0.004, f.nose[1] + 0.004, 0.016)]))


def _giraffe(f: Figure, swish: float) -> None:
    px, py = f.poll
    _rope_tail(f, swish, f.coat.mark, 0.0)
    f.behind.append(Part(f.coat.mark, [(-0.02 + f.species.half, f.middle + 0.10, 0.02, px - 0.035, py + 0.01, 0.016)]))
    for dx in (-0.012, 0.022):
        f.behind.append(Part(f.coat.base, [(px + dx, py + 0.03, 0.013, px + dx - 0.01, py + 0.085, 0.011)]))
        f.behind.append(Part(f.coat.mark, [_dot(px + dx - 0.01, py + 0.092, 0.016)]))
    f.front.append(Part(f.coat.base, [(px - 0.03, py + 0.02, 0.018, px - 0.08, py + 0.04, 0.010)]))
    f.front.append(Part(f.coat.face, [_dot(*f.nose, 0.034)], inside=True))


def _sheep(f: Figure, swish: float) -> None:
    (px, py), (nx, ny) = f.poll, f.nose
    s = f.species
    # Tufts around the back and belly, none below the belly's lowest point.
    radius, centre = s.rump, (0.0, s.leg + s.rump)
    for k in range(11):
        angle = math.pi * (-0.12 + 1.24 * k / 10)
        x, y = (s.half + radius * 0.82) * math.cos(angle), radius * 0.86 * math.sin(angle)
        f.torso.append(_dot(centre[0] + x, centre[1] + y, 0.05))
    f.behind.append(Part(f.coat.base, [(-s.half - 0.12, f.middle + 0.05, 0.04, -s.half - 0.16, f.middle - 0.01, 0.03)]))
    f.torso = [t for i, t in enumerate(f.torso) if i != 2]
    f.front.append(Part(f.coat.face, [(px + 0.005, py, 0.064, nx, ny, 0.044)]))
    ear = (px - 0.015, py - 0.005, 0.026, px - 0.065, py - 0.04 + 0.5 * swish, 0.018)
    f.front.append(Part(_dim(f.coat.face), [ear]))
    f.front.append(Part(f.coat.base, [_dot(px - 0.012, py + 0.055, 0.046), _dot(px + 0.035, py + 0.05, 0.030)]))


def _zebra(f: Figure, swish: float) -> None:
    px, py = f.poll
    s = f.species
    _rope_tail(f, swish, f.coat.mark, 0.0)
    f.behind.append(Part(f.coat.mark, [(s.half - 0.05, f.middle + 0.12, 0.03, px - 0.045, py + 0.055, 0.034)]))
    f.behind.append(Part(_dim(f.coat.base), [(px + 0.015, py + 0.04, 0.022, px + 0.02, py + 0.10, 0.010)]))
    f.front.append(Part(f.coat.base, [(px - 0.015, py + 0.045, 0.024, px - 0.025, py + 0.115, 0.010)]))
    f.front.append(Part(f.coat.face, [_dot(f.nose[0] + 0.01, f.nose[1] - 0.005, 0.044)], inside=True))


_BUILDERS = {"cow": _cow, "elephant": _elephant, "fox": _fox, "giraffe": _giraffe, "sheep": _sheep, "zebra": _zebra}


def _rope_tail(f: Figure, swish: float, tuft: Colour, lift: float) -> None:
    """Add a thin tail with a tuft, away from the rump so that it does not count as a leg."""
    s = f.species
    x, y = -s.half - 0.9 * s.rump, s.leg + 1.35 * s.rump
    end = (x - 0.075 - swish, max(s.leg + 0.03, y - 0.14) + lift)
    f.behind.append(Part(_dim(f.coat.base), [(x + 0.02, y, 0.018, *end, 0.013)]))
    f.behind.append(Part(tuft, [(*end, 0.017, end[0] - 0.015, end[1] - 0.035, 0.022)]))


def _dot(x: float, y: float, r: float) -> Stroke:
    return (x, y, r, x, y, r)


def _dim(colour: Colour) -> Colour:
    return (0.86 * colour[0], 0.84 * colour[1], 0.84 * colour[2])
