"""sagan: train, sample, measure, explain and export Self-Attention GANs.

    import sagan_cli

    run = sagan_cli.train(data="photos/", size=64, steps=2000)
    generator = sagan_cli.load_generator(run.path)
    generator.images(range(16))[0].save("first.png")
    sagan_cli.evaluate(run.path, extractor="classifier", n=2000)["values"]

Nothing here imports PyTorch before a function is called. `errors` and `contracts` hold the exceptions and the protocols
for plugins; docs/python.md describes the API.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sagan_cli import contracts, errors
    from sagan_cli.api import evaluate, open_run, train
    from sagan_cli.generators import Generator, load_generator
    from sagan_cli.runs import Run

__all__ = [
    "Generator", "Run", "__version__", "contracts", "errors", "evaluate", "load_generator", "open_run", "train",
]  # fmt: skip

__version__ = "0.3.0"

_FROM = {
    "Generator": "generators", "Run": "runs", "evaluate": "api", "load_generator": "generators", "open_run": "api",
    "train": "api",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name in ("contracts", "errors"):
        return importlib.import_module(f"sagan_cli.{name}")
    if name in _FROM:
        return getattr(importlib.import_module(f"sagan_cli.{_FROM[name]}"), name)
    raise AttributeError(f"module 'sagan_cli' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
