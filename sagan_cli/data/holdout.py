"""The images that a run reserves for scoring and never trains on (`--holdout`)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from sagan_cli.data.packing.pack import Pack
from sagan_cli.errors import DataError
from sagan_cli.ops.randomness import generator

Indices = NDArray[np.int64]


def held_out_count(holdout: float, total: int) -> int:
    """Return how many of `total` images are held out."""
    return round(holdout * total) if holdout < 1 else int(holdout)


def split(pack: Pack, holdout: float) -> tuple[Indices, Indices]:
    """Return the indices of the images to train on and of those held out, each sorted.

    The same images are held out for every seed, as many of each class as its share of the images.

    Args:
        holdout: a share below 1, or a number of images.

    Raises:
        DataError: no image to train on, of all or of a class.
    """
    total = len(pack.images)
    count = held_out_count(holdout, total)
    everything = np.arange(total)
    if not count:
        return everything, everything[:0]
    if count >= total:
        raise DataError(f"--holdout {holdout:g}: the dataset has only {total:,} images")
    sizes = np.bincount(pack.labels, minlength=1)
    exact = sizes * (count / total)
    shares = np.floor(exact).astype(int)
    # The largest remainders get one more, so that the shares add up.
    shares[np.argsort(shares - exact, kind="stable")[: count - shares.sum()]] += 1
    held = []
    for label, share in enumerate(shares):
        own = everything[pack.labels == label]
        if share and share == len(own):
            raise DataError(f"--holdout {holdout:g}: leaves no image of class '{pack.class_names[label]}' to train on")
        order = torch.randperm(len(own), generator=generator(0, "holdout", label)).numpy()
        held.append(own[order[:share]])
    out = np.sort(np.concatenate(held))
    return np.setdiff1d(everything, out), out
