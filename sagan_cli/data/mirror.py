"""Test whether mirrored images can be told from the originals; only where they cannot may training mirror images.

A linear classifier is trained to recognise the original in pairs of an image and its mirror image. It sees the
difference of their features: responses of random filters, averaged over a 4x4 grid, and pixels, averaged over an 8x8
grid. The share of pairs that it decides correctly, on images that it was not trained on, is 0.5 for mirror-symmetric
data. Text, clothes photographed from one side, and classes that differ by their direction are recognised.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import binomtest
from torch import Tensor

from sagan_cli.contracts import Dataset, Progress
from sagan_cli.data.packing.build import PackedShape, read_stretch
from sagan_cli.data.sources.opening import hints_of
from sagan_cli.ops.randomness import generator

SAMPLE = 400
"""Largest number of images that the test reads."""
SIDE = 32
"""Height and width in pixels to which the test resizes images."""
FILTERS = 64
"""Number of random convolution kernels whose responses are features."""
RIDGE = 0.1
"""Penalty on the classifier's weights, relative to the mean squared norm of the features."""
LARGEST = 0.6
"""The interval must lie below this share, so that too few images prove nothing."""


@dataclass(frozen=True)
class Mirror:
    """The result of the test."""

    recognised: float
    """Share of pairs in which the original was recognised."""
    interval: tuple[float, float]
    """95 % Wilson interval of the share."""
    images: int

    @property
    def allowed(self) -> bool:
        """Whether images may be mirrored: 0.5 is within the interval, and the interval is narrow."""
        return self.interval[0] <= 0.5 and self.interval[1] < LARGEST

    def __str__(self) -> str:
        low, high = (100 * share for share in self.interval)
        return f"{100 * self.recognised:.0f} % of {self.images} mirrored images recognised ({low:.0f} to {high:.0f} %)"


def check_mirror(dataset: Dataset, progress: Progress) -> Mirror:
    """Read up to `SAMPLE` images, evenly spaced, and return how well their mirror images are recognised.

    Args:
        progress: receives the number of images read; it may raise to end the test.

    Raises:
        DataError, PluginError: the dataset cannot be read.
    """
    shape = PackedShape(SIDE, SIDE, 3, hints_of(dataset).fit, gray_only=False)
    chosen = np.unique(np.linspace(0, len(dataset) - 1, SAMPLE).astype(int))
    chunks = []
    with progress("testing whether images may be mirrored", len(chosen)) as tick:
        for i in chosen.tolist():
            chunks.append(read_stretch(dataset, shape, i, i + 1, lambda: False))
            tick(len(chunks))
    images = np.concatenate([chunk.images for chunk in chunks])
    labels = np.array([label for chunk in chunks for label in chunk.labels], dtype=np.int64)
    return mirror_of(torch.from_numpy(images).permute(0, 3, 1, 2).double() / 127.5 - 1, torch.from_numpy(labels))


def mirror_of(images: Tensor, labels: Tensor) -> Mirror:
    """Return how well mirror images are recognised, in two-fold cross-validation.

    Args:
        images: float64 (N, C, H, W) in [-1, 1].
        labels: (N,); the classifier has weights for all images and further ones for each class.
    """
    count = len(images)
    if count < 4:
        return Mirror(0.5, (0.0, 1.0), count)
    order = torch.randperm(count, generator=generator(0, "mirror"))
    images, labels = images[order], labels[order]
    differences = _features(images) - _features(images.flip(3))
    # Dual form of ridge regression towards +1; the second term gives every class weights of its own.
    kernel = differences @ differences.T
    kernel = kernel + kernel * (labels[:, None] == labels)
    fold = torch.arange(count) % 2
    right = 0.0
    for test in (0, 1):
        train = fold != test
        own = kernel[train][:, train]
        ridge = RIDGE * own.diagonal().mean() + torch.finfo(own.dtype).tiny
        weights = torch.linalg.solve(own + ridge * torch.eye(len(own), dtype=own.dtype), torch.ones(len(own)).double())
        decided = kernel[~train][:, train] @ weights
        # Images that equal their mirror image are decided by chance.
        right += float((decided > 0).sum() + 0.5 * (decided == 0).sum())
    interval = binomtest(round(right), count).proportion_ci(0.95, method="wilson")
    return Mirror(right / count, (float(interval.low), float(interval.high)), count)


def _features(images: Tensor) -> Tensor:
    channels = images.shape[1]
    filters = torch.randn(FILTERS, channels, 5, 5, generator=generator(0, "mirror filters")).to(images.dtype)
    filters = filters - filters.mean((1, 2, 3), keepdim=True)
    filters = filters / filters.flatten(1).norm(dim=1)[:, None, None, None]
    responses = F.adaptive_avg_pool2d(F.conv2d(images, filters, padding=2).relu(), 4)
    return torch.cat([4 * responses.flatten(1), F.adaptive_avg_pool2d(images, 8).flatten(1)], 1)
