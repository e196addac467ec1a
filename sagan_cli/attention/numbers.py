"""Attention as numbers: arrays for .npz and .safetensors, a summary for --json."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from sagan_cli.attention.scene import Layer, Scene

Arrays = dict[str, NDArray[Any]]


def arrays(scenes: Sequence[Scene]) -> Arrays:
    """`pictures` uint8 (B, H, W, C), and for every layer, as in `G16/maps`:

        maps                    float32 (B, N, M), rows sum to 1
        query_grid, key_grid    int64 (2,), height and width, row-major
        gamma                   float32 (), not a number where the layer has none
        strength                float32 (B,), |gamma o| / |x|
        entropy, distance       float32 (B, N), as in `Layer`

    Of several scenes the names begin with the step: `00000250/G16/maps`.
    """  # fmt: skip
    found: Arrays = {}
    for scene in scenes:
        prefix = f"{scene.step or 0:08d}/" if len(scenes) > 1 else ""
        found[f"{prefix}pictures"] = scene.pictures
        for layer in scene.layers:
            own = f"{prefix}{layer.network}{layer.name}"
            found[f"{own}/maps"] = layer.maps
            found[f"{own}/query_grid"] = np.array(layer.query_grid, np.int64)
            found[f"{own}/key_grid"] = np.array(layer.key_grid, np.int64)
            found[f"{own}/gamma"] = np.array(np.nan if layer.gamma is None else layer.gamma, np.float32)
            for name in ("strength", "entropy", "distance"):
                found[f"{own}/{name}"] = np.asarray(getattr(layer, name), np.float32)
    return found


def npz(values: Arrays, about: Mapping[str, Any]) -> bytes:
    """Compressed, without pickle; `about` is the text `about` (JSON). Equal input gives equal bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in {**values, "about": np.array(json.dumps(about))}.items():
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(value), allow_pickle=False)
    return out.getvalue()


def safetensors(values: Arrays, about: Mapping[str, Any]) -> bytes:
    """The same arrays; `about` stands in the header as `sagan`."""
    return save({k: np.ascontiguousarray(v) for k, v in values.items()}, metadata={"sagan": json.dumps(about)})


def summary(layer: Layer) -> dict[str, Any]:
    """One layer in few numbers, means over pictures and positions."""
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
