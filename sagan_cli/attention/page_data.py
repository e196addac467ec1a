"""Compression of attention maps for the page: optional coarsening, square-root quantisation, prediction, zlib.

`Detail` says how much of a map is kept; `DETAILS` orders them from finest to coarsest. The text of a map of n queries
and m keys is base64 of zlib of

    n (m + 2) bytes   for each query: a level for each key, entropy and distance; each minus its prediction
    n uint16          little-endian, for each query: the maximum of its row, as 65535 (1 + log_m maximum)

`page/decode.js` decodes it; change both files together.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sagan_cli.attention.attention_data import AttentionData, LayerAttention
from sagan_cli.errors import SaganError

Floats = NDArray[np.float32]
FAR = 2**0.5
"""The largest distance within an image, in units of its longer side."""
SLAB = 8
"""Rows of queries from which the size of a whole map is estimated."""


@dataclass(frozen=True)
class Detail:
    """Precision of every map."""

    levels: int
    """A value p is stored as round(levels * sqrt(p / row maximum)); error at most 1.02 / levels of the maximum."""
    queries: int
    """Longest side of the grid of queries; larger grids are averaged over square groups."""
    keys: int
    """Longest side of the grid of keys; larger grids are summed over square groups."""


ANY = 1 << 30
GRIDS = ((ANY, ANY), (64, 32), (32, 32), (32, 16), (16, 16), (16, 8), (8, 8), (8, 4), (4, 4))
DETAILS = (
    Detail(255, ANY, ANY), Detail(63, ANY, ANY),
    *(Detail(levels, queries, keys) for queries, keys in GRIDS for levels in (31, 15)),
)  # fmt: skip
"""From finest to coarsest. Levels are reduced first: 15 are just visible as steps of colour."""


@dataclass(frozen=True)
class Packed:
    """The maps of all checkpoints at one precision."""

    detail: Detail
    texts: list[list[list[str]]]
    """Base64 of one map, by checkpoint, layer and image."""


def pack(checkpoints: Sequence[AttentionData], budget: int) -> Packed | None:
    """Return all maps at the finest precision within `budget` characters, or None.

    Raises:
        SaganError: a map is not a probability.
    """
    count = sum(len(layer.maps) for data in checkpoints for layer in data.layers)
    tried: set[tuple[object, ...]] = set()
    for detail in DETAILS:
        # Details may be equal for these grids.
        effect = (detail.levels, *(groups(layer, detail) for layer in checkpoints[0].layers))
        if effect in tried or _estimate(checkpoints, detail) * count > 1.15 * budget:
            tried.add(effect)
            continue
        tried.add(effect)
        encoded: list[list[list[str]]] = []
        left = budget
        for data in checkpoints:
            encoded.append([list(texts(layer, detail)) for layer in data.layers])
            left -= sum(len(text) for layer in encoded[-1] for text in layer)
            if left < 0:
                break
        else:
            return Packed(detail, encoded)
    return None


def groups(layer: LayerAttention, detail: Detail) -> tuple[int, int]:
    """Return the sides, in cells, of the square groups of queries and of keys; 1 is no grouping."""
    return _group(layer.query_grid, detail.queries), _group(layer.key_grid, detail.keys)


def _group(grid: tuple[int, int], longest: int) -> int:
    side = 1
    while max(grid) > longest * side and not any(n % (2 * side) for n in grid):
        side *= 2
    return side


def _estimate(checkpoints: Sequence[AttentionData], detail: Detail) -> float:
    """Estimate the mean length of a map's text from part of each layer's first map, first and last checkpoint."""
    lengths = []
    for data in {id(s): s for s in (checkpoints[0], checkpoints[-1])}.values():
        for layer in data.layers:
            side = groups(layer, detail)[0]
            h, w = layer.query_grid
            rows = min(SLAB * side, h)
            top = (h - rows) // 2 // side * side
            part = slice(top * w, (top + rows) * w)
            row = [values[0][part].reshape(rows, w, -1) for values in (layer.maps, layer.entropy, layer.distance)]
            lengths.append(_length(_packed(layer, detail, *row)) * h / rows)
    return sum(lengths) / len(lengths)


def _length(data: bytes) -> int:
    return (len(data) + 2) // 3 * 4


def texts(layer: LayerAttention, detail: Detail) -> Iterator[str]:
    """Yield the text of each image's map, in the format of this module."""
    h, w = layer.query_grid
    for values in zip(layer.maps, layer.entropy, layer.distance, strict=True):
        data = _packed(layer, detail, *(v.reshape(h, w, -1) for v in values))
        yield base64.b64encode(data).decode("ascii")


