"""What a data set must keep, checked on pictures spread over all of it."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Iterator
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sagan_cli.contracts import Dataset, DatasetFactory
from sagan_cli.errors import BadImage, SaganError
from sagan_cli.testing.claims import refused, that

if TYPE_CHECKING:
    import numpy as np

PICTURES = 12
"""Pictures that are looked at."""


def check_dataset(factory: DatasetFactory, root: Path, *, height: int = 32, width: int = 32) -> None:
    """Check a `sagan.datasets` factory; `root` is what `--data-root` would be, with the files there, if it reads any.

    Raises:
        AssertionError: the first thing that breaks the contract.
    """

    def opened(split: str = "train", size: tuple[int, int] = (height, width)) -> Dataset:
        return factory(root, split=split, height=size[0], width=size[1])

    native = getattr(factory, "native_size", None)
    sides = native if isinstance(native, tuple) else (native, native)
    that(
        native is None or (len(sides) == 2 and all(isinstance(side, int) and side > 0 for side in sides)),
        f"native_size is {native!r}: a side in pixels, or (height, width)",
    )
    dataset = opened()
    that(
        isinstance(dataset, Dataset),
        "the factory must return an object with class_names, __len__, fingerprint and read",
    )
    _check_names(dataset.class_names)
    that(len(dataset) > 0, "the split 'train' is empty")
    that(refused(lambda: opened("no-such-split")), "an unknown split must be refused with a UsageError")

    indices = sorted({round(i * (len(dataset) - 1) / (PICTURES - 1)) for i in range(PICTURES)})
    first = {i: _read(dataset, i, dataset.class_names) for i in indices}
    that(any(first.values()), f"none of the {len(indices)} pictures looked at can be read")

    # Packing reads in other processes, in any order; and a pack that is found must be the one that would be made.
    for what, other, order in (
        ("read a second time, in reverse order", dataset, reversed(indices)),
        ("of the data set opened a second time", opened(), indices),
        ("of the pickled and unpickled data set", pickle.loads(pickle.dumps(dataset)), indices),
    ):
        that(other.fingerprint() == dataset.fingerprint(), f"the fingerprint changes: the one {what} is another")
        for i in order:
            that(_same(_read(other, i, dataset.class_names), first[i]), f"picture {i} {what} is another")

    text = dataset.fingerprint()
    that(isinstance(text, str) and bool(text), f"fingerprint() is {text!r}: a text that is not empty")
    for what, variant in _variants(opened, (2 * height, width)):
        seen = {i: _read(variant, i, dataset.class_names) for i in indices if i < len(variant)}
        if len(variant) != len(dataset) or any(not _same(seen[i], first[i]) for i in seen):
            that(variant.fingerprint() != text, f"{what} has other pictures and the same fingerprint")


def _variants(opened: Any, size: tuple[int, int]) -> Iterator[tuple[str, Dataset]]:
    yield f"the data set opened for {size[0]}x{size[1]}", opened(size=size)
    try:
        yield "the split 'test'", opened("test")
    except SaganError:
        return  # a data set may have one split only


def _check_names(names: Any) -> None:
    listed = isinstance(names, (list, tuple)) and all(isinstance(name, str) and name for name in names)
    that(listed, f"class_names is {names!r}: a list or tuple of texts, empty for a data set without classes")
    that(len(set(names)) == len(names), f"class_names {names!r} holds a name twice")


def _read(dataset: Dataset, index: int, names: Collection[str]) -> tuple[np.ndarray, int] | None:
    """A picture that keeps the contract, copied; None where it is a bad one and says so."""
    import numpy as np

    try:
        got = dataset.read(index)
    except BadImage:
        return None
    except Exception as e:
        raise AssertionError(f"read({index}) raised {type(e).__name__}: {e}; a bad picture is a BadImage") from e
    that(isinstance(got, tuple) and len(got) == 2, f"read({index}) must return (pixels, label)")
    pixels, label = got
    that(
        isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8,
        f"read({index}) must return pixels as a uint8 array, and returned {getattr(pixels, 'dtype', type(pixels))}",
    )
    shaped = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4))
    that(
        shaped and min(pixels.shape) > 0,
        f"read({index}) has shape {pixels.shape}: (H, W), or (H, W, C) with C 1, 3 or 4",
    )
    that(isinstance(label, Integral), f"the label of read({index}) is {label!r}: an int")
    that(0 <= label < max(len(names), 1), f"the label of read({index}) is {label}, outside 0..{max(len(names), 1) - 1}")
    return pixels.copy(), int(label)  # copied, so that a buffer which the next read fills again is found out


def _same(a: tuple[np.ndarray, int] | None, b: tuple[np.ndarray, int] | None) -> bool:
    import numpy as np

    return (a is None and b is None) or (
        a is not None and b is not None and a[1] == b[1] and np.array_equal(a[0], b[0])
    )
