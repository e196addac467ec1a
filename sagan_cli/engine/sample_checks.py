"""Cheap checks of the sample grid while training: variety within classes, and copies of training images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sagan_cli.data.packing.pack import Pack

REFERENCE = 2000
"""Number of training images that samples are compared with, evenly spaced."""
CHUNK = 64
"""Number of training images in memory at once."""
COPY_QUANTILE = 0.01
"""A sample counts as a copy below this quantile of the distances between nearest training images."""


class SampleChecks:
    """Compares samples with training images of the same classes.

    `variety` is the variance of the images' edges within a class, relative to that of the training images: edges are
    the magnitudes of the brightness gradient, averaged over an 8x8 grid and scaled to length 1, so that colours and
    contrast do not count. Samples that repeat one shape are near 0, and those of a good generator near 1.

    `copies` is the share of samples that are nearer to a training image than nearly all training images are to each
    other: below the 1 % quantile of the distance from a training image to its nearest other one. Distances are
    Euclidean, between images averaged to 16x16 pixels.
    """

    def __init__(self, pack: Pack, training: NDArray[np.int64]) -> None:
        """Measure the training images, given by their indices."""
        chosen = training[np.unique(np.linspace(0, len(training) - 1, REFERENCE).astype(int))]
        self.labels = torch.from_numpy(pack.labels[chosen])
        parts = [
            (_edges(images), _coarse(images))
            for images in (pack.images[chosen[i : i + CHUNK]] for i in range(0, len(chosen), CHUNK))
        ]
        self.edges, self.coarse = (torch.cat([part[i] for part in parts]) for i in (0, 1))
        apart = torch.cdist(self.coarse, self.coarse).fill_diagonal_(torch.inf).min(1).values
        self.limit = float(torch.quantile(apart, COPY_QUANTILE)) if len(chosen) > 1 else 0.0

    def measure(self, images: NDArray[np.uint8], labels: Sequence[int] | None) -> dict[str, float]:
        """Return `variety` and `copies` of samples (N, H, W, C); `variety` is absent without two images of a class.

        Args:
            labels: class of each sample; None without classes.
        """
        own = torch.zeros(len(images), dtype=torch.long) if labels is None else torch.tensor(list(labels))
        theirs = torch.zeros_like(self.labels) if labels is None else self.labels
        edges = _edges(images)
        ratios = []
        for label in own.unique():
            mine, real = edges[own == label], self.edges[theirs == label]
            if len(mine) > 1 and len(real) > 1 and (whole := _variance(real)) > 0:
                ratios.append(_variance(mine) / whole)
        nearest = torch.cdist(_coarse(images), self.coarse).min(1).values
        found = {"copies": float((nearest < self.limit).double().mean())}
        return {"variety": float(np.mean(ratios)), **found} if ratios else found


def _edges(images: NDArray[np.uint8]) -> Tensor:
    gray = torch.from_numpy(np.ascontiguousarray(images[..., :3])).double().mean(-1)[:, None] / 255
    gray = F.adaptive_avg_pool2d(gray, 32) if min(gray.shape[2:]) > 32 else gray
    across, down = F.pad(gray.diff(dim=3), (0, 1)), F.pad(gray.diff(dim=2), (0, 0, 0, 1))
    return F.normalize(F.adaptive_avg_pool2d((across**2 + down**2).sqrt(), 8).flatten(1))


def _coarse(images: NDArray[np.uint8]) -> Tensor:
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    return F.adaptive_avg_pool2d(pixels, 16).flatten(1)


def _variance(rows: Tensor) -> float:
    return float(rows.var(0, correction=1).sum())
