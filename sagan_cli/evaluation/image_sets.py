"""The two sets of images of a score: generated images, drawn on demand, and real ones, whose features are cached."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sagan_cli.config.schema import DataConfig
from sagan_cli.contracts import Metric, ModelSpec, Progress
from sagan_cli.data.holdout import split
from sagan_cli.data.packing.pack import Pack, PackRequest, packed_dataset
from sagan_cli.data.sources import opening as sources
from sagan_cli.engine.runtime import Runtime
from sagan_cli.engine.sample import Request, latents, pictures
from sagan_cli.errors import DataError, UsageError
from sagan_cli.evaluation.extractors.extractor import Extractor
from sagan_cli.evaluation.features import CollectedFeatures, ImageSet, Indices, Measure, Moments
from sagan_cli.evaluation.images.npz import read_statistics
from sagan_cli.evaluation.images.opening import open_images
from sagan_cli.evaluation.options import HELD_OUT, TRAINING
from sagan_cli.files import discard, sha256_of, write_directory
from sagan_cli.ops.randomness import generator
from sagan_cli.plugins import registry


@dataclass(frozen=True)
class PackedImages:
    """Images of a pack, given by their indices."""

    pack: Pack
    chosen: Indices

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def labels(self) -> NDArray[np.int64] | None:
        return self.pack.labels[self.chosen] if self.pack.class_names else None

    def batches(self, size: int, order: Indices | None = None) -> Iterator[NDArray[np.uint8]]:
        order = self.chosen if order is None else self.chosen[order]
        for start in range(0, len(order), size):
            yield self.pack.images[order[start : start + size]]


@dataclass(frozen=True)
class GeneratedImages:
    """Images of a generator, one per request; with seeds s, s + 1, ... those of `sagan sample --seed s`."""

    network: nn.Module
    spec: ModelSpec
    requests: Sequence[Request]
    runtime: Runtime
    truncation: float | None = None
    batch_statistics: bool = False
    """Whether batch norm uses the statistics of each batch instead of the saved ones."""

    def __len__(self) -> int:
        return len(self.requests)

    @property
    def labels(self) -> NDArray[np.int64] | None:
        if not self.spec.num_classes:
            return None
        _, y = latents(self.requests, self.spec, None)
        return None if y is None else y.numpy()

    def batches(self, size: int, order: Indices | None = None) -> Iterator[NDArray[np.uint8]]:
        chosen = self.requests if order is None else [self.requests[i] for i in order.tolist()]
        with batch_statistics(self.network, self.batch_statistics):
            for drawn, _ in pictures(
                self.network, self.spec, chosen, self.runtime,
                truncation=self.truncation, batch=size, whole=self.batch_statistics,
            ):  # fmt: skip
                yield drawn


@dataclass(frozen=True)
class FirstImages:
    """The first `count` images of a set."""

    images: ImageSet
    count: int

    def __post_init__(self) -> None:
        if self.count > len(self.images):
            raise UsageError(f"-n {self.count}: there are only {len(self.images):,} images")

    def __len__(self) -> int:
        return self.count

    @property
    def labels(self) -> NDArray[np.int64] | None:
        labels = self.images.labels
        return None if labels is None else labels[: self.count]

    def batches(self, size: int, order: Indices | None = None) -> Iterator[NDArray[np.uint8]]:
        return self.images.batches(size, np.arange(self.count) if order is None else order)


@dataclass(frozen=True)
class RealImages:
    """The real images of a score, or ready statistics of their features."""

    images: ImageSet | None
    digest: str
    """Of content and transform: equal digests mean equal features."""
    class_names: tuple[str, ...] = ()
    moments: Moments | None = None
    """Ready statistics, where `images` is None."""
    pack: Pack | None = None
    """The pack, where the images were fitted to a size."""
    source: str = ""
    """The value of `--data`; `measure` finds the dataset's factory by it."""
    facts: dict[str, Any] = field(default_factory=dict)
    """`data`, `data_digest`, `split`, `real_size` and `fit` of the record."""

    def measure(self, name: str) -> Measure | None:
        """Return the attribute `name` of the dataset's factory, a function for metrics; None without one."""
        if self.pack is None or self.pack.images.shape[-1] != 3 or self.source not in registry.names("datasets"):
            return None
        found: Measure | None = getattr(registry.load("datasets", self.source), name, None)
        return found


