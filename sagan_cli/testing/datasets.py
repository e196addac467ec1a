"""Check of a dataset, on images from all parts of it."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Iterator
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sagan_cli.contracts import Dataset, DatasetFactory
from sagan_cli.errors import BadImage, SaganError
from sagan_cli.testing.assertions import raises_usage_error, require

if TYPE_CHECKING:
    import numpy as np

SAMPLED_IMAGES = 12
"""Images that are read."""


def check_dataset(factory: DatasetFactory, root: Path, *, height: int = 32, width: int = 32) -> None:
    """Check a `sagan.datasets` factory.

    Args:
        root: `--data-root`, with the files of the dataset if it reads any.

    Raises:
        AssertionError: the first violation of the contract.
    """

    def opened(split: str = "train", size: tuple[int, int] = (height, width)) -> Dataset:
        return factory(root, split=split, height=size[0], width=size[1])

    native = getattr(factory, "native_size", None)
    sides = native if isinstance(native, tuple) else (native, native)
    require(
        native is None or (len(sides) == 2 and all(isinstance(side, int) and side > 0 for side in sides)),
        f"native_size is {native!r}: a side in pixels, or (height, width)",
    )
    dataset = opened()
    require(
        isinstance(dataset, Dataset),
        "the factory must return an object with class_names, __len__, fingerprint and read",
    )
    _check_names(dataset.class_names)
    require(len(dataset) > 0, "the split 'train' is empty")
    require(raises_usage_error(lambda: opened("no-such-split")), "an unknown split must be refused with a UsageError")

    indices = sorted({round(i * (len(dataset) - 1) / (SAMPLED_IMAGES - 1)) for i in range(SAMPLED_IMAGES)})
    first = {i: _read(dataset, i, dataset.class_names) for i in indices}
    require(any(first.values()), f"none of {len(indices)} images can be read")

    # Packing reads in other processes, in any order, and packs are found by fingerprint.
    for what, other, order in (
        ("read a second time, in reverse order", dataset, reversed(indices)),
        ("of the dataset opened a second time", opened(), indices),
        ("of the pickled and unpickled dataset", pickle.loads(pickle.dumps(dataset)), indices),
    ):
        require(other.fingerprint() == dataset.fingerprint(), f"the fingerprint changes: that {what} differs")
        for i in order:
            require(_same(_read(other, i, dataset.class_names), first[i]), f"image {i} {what} differs")

    text = dataset.fingerprint()
    require(isinstance(text, str) and bool(text), f"fingerprint() is {text!r}: a non-empty text")
    for what, variant in _variants(opened, (2 * height, width)):
        seen = {i: _read(variant, i, dataset.class_names) for i in indices if i < len(variant)}
        if len(variant) != len(dataset) or any(not _same(seen[i], first[i]) for i in seen):
            require(variant.fingerprint() != text, f"{what} has other images and the same fingerprint")


def _variants(opened: Any, size: tuple[int, int]) -> Iterator[tuple[str, Dataset]]:
    yield f"the dataset opened for {size[0]}x{size[1]}", opened(size=size)
    try:
        yield "the split 'test'", opened("test")
    except SaganError:
        return  # a dataset may have one split only


def _check_names(names: Any) -> None:
    listed = isinstance(names, (list, tuple)) and all(isinstance(name, str) and name for name in names)
    require(listed, f"class_names is {names!r}: a list or tuple of texts, empty for a dataset without classes")
    require(len(set(names)) == len(names), f"class_names {names!r} holds a name twice")


def _read(dataset: Dataset, index: int, names: Collection[str]) -> tuple[np.ndarray, int] | None:
    """Return a copy of an image after checking it; None if it raises BadImage."""
    import numpy as np

    try:
        got = dataset.read(index)
    except BadImage:
        return None
    except Exception as e:
        raise AssertionError(f"read({index}) raised {type(e).__name__}: {e}; bad images raise BadImage") from e
    require(isinstance(got, tuple) and len(got) == 2, f"read({index}) must return (pixels, label)")
    pixels, label = got
    require(
        isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8,
        f"read({index}) must return pixels as a uint8 array, and returned {getattr(pixels, 'dtype', type(pixels))}",
    )
    shaped = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4))
    require(
        shaped and min(pixels.shape) > 0,
        f"read({index}) has shape {pixels.shape}: (H, W), or (H, W, C) with C 1, 3 or 4",
    )
    require(isinstance(label, Integral), f"the label of read({index}) is {label!r}: an int")
    require(
        0 <= label < max(len(names), 1), f"the label of read({index}) is {label}, outside 0..{max(len(names), 1) - 1}"
    )
    return pixels.copy(), int(label)  # a copy, to detect buffers that the next read overwrites


def _same(a: tuple[np.ndarray, int] | None, b: tuple[np.ndarray, int] | None) -> bool:
    import numpy as np

    return (a is None and b is None) or (
        a is not None and b is not None and a[1] == b[1] and np.array_equal(a[0], b[0])
    )
