"""Ready statistics of real data: the `mu` and `sigma` that pytorch-fid, EDM and others put into an .npz."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sagan_cli.errors import DataError
from sagan_cli.evaluation.images.npz import Npz
from sagan_cli.evaluation.images.pictures_npz import KEYS
from sagan_cli.evaluation.images.spool import MAGIC

_ASYMMETRY = 1e-6
"""Largest difference between sigma and its transpose, relative to its largest entry: more than rounding leaves."""


def read_statistics(path: Path, *, where: str | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Mean (D,) and covariance (D, D) of features in float64, or None where `path` is no .npz with `mu` and `sigma`.

    Neither file nor arrays say which extractor they came from. A file that holds pictures besides is one of pictures:
    None.

    Args:
        where: what messages call it, such as "--data stats.npz"; None is the path.

    Raises:
        DataError: statistics that are damaged, of wrong shapes, not finite, or no covariance.
    """
    where = where or str(path)
    if not path.is_file() or not _starts_like_one(path):
        return None
    with Npz(path, where) as npz:
        if not {"mu", "sigma"} <= set(npz.keys) or any(pair[0] in npz.keys for pair in KEYS):
            return None
        about_mu, about_sigma = npz.header("mu"), npz.header("sigma")
        for header, dimensions in ((about_mu, 1), (about_sigma, 2)):
            if header.dtype.kind != "f" or header.dtype.itemsize < 4 or len(header.shape) != dimensions:
                raise DataError(f"{where}: {header}: statistics are mu (D,) and sigma (D, D), float32 or float64")
        if about_sigma.shape != about_mu.shape * 2 or not about_mu.shape[0]:
            raise DataError(f"{where}: {about_mu} and {about_sigma} do not belong together: (D,) and (D, D) would")
        mu, sigma = (npz.values(header).astype(np.float64) for header in (about_mu, about_sigma))
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise DataError(f"{where}: mu or sigma hold values that are not finite numbers: compute them again")
    if np.abs(sigma - sigma.T).max() > _ASYMMETRY * np.abs(sigma).max() or sigma.diagonal().min() < 0:
        raise DataError(f"{where}: sigma is no covariance (not symmetric, or negative variances): compute it again")
    return mu, sigma


def _starts_like_one(path: Path) -> bool:
    try:
        with path.open("rb") as f:
            return f.read(len(MAGIC)) == MAGIC
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror or e}") from e