def packed_images(
    pack: Pack, source: str, facts: dict[str, Any] | None = None, chosen: Indices | None = None
) -> RealImages:
    """Return the images of an open pack, or those of the indices `chosen`."""
    digest = pack.digest
    if chosen is None:
        chosen = np.arange(len(pack.images))
    elif len(chosen) < len(pack.images):
        digest = hashlib.sha256(f"{digest}/".encode() + chosen.astype("<i8").tobytes()).hexdigest()
    return RealImages(
        PackedImages(pack, chosen), digest, pack.class_names, pack=pack, source=source, facts=facts or {}
    )  # fmt: skip


def fitted_images(
    data: DataConfig,
    height: int,
    width: int,
    channels: int | None,
    progress: Progress,
    notify: Callable[[str], None],
    *,
    part: str = TRAINING,
) -> RealImages:
    """Open images resized to a model's size exactly as in training: the same pack, so the same digest.

    Args:
        part: the images that are trained on, or those that `data.holdout` reserves.

    Raises:
        UsageError, DataError: as for training; or no image is held out.
    """
    dataset = sources.open_source(
        data.data, data_root=Path(data.data_root), split=data.split, height=height, width=width,
        unconditional=data.unconditional,
    )  # fmt: skip
    # The channels of the training setting first, whose pack usually exists.
    own = None if data.channels == "auto" else int(data.channels)
    pack = packed_dataset(dataset, PackRequest(height, width, own, data.fit), data.max_bad, progress, notify)
    if channels is not None and pack.images.shape[-1] != channels:
        pack = packed_dataset(dataset, PackRequest(height, width, channels, data.fit), data.max_bad, progress, notify)
    transform = json.loads(pack.manifest.read_text(encoding="utf-8"))["transform"]
    facts = {
        "data": data.data,
        "split": data.split if sources.has_parts(data.data) else None,
        "real_size": f"{height}x{width}", "fit": transform["fit"],
    }  # fmt: skip
    training, held_out = split(pack, data.holdout)
    if part == HELD_OUT:
        if not len(held_out):
            raise UsageError(f"{data.data}: no image is held out: train with --holdout, or name others with --held-out")
        facts["split"] = HELD_OUT
    real = packed_images(pack, data.data, facts, held_out if part == HELD_OUT else training)
    facts |= {"data_digest": real.digest, "dataset_digest": pack.digest}
    return real


def unfitted_images(data: DataConfig, open_files: ExitStack) -> RealImages:
    """Open images of a folder, archive or .npz at their own sizes, or the `mu` and `sigma` of a statistics file.

    Raises:
        UsageError, DataError: no such images.
    """
    facts = {"data": data.data, "split": None, "real_size": "as they are", "fit": None}
    path = Path(data.data).expanduser()
    if path.suffix.lower() == ".npz" and path.is_file() and (found := read_statistics(path)) is not None:
        mu, sigma = found
        digest = hashlib.sha256(mu.tobytes() + sigma.tobytes()).hexdigest()
        moments = Moments(mu.astype(np.float32), sigma, 0)
        return RealImages(None, digest, moments=moments, source=data.data, facts={**facts, "data_digest": digest})
    images = open_files.enter_context(open_images(data.data, flag="--data"))
    digest = images.digest()
    return RealImages(
        images, digest, tuple(images.class_names), source=data.data, facts={**facts, "data_digest": digest}
    )


def needs_fitting(data: DataConfig, fit: str | None) -> bool:
    """Return whether `--data` is fitted to the size of the scored images: a dataset with parts, or any with --fit."""
    return fit is not None or sources.has_parts(data.data)


