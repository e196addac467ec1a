"""The packed dataset: a uint8 array on disk, with a key made of the content and the transform.

    <cache>/packs/<key>/images.npy       uint8 (N, H, W, C), memory-mapped
                        labels.npy       int64 (N,)
                        manifest.json    shape, digest, class names and skipped images
    <cache>/fingerprints/<glance>        content fingerprint of files that stat like this

The key is the sha256 of content, class names, transform and format. A pack is created by one rename.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sagan_cli.contracts import Dataset, Fingerprinted, Glance, Progress
from sagan_cli.data.decode import FITS
from sagan_cli.data.packing.build import Built, build, name_of
from sagan_cli.data.sources.opening import hints_of
from sagan_cli.errors import DataError, SaganError, UsageError
from sagan_cli.files import discard, sweep, unwritable, write_atomic, write_directory

FORMAT = 1
"""Part of every key; raise it when packed images change."""

_CLOCK_TICK = 2_000_000_000
"""ns within which two changes of a file may have the same time (two seconds on FAT)."""


@dataclass(frozen=True)
class PackRequest:
    """The form of the packed images."""

    height: int
    width: int
    channels: int | None = None
    """1, 3 or 4; None: 1 if all images are gray, else 3."""
    fit: str = "auto"
    """"crop", "pad" or "stretch"; "auto" is "pad" for the MNIST family and "crop" for others."""


@dataclass(frozen=True)
class Pack:
    """A packed dataset, open for reading."""

    path: Path
    images: npt.NDArray[np.uint8]
    """(N, H, W, C), memory-mapped, read-only."""
    labels: npt.NDArray[np.int64]
    """(N,); all 0 without classes."""
    class_names: tuple[str, ...]
    digest: str
    """sha256 over images, labels and shape."""
    skipped: tuple[dict[str, str], ...]
    """`file` and `reason` of each unreadable image."""
    total: int
    """Number of images in the dataset, including skipped ones."""
    from_cache: bool
    """Whether the pack already existed."""

    @property
    def manifest(self) -> Path:
        """The file with these facts and the skipped images."""
        return self.path / "manifest.json"


def open_pack(
    dataset: Dataset,
    request: PackRequest,
    *,
    cache_dir: Path,
    max_bad: float,
    workers: int,
    progress: Callable[[int, int], None],
    notify: Callable[[str], None],
) -> Pack:
    """Return the pack of a dataset, from the cache or made now.

    Args:
        max_bad: largest share of unreadable images, 0..1; checked at every call, not part of the key.
        workers: number of processes that decode; 1 or fewer: this process.
        progress: receives (images done, all) while packing; if it raises, nothing is left behind.
        notify: receives one line if images were skipped or a damaged pack is made again.

    Raises:
        DataError: too many unreadable images, or the files changed while they were packed.
        SaganError: the cache cannot be written, or a worker process died.
    """
    if request.fit not in ("auto", *FITS):
        raise UsageError(f"--fit {request.fit}: choose auto, {', '.join(FITS)}")
    packs = ready(cache_dir) / "packs"
    content, before = content_of(dataset, cache_dir / "fingerprints")
    hints = hints_of(dataset)
    transform = asdict(request)
    transform["fit"] = hints.fit if request.fit == "auto" else request.fit
    transform["channels"] = request.channels or hints.channels
    # A plugin may rename its classes and keep its fingerprint.
    parts = [FORMAT, content, list(dataset.class_names), transform]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    path = packs / key[:40]

    pack = _load(path, notify)
    if pack is None:
        if len(dataset) == 0:
            raise DataError("the dataset holds no images")
        sweep(packs)
        check_room(packs, len(dataset) * request.height * request.width * (transform["channels"] or 3))

        def fill(folder: Path) -> None:
            built = build(
                folder, dataset, height=request.height, width=request.width, channels=transform["channels"],
                how=transform["fit"], workers=workers, progress=progress,
            )  # fmt: skip
            if before is not None and _glance(dataset) != before:
                raise DataError("the dataset's files changed while they were packed: run the same command again")
            _describe(folder, dataset, built, content, transform)

        # If another process has made the same pack meanwhile, its pack is used.
        write_directory(path, fill)
        pack = _load(path, notify, from_cache=False)
        if pack is None:
            raise SaganError(
                f"{path}: the pack that was just written has gone or is damaged: run the same command again"
            )
    _judge(pack, max_bad, notify)
    return pack


def packed_dataset(
    dataset: Dataset, request: PackRequest, max_bad: float, progress: Progress, notify: Callable[[str], None]
) -> Pack:
    """Return the pack of a dataset in the user's cache; make it on all cores if it is missing.

    Raises:
        DataError: too many unreadable images.
    """
    with progress("packing", len(dataset)) as tick:
        return open_pack(
            dataset, request, cache_dir=cache_dir(), max_bad=max_bad, workers=cores(), progress=tick, notify=notify
        )


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def require_batch(count: int, batch: int) -> None:
    """Refuse a batch that is larger than the number of images to train on.

    Raises:
        DataError: naming --batch.
    """
    if count < batch:
        raise DataError(
            f"--batch {batch}: there are only {count:,} images to train on: pass --batch {count} or fewer, or add some"
        )


def content_of(dataset: Fingerprinted, memory: Path) -> tuple[str, Glance | None]:
    """Return fingerprint and glance; the fingerprint is cached in `memory` by the glance.

    Raises:
        DataError: files changed while they were read.
    """
    before = _glance(dataset)
    if before is None:
        return dataset.fingerprint(), None
    memo = memory / before.key[:40]
    try:
        known = memo.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):  # not cached, or an unreadable cache
        known = ""
    if len(known) == hashlib.sha256().digest_size * 2:
        return known, before
    started = time.time_ns()
    content = dataset.fingerprint()
    if _glance(dataset) != before:
        raise DataError("the dataset's files changed while they were read: run the same command again")
    # Not cached if a file changed within the last clock tick, because another change could have the same time.
    if before.newest < started - _CLOCK_TICK:
        with contextlib.suppress(SaganError):  # a read-only cache
            write_atomic(memo, content.encode())
    return content, before


def _glance(dataset: Fingerprinted) -> Glance | None:
    look: Callable[[], Glance | None] | None = getattr(dataset, "glance", None)
    return look() if look else None


def _load(path: Path, notify: Callable[[str], None], *, from_cache: bool = True) -> Pack | None:
    """Return the pack at `path`, or None; a damaged pack is reported and removed."""
    if not path.is_dir():
        return None
    try:
        about = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        for name, size in about["bytes"].items():
            found = (path / name).stat().st_size
            if found != size:
                raise ValueError(f"{name} has {found:,} bytes where {size:,} belong")
        images = np.load(path / "images.npy", mmap_mode="r", allow_pickle=False)
        labels = np.load(path / "labels.npy", allow_pickle=False)
        if list(images.shape) != about["shape"] or labels.shape != images.shape[:1]:
            raise ValueError(f"images.npy is {images.shape} where {about['shape']} belongs")
        return Pack(
            path, images, labels, tuple(about["class_names"]), about["digest"], tuple(about["skipped"]), about["total"],
            from_cache,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        notify(f"{path}: damaged pack ({e}); packing again")
        discard(path)
        return None


def _describe(folder: Path, dataset: Dataset, built: Built, content: str, transform: dict[str, Any]) -> None:
    if built.shape[0] == 0:
        worst = built.skipped[0]
        raise DataError(
            f"none of the {len(dataset):,} images can be read (first: {name_of(dataset, worst.index)}: {worst.reason})"
        )
    about = {
        "format": FORMAT,
        "shape": built.shape,
        "digest": built.digest,
        "content": content,
        "transform": transform,
        "bytes": {name: (folder / name).stat().st_size for name in ("images.npy", "labels.npy")},
        "class_names": list(dataset.class_names),
        "total": len(dataset),
        "skipped": [{"file": name_of(dataset, s.index), "reason": s.reason} for s in built.skipped],
    }
    (folder / "manifest.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _judge(pack: Pack, max_bad: float, notify: Callable[[str], None]) -> None:
    if not pack.skipped:
        return
    share = len(pack.skipped) / pack.total
    first = "; ".join(f"{s['file']}: {s['reason']}" for s in pack.skipped[:3])
    fact = (
        f"{len(pack.skipped):,} of {pack.total:,} images ({100 * share:.2g} %) cannot be read "
        f"({first}{'; ...' if len(pack.skipped) > 3 else ''})"
    )
    if share > max_bad:
        raise DataError(
            f"{fact}, more than --max-bad {max_bad:g} allows: fix or remove them (all are listed in {pack.manifest}), "
            "or raise --max-bad"
        )
    counts = np.bincount(pack.labels, minlength=len(pack.class_names))
    for name, count in zip(pack.class_names, counts, strict=False):
        if count == 0:
            raise DataError(f"no image of class '{name}' can be read (see {pack.manifest}): fix or remove the class")
    notify(f"skipped {fact}; all are listed in {pack.manifest}")


def cache_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Return SAGAN_CACHE, else XDG_CACHE_HOME/sagan, else ~/.cache/sagan; empty values are ignored."""
    env = os.environ if environ is None else environ
    if own := env.get("SAGAN_CACHE"):
        return Path(own).expanduser()
    shared = env.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "sagan"


def ready(cache: Path) -> Path:
    """Create the cache directory if it is missing, and return it.

    Raises:
        SaganError: it cannot be created.
    """
    try:
        for name in ("packs", "fingerprints"):
            (cache / name).mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise unwritable(cache, e.strerror or str(e)) from e
    return cache


def check_room(packs: Path, needed: int) -> None:
    """Check before packing that the directory is writable and has room.

    Raises:
        SaganError: the directory cannot be written, or its disk lacks `needed` bytes.
    """
    if not os.access(packs, os.W_OK):
        raise unwritable(packs, "permission denied")
    free = shutil.disk_usage(packs).free
    if needed > free:
        raise SaganError(
            f"{packs}: packing needs {needed / 1e9:.1f} GB where {free / 1e9:.1f} GB are free: "
            "make room, or set SAGAN_CACHE to a folder on another disk"
        )
