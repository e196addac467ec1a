"""Opening pictures that are scored as they are, for the tests of folders and of .npz files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sagan_cli.errors import DataError, SaganError
from sagan_cli.evaluation.images.opening import open_images
from sagan_cli.evaluation.images.source import ImageSource


def opened(target: Path | str, **more: Any) -> ImageSource:
    return open_images(str(target), **{"flag": "FOLDER", **more})


def together(pictures: ImageSource, size: int = 3, order: Any = None) -> np.ndarray:
    return np.concatenate(list(pictures.batches(size, order)))


def refused(target: Path | str, kind: type[SaganError] = DataError, **more: Any) -> str:
    """The message with which opening or reading `target` ends: one line."""
    with pytest.raises(kind) as caught, opened(target, **more) as pictures:
        for _ in pictures.batches(4):
            pass
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)