class batch_statistics:
    """Context in which batch norms use the statistics of each batch, and the saved ones do not change."""

    def __init__(self, network: nn.Module, on: bool) -> None:
        self._norms = [m for m in network.modules() if isinstance(getattr(m, "running_mean", None), torch.Tensor)]
        self._norms = self._norms if on else []
        self._before: list[tuple[bool, float]] = []

    def __enter__(self) -> None:
        self._before = [(m.training, m.momentum) for m in self._norms]  # type: ignore[misc]
        for norm in self._norms:
            norm.training, norm.momentum = True, 0.0  # type: ignore[assignment]

    def __exit__(self, *_: object) -> None:
        for norm, (training, momentum) in zip(self._norms, self._before, strict=True):
            norm.training, norm.momentum = training, momentum  # type: ignore[assignment]


def requests_for(count: int, first: int, labels: NDArray[np.int64] | None, classes: int) -> list[Request]:
    """Return requests with seeds first, first + 1, ...; classes are drawn with the frequencies of `labels` if given."""
    seeds = range(first, first + count)
    if labels is None or not classes:
        return [Request(seed) for seed in seeds]
    share = np.cumsum(np.bincount(labels, minlength=classes)) / len(labels)
    chance = [torch.rand((), generator=generator(seed, "label"), dtype=torch.float64).item() for seed in seeds]
    chosen = np.minimum(np.searchsorted(share, chance, side="right"), classes - 1)
    return [Request(seed, int(label)) for seed, label in zip(seeds, chosen, strict=True)]


def choose_indices(count: int, limit: int | None) -> Indices:
    """Return the indices of `limit` of `count` images in order, always the same ones; all without a limit."""
    if limit is None or limit >= count:
        return np.arange(count)
    chosen = torch.randperm(count, generator=generator(0, "evaluation"))[:limit]
    return np.sort(chosen.numpy())


# ---- Features of the real images, cached -----------------------------------------------------------------------------

FEATURE_FORMAT = 1
"""Part of every key: raise it when the same images give other numbers."""


@dataclass(frozen=True)
class CachedFeatures:
    """Moments of the features of real images, and the features themselves where a metric needs them."""

    moments: Moments
    rows: NDArray[np.float32] | None
    """(N, D) in the order of the images, perhaps mapped from a file."""


@dataclass(frozen=True)
class FeatureCache:
    """Features of real images on disk, so that a second evaluation reads no real image.

        <folder>/<key>/mu.npy, sigma.npy    the moments
                       rows.npy             the features, where a metric needed them
                       manifest.json        what they were computed from, and the sha256 of each file

    The key is a digest of everything that the numbers depend on. An entry is created whole, by a rename.
    """

    folder: Path
    notify: Callable[[str], None]

    def find(self, about: Mapping[str, Any], *, rows: bool) -> CachedFeatures | None:
        """Return the entry of these facts, or None; with `rows` only one that has the features as well."""
        for with_rows in (True,) if rows else (False, True):
            path = self._path(about, with_rows)
            if path.is_dir() and (found := self._read(path, with_rows)) is not None:
                return found
        return None

    def keep(self, about: Mapping[str, Any], features: CachedFeatures) -> None:
        """Add an entry; one that another process added meanwhile is kept.

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
        text = json.dumps([FEATURE_FORMAT, dict(about), rows], sort_keys=True)
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
    """Return features of the real images by layer, or by metric for one with a `measure`; on the leading process only.

    Args:
        indices: the images that are used.
        layers, measures: layer or function of each metric that has one.
        collect: (title, images, indices, layers, measures, keep_rows) -> features, as `collect_features`.

    Raises:
        DataError: ready statistics cannot serve a metric.
    """
    compared = {name: metric for name, metric in metrics.items() if metric.real != "none"}
    wanted: dict[str, bool] = {}  # layer -> whether its rows are needed
    for name, metric in compared.items():
        if real.images is None and (metric.real == "rows" or name in measures):
            raise DataError(f"--metrics {name} needs the real images themselves: statistics alone serve fid only")
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
    """Everything that the features of the real images depend on."""
    assert extractor is not None
    return {
        "data": real.digest, "places": hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest(),
        "count": len(indices), "extractor": extractor.name, "weights": extractor.digest, "layer": layer,
        "resize": extractor.resize, "device": extractor.device.type,
    }  # fmt: skip
