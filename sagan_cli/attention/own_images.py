"""The pictures of `--image FILE|FOLDER`, brought to a network's size as training would have brought them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sagan_cli import console
from sagan_cli.errors import BadImage, DataError, SaganError, UsageError
from sagan_cli.generators import run_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sagan_cli.contracts import ModelSpec


def read_pictures(path: Path, most: int, spec: ModelSpec, how: str) -> tuple[NDArray[np.uint8], list[str]]:
    """uint8 (B, H, W, C) and a name each: the file, or the first `most` of a folder at any depth by name.

    Args:
        how: `crop`, `pad` or `stretch`.

    Raises:
        UsageError: no such file or folder.
        DataError: no picture in it that can be read.
    """
    import numpy as np

    from sagan_cli.data.decode import decode_image, fit
    from sagan_cli.data.sources.folders import open_folder

    if not path.exists():
        raise UsageError(f"--image {path}: no such file or folder")
    if path.is_dir():
        try:
            listed = open_folder(path, where=str(path), unconditional=True).listing.names
        except DataError as e:
            raise DataError(str(e).replace("--data", "--image")) from e
        files = [path / name for name in listed]
    else:
        files = [path]
    found: list[NDArray[np.uint8]] = []
    names = []
    for file in files:
        if len(found) == most:
            break
        try:
            found.append(fit(decode_image(file), spec.height, spec.width, spec.channels, how))
        except BadImage as e:
            if file == path:
                raise DataError(f"--image {path}: {e}") from e
            console.warn(f"{file}: left out: {e}")
        else:
            names.append(file.name)
    if not found:
        raise DataError(f"--image {path}: no picture that can be read")
    return np.stack(found), names


def fit_of(checkpoint: Path, spec: ModelSpec) -> str:
    """How the run of a checkpoint fitted its pictures; `crop` where nobody can tell any more."""
    from sagan_cli.data.packing.build import hints_of
    from sagan_cli.data.sources.opening import open_source

    run = run_of(checkpoint)
    if run is None:
        return "crop"
    data = run.config().data
    if data.fit != "auto":
        return data.fit
    try:
        dataset = open_source(
            data.data, data_root=Path(os.environ.get("SAGAN_DATA_ROOT", data.data_root)), split=data.split,
            height=spec.height, width=spec.width, unconditional=data.unconditional,
        )  # fmt: skip
    except SaganError as e:
        console.note(f"--image: fitted by 'crop', as the run's data cannot be asked: {e}")
        return "crop"
    return hints_of(dataset).fit
