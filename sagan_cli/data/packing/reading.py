"""One stretch of a data set: each picture read, checked, and made into the shape that is packed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from sagan_cli.contracts import Dataset
from sagan_cli.data.decode import Pixels
from sagan_cli.data.fit import fit, is_gray
from sagan_cli.data.packing.fingerprint import FileBacked
from sagan_cli.errors import BadImage, DataError, PluginError, SaganError


@dataclass(frozen=True)
class Shape:
    """What every picture is made into."""

    height: int
    width: int
    channels: int
    fit: str
    gray_only: bool = False
    """Stop at the first picture with a colour: `channels` 1 was a guess."""


@dataclass(frozen=True)
class Skipped:
    """One picture that cannot be read."""

    index: int
    reason: str


@dataclass(frozen=True)
class Chunk:
    """Consecutive pictures, those that can be read closed up."""

    images: Pixels
    labels: list[int]
    skipped: list[Skipped]
    seen: int
    """Pictures looked at, the skipped ones included."""


class ColourFound(Exception):
    """The guess that all pictures are gray was wrong."""


def read_stretch(dataset: Dataset, shape: Shape, first: int, last: int, stopped: Callable[[], bool]) -> Chunk:
    """Pictures first..last-1, or fewer when `stopped` turns true meanwhile.

    Raises:
        ColourFound: `shape.gray_only` was a wrong guess.
        DataError: an answer against the contract, or a data set that cannot be read any further.
        PluginError: a data set that is not one of files raised anything else.
    """
    images = np.empty((last - first, shape.height, shape.width, shape.channels), np.uint8)
    labels: list[int] = []
    skipped: list[Skipped] = []
    # Our own sets of files offer the decoded image itself, which saves half of a small JPEG's time.
    read: Callable[[int], tuple[Any, int]] = getattr(dataset, "image", dataset.read)
    for index in range(first, last):
        if stopped():
            break
        try:
            picture, label = read(index)
        except BadImage as e:
            skipped.append(Skipped(index, str(e)))
            continue
        except OSError as e:
            raise DataError(f"the data set cannot be read at {name_of(dataset, index)}: {e.strerror or e}") from e
        except Exception as e:
            if isinstance(dataset, FileBacked) or isinstance(e, SaganError):
                raise  # our own code: said already, or a bug that should keep its traceback
            raise PluginError(f"the data set failed at {name_of(dataset, index)}: {type(e).__name__}: {e}") from e
        _check_answer(dataset, index, picture, label)
        if shape.gray_only and not is_gray(picture):
            raise ColourFound
        images[len(labels)] = fit(picture, shape.height, shape.width, shape.channels, shape.fit)
        labels.append(int(label))
    return Chunk(images[: len(labels)], labels, skipped, last - first)


def name_of(dataset: Dataset, index: int) -> str:
    """What to call picture `index` in a message: its file where the data set knows one."""
    named: Callable[[int], str] | None = getattr(dataset, "name_of", None)
    return named(index) if named else f"picture {index}"


def _is_legal(picture: Any) -> bool:
    if isinstance(picture, Image.Image):
        return True
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.size == 0:
        return False
    return picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] in (1, 3, 4))


def _check_answer(dataset: Dataset, index: int, picture: Any, label: int) -> None:
    if not _is_legal(picture):
        what = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise DataError(f"the data set's {name_of(dataset, index)} is {what}; it must be uint8 (H, W) or (H, W, 1|3|4)")
    if not 0 <= label < max(1, len(dataset.class_names)):
        raise DataError(
            f"the data set's {name_of(dataset, index)} has label {label}; it names {len(dataset.class_names)} classes"
        )
