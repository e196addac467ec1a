"""Every foreign format by its name, and how a file is recognised as one of them. To add one, add its module here."""

from __future__ import annotations

from types import ModuleType

from sagan_cli.errors import CheckpointError, UsageError, closest
from sagan_cli.importing import biggan, heykeetae, studiogan, voletiv
from sagan_cli.importing.foreign import Converted, Foreign
from sagan_cli.importing.naming import AUTO, FORMATS
from sagan_cli.importing.reading import Loaded

MODULES: dict[str, ModuleType] = {module.NAME: module for module in (biggan, studiogan, voletiv, heykeetae)}
DISCRIMINATORS = (
    ("embed.weight", "blocks.0.0.conv_sc.weight"),
    ("linear1.weight_orig", "blocks.0.0.conv2d1.weight_orig"),
    ("snlinear1.weight_orig", "opt_block1.snconv2d1.weight_orig"),
    ("l1.0.module.weight_bar", "last.0.weight"),
)
"""Names by which the other half of each pair is known, once it is not the generator."""


def convert(loaded: Loaded, name: str) -> tuple[str, Converted]:
    """The format of a file, and its generator as one of ours.

    Args:
        name: one of `FORMATS`, or `auto` to go by the tensors' names.

    Raises:
        UsageError: an unknown format.
        CheckpointError: the file is of no known format, or not wholly of the one it is taken for.
    """
    if name != AUTO and name not in MODULES:
        raise UsageError(f"--format {name}: choose {', '.join((AUTO, *FORMATS))}{closest(name, FORMATS)}")
    if name == AUTO:
        name = _recognised(loaded)
    module = MODULES[name]
    converted: Converted = module.read(Foreign(loaded.path, loaded.tensors, module.TITLE))
    return name, converted


def _recognised(loaded: Loaded) -> str:
    for name, module in MODULES.items():
        if all(key in loaded.tensors for key in module.SIGNATURE):
            return name
    if any(all(key in loaded.tensors for key in keys) for keys in DISCRIMINATORS):
        raise CheckpointError(f"{loaded.path}: this is a discriminator: name the file of the generator")
    # A file that lacks one of the names is better told which.
    near, shared = max(
        ((name, sum(key in loaded.tensors for key in module.SIGNATURE)) for name, module in MODULES.items()),
        key=lambda found: found[1],
    )
    if shared:
        return near
    first = ", ".join(repr(key[:60]) for key in list(loaded.tensors)[:3])
    raise CheckpointError(
        f"{loaded.path}: of no known format (its tensors begin with {first}); known are {', '.join(FORMATS)}"
    )
