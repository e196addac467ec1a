"""Statistics of real pictures, kept so that a second evaluation touches no real picture.

    <cache>/statistics/<key>/mu.npy, sigma.npy    the moments
                             rows.npy             the features themselves, where a metric wants them
                             manifest.json        what they are of, and the sha256 of each file

The key is a digest of everything that the numbers depend on. An entry appears whole, by a rename, or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagan_cli.evaluation.metrics.frechet import Moments
from sagan_cli.files import discard, sha256_of, write_directory

FORMAT = 1
"""Part of every key: raise it when the same pictures give other numbers."""


@dataclass(frozen=True)
class Reference:
    """The real side of a score."""

    moments: Moments
    rows: NDArray[np.float32] | None
    """(N, D) in the order of the pictures, perhaps mapped from a file; None where only moments were wanted."""


@dataclass(frozen=True)
class Store:
    """Entries under one folder, by what they are of."""

    folder: Path
    notify: Callable[[str], None]

    def find(self, about: Mapping[str, Any], *, rows: bool) -> Reference | None:
        """The entry for these facts; with `rows` only one that has the features as well."""
        for with_rows in (True,) if rows else (False, True):
            path = self._path(about, with_rows)
            if path.is_dir() and (found := self._read(path, with_rows)) is not None:
                return found
        return None

    def keep(self, about: Mapping[str, Any], reference: Reference) -> None:
        """Add an entry; one that another process added meanwhile stays.

        Raises:
            SaganError: the cache cannot be written.
        """

        def fill(work: Path) -> None:
            arrays: dict[str, NDArray[np.floating]] = {"mu": reference.moments.mu, "sigma": reference.moments.sigma}
            if reference.rows is not None:
                arrays["rows"] = reference.rows
            for name, array in arrays.items():
                np.save(work / f"{name}.npy", array, allow_pickle=False)
            manifest = {
                "about": dict(about),
                "count": reference.moments.count,
                "sha256": {name: sha256_of(work / f"{name}.npy") for name in arrays},
            }
            (work / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")

        write_directory(self._path(about, reference.rows is not None), fill)

    def _path(self, about: Mapping[str, Any], rows: bool) -> Path:
        text = json.dumps([FORMAT, dict(about), rows], sort_keys=True)
        return self.folder / hashlib.sha256(text.encode()).hexdigest()[:40]

    def _read(self, path: Path, rows: bool) -> Reference | None:
        try:
            manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
            for name, digest in manifest["sha256"].items():
                if sha256_of(path / f"{name}.npy") != digest:
                    raise ValueError(f"{name}.npy is not the file that was written")
            mu, sigma = (np.load(path / f"{name}.npy", allow_pickle=False) for name in ("mu", "sigma"))
            features = np.load(path / "rows.npy", mmap_mode="r", allow_pickle=False) if rows else None
            return Reference(Moments(mu, sigma, int(manifest["count"])), features)
        except (OSError, ValueError, KeyError, TypeError) as e:
            self.notify(f"{path}: damaged statistics ({e}); computing them again")
            discard(path)
            return None
