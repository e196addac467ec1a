"""From the settings of a run to its pictures: looked at first, packed later. Imports no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sagan_cli.config.schema import Config
from sagan_cli.contracts import Dataset
from sagan_cli.data.sources import lookup as sources
from sagan_cli.geometry import Shape, parse_shape


@dataclass(frozen=True)
class Opened:
    """A source that has been looked at and not yet packed."""

    dataset: Dataset
    form: Shape


def open_data(config: Config, *, download: bool = False) -> Opened:
    """Find the pictures and fix the size.

    Raises:
        UsageError: no such path, name, size or feature map.
        DataError: pictures that cannot be trained on.
    """
    data, root = config.data, Path(config.data.root)
    # A size that cannot be is said before any folder is searched.
    native = None
    if data.size == "auto":
        native = sources.native_size(data.source, root, data.split)
    form = parse_shape(data.size, config.model.attn_at, native)
    dataset = sources.open_source(
        data.source, data_root=root, split=data.split, height=form.height, width=form.width,
        unconditional=data.unconditional, download=download,
    )  # fmt: skip
    return Opened(dataset, form)
