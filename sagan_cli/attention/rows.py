"""Which rows a figure has: one per picture and layer, or, to follow training, one per checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from sagan_cli.attention.cells import centre_of
from sagan_cli.attention.figure import Point, Row, percent
from sagan_cli.attention.queries import scattered, telling
from sagan_cli.attention.scene import Layer, Scene

Key = tuple[str, str]
"""Network and name of a layer."""
Points = Sequence[tuple[Point, ...]]
"""The query points of each picture."""


def layer_of(scene: Scene, key: Key) -> Layer:
    """A scene's layer; it must be there."""
    return next(layer for layer in scene.layers if (layer.network, layer.name) == key)


def telling_points(scene: Scene, key: Key, count: int) -> Points:
    """Of each picture, points that stand for the different ways in which this layer looks at it."""
    layer, size = layer_of(scene, key), _size(scene)
    chosen = (telling(maps, layer.query_grid, count) for maps in layer.maps)
    return [tuple(centre_of(cell, size, layer.query_grid) for cell in cells) for cells in chosen]


def random_points(scene: Scene, key: Key, count: int, seed: int) -> Points:
    """Of each picture, points at random; a function of seed and place in the scene."""
    layer, size = layer_of(scene, key), _size(scene)
    chosen = (scattered(layer.query_grid, count, [seed, n]) for n in range(len(layer.maps)))
    return [tuple(centre_of(cell, size, layer.query_grid) for cell in cells) for cells in chosen]


def rows_of(scene: Scene, keys: Sequence[Key], points: Points) -> list[Row]:
    """One row per picture and layer."""
    return [
        Row(scene, layer_of(scene, key), n, points[n], caption if len(keys) == 1 else f"{caption}, {key[0]} {key[1]}")
        for n, caption in enumerate(scene.captions)
        for key in keys
    ]


def strip(scenes: Sequence[Scene], keys: Sequence[Key], points: Points) -> list[Row]:
    """One row per checkpoint; further layers and pictures below each other."""
    rows = []
    for n in range(len(scenes[0].captions)):
        for key in keys:
            for scene in scenes:
                layer = layer_of(scene, key)
                caption = f"step {scene.step or 0:,}, adds {percent(float(layer.strength[n]))}"
                if len(keys) > 1:
                    caption = f"{layer.key}: {caption}"
                rows.append(Row(scene, layer, n, points[n], caption))
    return rows


def _size(scene: Scene) -> tuple[int, int]:
    return scene.pictures.shape[1], scene.pictures.shape[2]
