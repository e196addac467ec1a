"""Attention maps in few bytes: coarsened where they must be, quantised by square roots, predicted, deflated.

How much of a map is kept is said by a `Detail`; `DETAILS` orders them from everything to little. The text of one map of
n query positions and m keys is base64 of zlib of

    n (m + 2) bytes   for each position: a level for each key, its entropy, its distance; each less its prediction
    n uint16          little-endian, for each position: its row's largest share, as 65535 (1 + log_m share)

`page/decode.js` undoes it; the two files change together.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sagan_cli.attention.scene import Layer, Scene
from sagan_cli.errors import SaganError

Floats = NDArray[np.float32]
FAR = 2**0.5
"""The largest distance within a picture, in units of its longer side."""
SLAB = 8
"""Rows of query positions whose size stands for the whole map's when a detail is tried."""


@dataclass(frozen=True)
class Detail:
    """What is kept of every map."""

    levels: int
    """A share p is kept as round(levels * sqrt(p / the row's largest)): wrong by 1.02 / levels of that at most."""
    queries: int
    """Longest side of the grid of query positions; larger grids are kept as means over square groups."""
    keys: int
    """Longest side of the grid of keys; larger grids are kept as sums over square groups."""


ANY = 1 << 30
GRIDS = ((ANY, ANY), (64, 32), (32, 32), (32, 16), (16, 16), (16, 8), (8, 8), (8, 4), (4, 4))
DETAILS = (
    Detail(255, ANY, ANY), Detail(63, ANY, ANY),
    *(Detail(levels, queries, keys) for queries, keys in GRIDS for levels in (31, 15)),
)  # fmt: skip
"""From everything to little. 15 levels are just seen as steps of colour; where attention lies is given up last."""


@dataclass(frozen=True)
class Packed:
    """The maps of all scenes at one detail."""

    detail: Detail
    texts: list[list[list[str]]]
    """Base64 of one map, by scene, layer and picture."""


def pack(scenes: Sequence[Scene], budget: int) -> Packed | None:
    """All maps at the finest detail at which they take at most `budget` characters; None where no detail does.

    Raises:
        SaganError: a map holds something else than shares of attention.
    """
    count = sum(len(layer.maps) for scene in scenes for layer in scene.layers)
    before: set[tuple[object, ...]] = set()
    for detail in DETAILS:
        # A detail that changes nothing for these grids has been tried already.
        effect = (detail.levels, *(groups(layer, detail) for layer in scenes[0].layers))
        if effect in before or _guess(scenes, detail) * count > 1.15 * budget:
            before.add(effect)
            continue
        before.add(effect)
        found: list[list[list[str]]] = []
        left = budget
        for scene in scenes:
            found.append([list(texts(layer, detail)) for layer in scene.layers])
            left -= sum(len(text) for layer in found[-1] for text in layer)
            if left < 0:
                break
        else:
            return Packed(detail, found)
    return None


def groups(layer: Layer, detail: Detail) -> tuple[int, int]:
    """Sides, in cells, of the square groups that query positions and keys are kept in; 1 keeps each by itself."""
    return _group(layer.query_grid, detail.queries), _group(layer.key_grid, detail.keys)


def _group(grid: tuple[int, int], longest: int) -> int:
    side = 1
    while max(grid) > longest * side and not any(n % (2 * side) for n in grid):
        side *= 2
    return side


def _guess(scenes: Sequence[Scene], detail: Detail) -> float:
    """Mean length of a map's text, from a slab of the first map of each layer at both ends of the training."""
    found = []
    for scene in {id(s): s for s in (scenes[0], scenes[-1])}.values():
        for layer in scene.layers:
            side = groups(layer, detail)[0]
            h, w = layer.query_grid
            rows = min(SLAB * side, h)
            top = (h - rows) // 2 // side * side
            part = slice(top * w, (top + rows) * w)
            row = [values[0][part].reshape(rows, w, -1) for values in (layer.maps, layer.entropy, layer.distance)]
            found.append(_length(_packed(layer, detail, *row)) * h / rows)
    return sum(found) / len(found)


def _length(data: bytes) -> int:
    return (len(data) + 2) // 3 * 4


def texts(layer: Layer, detail: Detail) -> Iterator[str]:
    """The text of each picture's map, in the form that this file begins with."""
    h, w = layer.query_grid
    for values in zip(layer.maps, layer.entropy, layer.distance, strict=True):
        data = _packed(layer, detail, *(v.reshape(h, w, -1) for v in values))
        yield base64.b64encode(data).decode("ascii")


def _packed(layer: Layer, detail: Detail, maps: Floats, entropy: Floats, distance: Floats) -> bytes:
    """Some rows of query positions, (h, w, M), (h, w, 1) and (h, w, 1), as the bytes that this file begins with."""
    query_side, key_side = groups(layer, detail)
    p, entropy, distance = (_grouped(values, query_side) for values in (maps, entropy, distance))
    if key_side > 1:
        kh, kw = layer.key_grid
        cells = p.reshape(*p.shape[:2], kh // key_side, key_side, kw // key_side, key_side)
        p = cells.sum(axis=(3, 5)).reshape(*p.shape[:2], -1)
    levels, top = quantised(p, layer, detail.levels)
    body = np.concatenate([levels, _byte(entropy), _byte(distance / FAR)], axis=2)
    # The largest of m shares lies between 1/m and 1.
    log = 1 + np.log(top) / np.log(max(p.shape[2], 2))
    data = predicted(body).tobytes() + np.rint(np.clip(log, 0, 1) * 65535).astype("<u2").tobytes()
    squeeze = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_FILTERED)
    return squeeze.compress(data) + squeeze.flush()


def _byte(share: Floats) -> NDArray[np.uint8]:
    return np.rint(np.clip(np.nan_to_num(share), 0, 1) * 255).astype(np.uint8)


def _grouped(values: Floats, side: int) -> Floats:
    """(h, w, n) -> (h / side, w / side, n): means over squares of the first two axes."""
    if side == 1:
        return values
    h, w, n = values.shape
    mean: Floats = values.reshape(h // side, side, w // side, side, n).mean(axis=(1, 3), dtype=np.float32)
    return mean


def quantised(p: Floats, layer: Layer, levels: int) -> tuple[NDArray[np.uint8], Floats]:
    """Levels of the square root of each share of its row's largest, uint8 (..., M), and the largest (..., 1).

    Square roots spend the levels where most shares are.

    Raises:
        SaganError: values that are no shares.
    """
    top = p.max(axis=-1, keepdims=True)
    if not (np.isfinite(p).all() and (top > 0).all() and p.min() >= 0 and top.max() <= 1.001):
        raise SaganError(
            f"attention {layer.key}: its map holds something else than shares of attention; if training diverged, "
            "use an earlier checkpoint"
        )
    return np.rint(np.sqrt(p / top) * np.float32(levels)).astype(np.uint8), np.minimum(top, 1)


def predicted(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(h, w, m) minus what the neighbours above, left and above-left foretell for the same key, modulo 256.

    Neighbours look at much the same places. The foretelling is the median edge detector of JPEG-LS (Weinberger et al.
    2000): the smaller or larger neighbour at an edge, the plane through the three elsewhere.
    """
    v = levels.astype(np.int16)
    guess = np.zeros_like(v)
    guess[0, 1:] = v[0, :-1]
    guess[1:, 0] = v[:-1, 0]
    up, left, corner = v[:-1, 1:], v[1:, :-1], v[:-1, :-1]
    guess[1:, 1:] = np.clip(up + left - corner, np.minimum(up, left), np.maximum(up, left))
    return (v - guess).astype(np.uint8)
