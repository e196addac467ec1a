"""The formats of other projects, and how a file is recognised. To add one, add a row and its module. No torch."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from sagan_cli.errors import CheckpointError, UsageError, closest

if TYPE_CHECKING:
    from sagan_cli.importing.foreign import Converted, Loaded

AUTO = "auto"
FORMATS = {
    "biggan-pytorch": "ajbrock/BigGAN-PyTorch, its SAGAN",
    "studiogan": "POSTECH-CVLab/PyTorch-StudioGAN, its SAGAN and SNGAN",
    "voletiv": "voletiv/self-attention-GAN-pytorch",
    "heykeetae": "heykeetae/Self-Attention-GAN",
}
"""Name -> project. The module of a format has its name up to the first hyphen."""
DISCRIMINATORS = (
    ("embed.weight", "blocks.0.0.conv_sc.weight"),
    ("linear1.weight_orig", "blocks.0.0.conv2d1.weight_orig"),
    ("snlinear1.weight_orig", "opt_block1.snconv2d1.weight_orig"),
    ("l1.0.module.weight_bar", "last.0.weight"),
)
"""Tensor names by which the discriminator of each project is recognised."""


def convert(loaded: Loaded, name: str) -> tuple[str, Converted]:
    """Return the format of a file, and its generator converted.

    Args:
        name: one of `FORMATS`, or `auto` to recognise it by the names of the tensors.

    Raises:
        UsageError: an unknown format.
        CheckpointError: an unknown format, or a tensor that is missing, wrong or too many.
    """
    require_format(name)
    if name == AUTO:
        name = _recognised(loaded)
    module = _module(name)
    from sagan_cli.importing.foreign import Foreign

    converted: Converted = module.read(Foreign(loaded.path, loaded.tensors, module.TITLE))
    return name, converted


def _recognised(loaded: Loaded) -> str:
    for name in FORMATS:
        if all(key in loaded.tensors for key in _module(name).SIGNATURE):
            return name
    if any(all(key in loaded.tensors for key in keys) for keys in DISCRIMINATORS):
        raise CheckpointError(f"{loaded.path}: this is a discriminator: name the file of the generator")
    # The message then names the missing tensor.
    near, shared = max(
        ((name, sum(key in loaded.tensors for key in _module(name).SIGNATURE)) for name in FORMATS),
        key=lambda found: found[1],
    )
    if shared:
        return near
    first = ", ".join(repr(key[:60]) for key in list(loaded.tensors)[:3])
    raise CheckpointError(
        f"{loaded.path}: of no known format (its tensors begin with {first}); known are {', '.join(FORMATS)}"
    )


def require_format(name: str) -> None:
    """Refuse an unknown format.

    Raises:
        UsageError: naming the formats.
    """
    if name not in (AUTO, *FORMATS):
        raise UsageError(f"--format {name}: choose {', '.join((AUTO, *FORMATS))}{closest(name, FORMATS)}")


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"sagan_cli.importing.{name.partition('-')[0]}")
