"""Images and the attention maps of every layer as NumPy arrays, for .npz, .safetensors and --json."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

IDLE = 0.01
"""A layer with |gamma o| / |x| below this is idle: it hardly changes its input."""

Arrays = dict[str, NDArray[Any]]
Key = tuple[str, str]
"""`G` or `D`, and a layer's name."""


@dataclass(frozen=True)
class LayerAttention:
    """One attention layer over all images."""

    network: str
    """`G` or `D`."""
    name: str
    """The longer side of its feature map, or a plugin's own name."""
    maps: NDArray[np.float32]
    """(B, N, M): row n of image b is the attention of query n to the M keys; rows sum to 1; row-major positions."""
    query_grid: tuple[int, int]
    """(height, width) of the N queries; cell (i, j) covers that part of the image."""
    key_grid: tuple[int, int]
    """(height, width) of the M keys, which cover the same image with fewer cells where keys are pooled."""
    gamma: float | None
    strength: NDArray[np.float32]
    """(B,) |gamma o| / |x|."""
    entropy: NDArray[np.float32]
    """(B, N) of each row over log M: 0 for one key, 1 for uniform attention."""
    distance: NDArray[np.float32]
    """(B, N) mean distance from a query to its keys, weighted by attention, in units of the image's longer side."""

    @property
    def key(self) -> str:
        """`G 32`, as --layer takes it."""
        return f"{self.network} {self.name}"

    @property
    def idle(self) -> bool:
        """Whether the layer hardly changes its input."""
        return float(self.strength.mean()) < IDLE


@dataclass(frozen=True)
class AttentionData:
    """Images and their attention at one checkpoint."""

    step: int | None
    """Generator updates of the checkpoint, if known."""
    images: NDArray[np.uint8]
    """(B, H, W, C), C in 1, 3, 4."""
    captions: tuple[str, ...]
    """One per image: seed and class, or file name."""
    layers: tuple[LayerAttention, ...]
    """G's from the latent to the image, then D's from the image to the logit."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        return self.images.shape[1], self.images.shape[2]

    def layer(self, key: Key) -> LayerAttention:
        """Return one layer; it must exist."""
        return next(layer for layer in self.layers if (layer.network, layer.name) == key)


def arrays(checkpoints: Sequence[AttentionData]) -> Arrays:
    """Return `pictures` uint8 (B, H, W, C), and for every layer, as in `G16/maps`:

        maps                    float32 (B, N, M), rows sum to 1
        query_grid, key_grid    int64 (2,), height and width, row-major
        gamma                   float32 (), NaN where the layer has none
        strength                float32 (B,), |gamma o| / |x|
        entropy, distance       float32 (B, N), as in `LayerAttention`

    With several checkpoints the names begin with the step: `00000250/G16/maps`.
    """  # fmt: skip
    named: Arrays = {}
    for data in checkpoints:
        prefix = f"{data.step or 0:08d}/" if len(checkpoints) > 1 else ""
        named[f"{prefix}pictures"] = data.images
        for layer in data.layers:
            own = f"{prefix}{layer.network}{layer.name}"
            named[f"{own}/maps"] = layer.maps
            named[f"{own}/query_grid"] = np.array(layer.query_grid, np.int64)
            named[f"{own}/key_grid"] = np.array(layer.key_grid, np.int64)
            named[f"{own}/gamma"] = np.array(np.nan if layer.gamma is None else layer.gamma, np.float32)
            for name in ("strength", "entropy", "distance"):
                named[f"{own}/{name}"] = np.asarray(getattr(layer, name), np.float32)
    return named


def npz(values: Arrays, about: Mapping[str, Any]) -> bytes:
    """Return a compressed .npz without pickle, with `about` as JSON text. Equal input gives equal bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in {**values, "about": np.array(json.dumps(about))}.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # numpy.savez would write the time
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(value), allow_pickle=False)
    return out.getvalue()


def safetensors(values: Arrays, about: Mapping[str, Any]) -> bytes:
    """Return the same arrays as .safetensors; `about` is in the header as `sagan`."""
    return save({k: np.ascontiguousarray(v) for k, v in values.items()}, metadata={"sagan": json.dumps(about)})


def summary(layer: LayerAttention) -> dict[str, Any]:
    """Summarise a layer for --json; means over images and positions."""
    return {
        "network": layer.network,
        "layer": layer.name,
        "gamma": layer.gamma,
        "strength": float(layer.strength.mean()),
        "entropy": float(layer.entropy.mean()),
        "distance": float(layer.distance.mean()),
        "query_grid": list(layer.query_grid),
        "key_grid": list(layer.key_grid),
        "idle": layer.idle,
    }
