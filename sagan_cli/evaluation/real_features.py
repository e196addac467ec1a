"""Features of the real images: read from the cache, or computed and cached."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagan_cli.contracts import Metric
from sagan_cli.engine.runtime import Runtime
from sagan_cli.errors import DataError
from sagan_cli.evaluation.extractors.extractor import Extractor
from sagan_cli.evaluation.features import CollectedFeatures, Indices, Measure, Moments
from sagan_cli.evaluation.image_sets import RealImages
from sagan_cli.files import discard, sha256_of, write_directory

FORMAT = 1
"""Part of every key: raise it when the features of the same images change."""


@dataclass(frozen=True)
class CachedFeatures:
    """Moments of the features of real images, and the features themselves if a metric needs them."""

    moments: Moments
    rows: NDArray[np.float32] | None
    """(N, D) in the order of the images, perhaps mapped from a file."""


@dataclass(frozen=True)
class FeatureCache:
    """Features of real images on disk, so that a second evaluation reads no real image.

        <folder>/<key>/mu.npy, sigma.npy    the moments
                       rows.npy             the features, if a metric needed them
                       manifest.json        what they were computed from, and the sha256 of each file

    The key is a digest of everything that the features depend on. An entry is created by a rename.
    """

    folder: Path
    notify: Callable[[str], None]

    def find(self, about: Mapping[str, Any], *, rows: bool) -> CachedFeatures | None:
        """Return the entry of these facts, or None; with `rows`, only an entry that has the features."""
        for with_rows in (True,) if rows else (False, True):
            path = self._path(about, with_rows)
            if path.is_dir() and (found := self._read(path, with_rows)) is not None:
                return found
        return None

    def keep(self, about: Mapping[str, Any], features: CachedFeatures) -> None:
        """Add an entry, unless another process has added it meanwhile.

        Raises:
            SaganError: the cache cannot be written.
        """

        def fill(work: Path) -> None:
            moments = features.moments
            arrays: dict[str, NDArray[np.floating]] = {"mu": moments.mean, "sigma": moments.covariance}
            if features.rows is not None:
                arrays["rows"] = features.rows
            for name, array in arrays.items():
                np.save(work / f"{name}.npy", array, allow_pickle=False)
            manifest = {
                "about": dict(about),
                "count": moments.count,
                "sha256": {name: sha256_of(work / f"{name}.npy") for name in arrays},
            }
            (work / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")

        write_directory(self._path(about, features.rows is not None), fill)

    def _path(self, about: Mapping[str, Any], rows: bool) -> Path:
        text = json.dumps([FORMAT, dict(about), rows], sort_keys=True)
        return self.folder / hashlib.sha256(text.encode()).hexdigest()[:40]

    def _read(self, path: Path, rows: bool) -> CachedFeatures | None:
        try:
            manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
            for name, digest in manifest["sha256"].items():
                if sha256_of(path / f"{name}.npy") != digest:
                    raise ValueError(f"{name}.npy is not the file that was written")
            mu, sigma = (np.load(path / f"{name}.npy", allow_pickle=False) for name in ("mu", "sigma"))
            features = np.load(path / "rows.npy", mmap_mode="r", allow_pickle=False) if rows else None
            return CachedFeatures(Moments(mu, sigma, int(manifest["count"])), features)
        except (OSError, ValueError, KeyError, TypeError) as e:
            self.notify(f"{path}: damaged statistics ({e}); computing them again")
            discard(path)
            return None


def real_features(
    real: RealImages,
    indices: Indices,
    metrics: Mapping[str, Metric],
    layers: Mapping[str, str],
    measures: Mapping[str, Measure],
    extractor: Extractor | None,
    runtime: Runtime,
    cache: FeatureCache,
    collect: Callable[..., dict[str, CollectedFeatures]],
) -> dict[str, CachedFeatures]:
    """Return features of the real images by layer, or by metric if it has a `measure`; on the leading process only.

    Args:
        indices: the images that are used.
        layers, measures: layer or function of each metric that has one.
        collect: (title, images, indices, layers, measures, keep_rows) -> features, as `collect_features`.

    Raises:
        DataError: a metric needs images, and `real` has only statistics.
    """
    compared = {name: metric for name, metric in metrics.items() if metric.real != "none"}
    wanted: dict[str, bool] = {}  # layer -> whether its rows are needed
    for name, metric in compared.items():
        if real.images is None and (metric.real == "rows" or name in measures):
            raise DataError(f"--metrics {name} needs the real images themselves: with statistics, only fid is possible")
        if name in layers:
            wanted[layers[name]] = wanted.get(layers[name], False) or metric.real == "rows"
    if real.moments is not None:
        return dict.fromkeys(wanted, CachedFeatures(real.moments, None))
    about = {layer: _about(real, indices, extractor, layer) for layer in wanted}
    cached = {layer: cache.find(about[layer], rows=rows) for layer, rows in wanted.items() if runtime.leads}
    known = {layer: found for layer, found in cached.items() if found is not None}
    missing = [layer for layer in wanted if not runtime.any_of(layer in known)]
    measured = {name: measure for name, measure in measures.items() if name in compared}
    if missing or measured:
        keep = bool(measured) or any(wanted[layer] for layer in missing)
        collected = collect("measuring the real images", real.images, indices, missing, measured, keep)
        for key, features in collected.items():  # empty on the other processes
            rows = features.array() if key in measured or wanted[key] else None
            known[key] = CachedFeatures(features.moments(), rows)
            if key not in measured:
                cache.keep(about[key], known[key])
    return known


def _about(real: RealImages, indices: Indices, extractor: Extractor | None, layer: str) -> dict[str, Any]:
    """Return everything that the features of the real images depend on."""
    assert extractor is not None
    return {
        "data": real.digest, "places": hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest(),
        "count": len(indices), "extractor": extractor.name, "weights": extractor.digest, "layer": layer,
        "resize": extractor.resize, "device": extractor.device.type,
    }  # fmt: skip
