"""Tells from the picture alone whether the animals at its two ends are of one kind: by colours, bulk and height.

There is no trained network here, as in `legs`, and the same property is relied on: animals are warm, scenes are cool.
Measured accuracy: docs/results/quadrupeds_pairs.json.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sagan_cli.data.quadrupeds.legs import LEAST_WHOLE, connected

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

WORKING_HEIGHT = 16
"""Larger pictures are averaged down to about this height, so that the same numbers hold at every size."""
WARM = 0.06
"""Red above the mean of green and blue, of 1, from which a pixel belongs to an animal."""
LEAST_ANIMAL = 0.08
"""Share of a square that must be warm for it to show one."""
WITHIN = np.array([0.033, 0.020, 0.019, 0.017, 0.009, 0.009, 0.025, 0.047], dtype=np.float32)
"""Standard deviation of `traits` between two animals of one kind."""
SAME = 1.75
"""Root mean square of the differences, in units of WITHIN, up to which two animals are of one kind."""
CHUNK = 256


def of_one_kind(images: NDArray[np.uint8] | NDArray[np.floating]) -> Bools:
    """Whether both end squares show an animal, and two that are alike: (N, H, W, 3) -> bool (N,).

    Images are uint8 or floating in [0, 1]. False where a picture is narrower than two squares.

    Raises:
        ValueError: another shape.
    """
    first, last = traits(images, last=False), traits(images, last=True)
    return np.asarray(like(first, last) & (images.shape[2] >= 2 * images.shape[1]))


def like(one: Floats, other: Floats) -> Bools:
    """Whether animals of these traits, (N, 8) each, are of one kind; where there is none, it is like no other."""
    apart = np.sqrt((((one - other) / WITHIN) ** 2).mean(axis=1))
    return np.asarray(apart <= SAME)  # False for NaN


def traits(images: NDArray[np.uint8] | NDArray[np.floating], *, last: bool) -> Floats:
    """What an end square's animal looks like: float32 (N, 8), NaN where the square shows none.

    The mean and the standard deviation over the animal of three colours (brightness, red less green, green less blue,
    of 1), its share of the square, and how far below the square's upper edge it begins, of the square's height.

    Raises:
        ValueError: not (N, H, W, 3).
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"pairs are pictures of shape (H, W, 3), not {images.shape[1:]}")
    side = images.shape[1]
    squares = images[:, :, -side:] if last else images[:, :, :side]
    found = [_traits(squares[i : i + CHUNK]) for i in range(0, len(squares), CHUNK)]
    return np.concatenate(found) if found else np.zeros((0, len(WITHIN)), np.float32)


def _traits(squares: NDArray[np.uint8] | NDArray[np.floating]) -> Floats:
    factor = max(1, squares.shape[1] // WORKING_HEIGHT)
    rows, columns = squares.shape[1] // factor, squares.shape[2] // factor
    x = squares[:, : rows * factor, : columns * factor].astype(np.float32)
    x = x.reshape(len(x), rows, factor, columns, factor, 3).mean(axis=(2, 4))
    if squares.dtype == np.uint8:
        x /= 255
    red, green, blue = x[..., 0], x[..., 1], x[..., 2]
    warm = red - 0.5 * (green + blue) > WARM
    # Where the body is, its row is crossed by more of the animal than any other.
    animal = connected(warm, warm.sum(axis=2).argmax(axis=1))
    there = (animal.mean(axis=(1, 2)) >= LEAST_ANIMAL) & (
        animal.sum(axis=(1, 2)) >= LEAST_WHOLE * warm.sum(axis=(1, 2))
    )

    colours = np.stack([(red + green + blue) / 3, red - green, green - blue], axis=3)
    weight, count = animal[..., None], np.maximum(animal.sum(axis=(1, 2)), 1)[:, None]
    mean = (colours * weight).sum(axis=(1, 2)) / count
    spread = np.sqrt(((colours - mean[:, None, None]) ** 2 * weight).sum(axis=(1, 2)) / count)
    bulk = animal.mean(axis=(1, 2))[:, None]
    top = (animal.any(axis=2).argmax(axis=1) / rows)[:, None]
    found = np.concatenate([mean, spread, bulk, top], axis=1, dtype=np.float32)
    found[~there] = np.nan
    return found