def _packed(layer: LayerAttention, detail: Detail, maps: Floats, entropy: Floats, distance: Floats) -> bytes:
    """Encode some rows of queries, (h, w, M), (h, w, 1) and (h, w, 1), in the format of this module."""
    query_side, key_side = groups(layer, detail)
    p, entropy, distance = (_grouped(values, query_side) for values in (maps, entropy, distance))
    if key_side > 1:
        kh, kw = layer.key_grid
        cells = p.reshape(*p.shape[:2], kh // key_side, key_side, kw // key_side, key_side)
        p = cells.sum(axis=(3, 5)).reshape(*p.shape[:2], -1)
    levels, top = quantised(p, layer, detail.levels)
    body = np.concatenate([levels, _byte(entropy), _byte(distance / FAR)], axis=2)
    # The maximum of m probabilities is between 1/m and 1.
    log = 1 + np.log(top) / np.log(max(p.shape[2], 2))
    data = predicted(body).tobytes() + np.rint(np.clip(log, 0, 1) * 65535).astype("<u2").tobytes()
    squeeze = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_FILTERED)
    return squeeze.compress(data) + squeeze.flush()


def _byte(share: Floats) -> NDArray[np.uint8]:
    return np.rint(np.clip(np.nan_to_num(share), 0, 1) * 255).astype(np.uint8)


def _grouped(values: Floats, side: int) -> Floats:
    """Average (h, w, n) over squares of the first two axes: (h / side, w / side, n)."""
    if side == 1:
        return values
    h, w, n = values.shape
    mean: Floats = values.reshape(h // side, side, w // side, side, n).mean(axis=(1, 3), dtype=np.float32)
    return mean


def quantised(p: Floats, layer: LayerAttention, levels: int) -> tuple[NDArray[np.uint8], Floats]:
    """Return levels of the square root of each value over its row's maximum, uint8 (..., M), and the maximum (..., 1).

    Square roots give small values, which are most of them, more levels.

    Raises:
        SaganError: values that are not probabilities.
    """
    top = p.max(axis=-1, keepdims=True)
    if not (np.isfinite(p).all() and (top > 0).all() and p.min() >= 0 and top.max() <= 1.001):
        raise SaganError(
            f"attention {layer.key}: its map holds values that are not probabilities; if training diverged, use an "
            "earlier checkpoint"
        )
    return np.rint(np.sqrt(p / top) * np.float32(levels)).astype(np.uint8), np.minimum(top, 1)


def predicted(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Subtract a prediction from (h, w, m), modulo 256: from the values of the same key above, left and above-left.

    Neighbouring queries have similar maps. The predictor is the median edge detector of JPEG-LS (Weinberger et al.
    2000): the smaller or larger neighbour at an edge, the plane through the three elsewhere.
    """
    v = levels.astype(np.int16)
    guess = np.zeros_like(v)
    guess[0, 1:] = v[0, :-1]
    guess[1:, 0] = v[:-1, 0]
    up, left, corner = v[:-1, 1:], v[1:, :-1], v[:-1, :-1]
    guess[1:, 1:] = np.clip(up + left - corner, np.minimum(up, left), np.maximum(up, left))
    return (v - guess).astype(np.uint8)
