"""The packed dataset: a uint8 array on disk, found again by the content of the files and what was made of them.

    <cache>/packs/<key>/images.npy       uint8 (N, H, W, C), memory-mapped
                        labels.npy       int64 (N,)
                        manifest.json    shape, digest, class names, and every image that was skipped
    <cache>/fingerprints/<glance>        content fingerprint of files that stat like this

The key is the sha256 of content, class names, transform and format. A pack appears whole, by a rename, or not at all.
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
"""Part of every key: raise it when images come out differently, and no old pack is read again."""

_CLOCK_TICK = 2_000_000_000
"""ns within which two changes of a file may carry the same time (FAT counts in steps of two seconds)."""


@dataclass(frozen=True)
class PackRequest:
    """The images that training wants."""

    height: int
    width: int
    channels: int | None = None
    """1, 3 or 4; None is 1 if no image has a colour, else 3."""
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
    """sha256 over images, labels and shape: equal digests mean the same training data."""
    skipped: tuple[dict[str, str], ...]
    """`file` and `reason` of each image that could not be read."""
    total: int
    """Images in the dataset, the skipped ones included."""
    from_cache: bool
    """Whether this call packed nothing."""

    @property
    def manifest(self) -> Path:
        """Where all of this and the list of skipped images can be read."""
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
    """The pack of this dataset at this size, from the cache or made now.

    Args:
        max_bad: the largest share of unreadable images, 0..1; judged at every opening and no part of the key.
        workers: processes that decode; 1 or fewer decodes here.
        progress: told (images done, all) while packing only; may raise to stop, and nothing is left behind.
        notify: given one line when images were skipped or a damaged pack is made again.

    Raises:
        DataError: too many bad images, none that can be read, or files that change meanwhile.
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
    # A plugin may rename its classes and leave its images, and so its fingerprint, as they were.
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

        # Another process may have packed the same in the meantime: its pack is as good as ours.
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
            dataset, request, cache_dir=cache_dir(), max_bad=max_bad, workers=_cores(), progress=tick, notify=notify
        )


def _cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def require_batch(pack: Pack, batch: int) -> None:
    """Refuse a batch that would hold images twice.

    Raises:
        DataError: naming --batch.
    """
    if len(pack.images) < batch:
        raise DataError(
            f"--batch {batch}: the dataset holds only {len(pack.images):,} images: "
            f"pass --batch {len(pack.images)} or fewer, or add images"
        )


def content_of(dataset: Fingerprinted, memory: Path) -> tuple[str, Glance | None]:
    """The content fingerprint, remembered in `memory` per glance so that a second start reads no image; the glance.

    Raises:
        DataError: files that changed while they were read.
    """
    before = _glance(dataset)
    if before is None:
        return dataset.fingerprint(), None
    memo = memory / before.key[:40]
    try:
        known = memo.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):  # not remembered, or a cache that cannot be read: the files still can
        known = ""
    if len(known) == hashlib.sha256().digest_size * 2:
        return known, before
    started = time.time_ns()
    content = dataset.fingerprint()
    if _glance(dataset) != before:
        raise DataError("the dataset's files changed while they were read: run the same command again")
    # A file changed within the clock's last tick could change once more and look the same: not remembered.
    if before.newest < started - _CLOCK_TICK:
        with contextlib.suppress(SaganError):  # a cache shared read-only still serves its packs, only more slowly
            write_atomic(memo, content.encode())
    return content, before


def _glance(dataset: Fingerprinted) -> Glance | None:
    look: Callable[[], Glance | None] | None = getattr(dataset, "glance", None)
    return look() if look else None


def _load(path: Path, notify: Callable[[str], None], *, from_cache: bool = True) -> Pack | None:
    """The pack at `path`, or None where there is none; a damaged one is named and moved out of the way."""
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
            f"{fact}, more than --max-bad {max_bad:g} allows: mend or remove them (all are listed in {pack.manifest}), "
            "or raise --max-bad"
        )
    counts = np.bincount(pack.labels, minlength=len(pack.class_names))
    for name, count in zip(pack.class_names, counts, strict=False):
        if count == 0:
            raise DataError(f"no image of class '{name}' can be read (see {pack.manifest}): mend or remove the class")
    notify(f"skipped {fact}; all are listed in {pack.manifest}")


def cache_dir(environ: Mapping[str, str] | None = None) -> Path:
    """SAGAN_CACHE, else XDG_CACHE_HOME/sagan, else ~/.cache/sagan; empty values count as absent."""
    env = os.environ if environ is None else environ
    if own := env.get("SAGAN_CACHE"):
        return Path(own).expanduser()
    shared = env.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "sagan"


def ready(cache: Path) -> Path:
    """The cache directory, made where it does not exist.

    Raises:
        SaganError: it cannot be made; the message names SAGAN_CACHE.
    """
    try:
        for name in ("packs", "fingerprints"):
            (cache / name).mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise unwritable(cache, e.strerror or str(e)) from e
    return cache


def check_room(packs: Path, needed: int) -> None:
    """Refuse before the first image what would fail after the last.

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
