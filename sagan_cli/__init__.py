"""sagan: train, sample, measure, explain and ship Self-Attention GANs.

From Python, `sagan_cli.load_generator(path)` gives a trained generator:

    import sagan_cli

    g = sagan_cli.load_generator("model.safetensors")
    pictures = g.draw(range(16))  # uint8 (16, H, W, C): what `sagan sample --seeds 0-15` draws

Nothing here imports PyTorch before a function is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from sagan_cli.export.generator import Generator

__all__ = ["__version__", "load_generator"]

__version__ = "0.1.0"


def load_generator(path: str | Path, device: str = "cpu") -> Generator:
    """A trained generator from a .safetensors file, a Hugging Face folder, a checkpoint, or a run's directory.

    It has `spec` and `class_names`; `g(z, y)` with z (B, latent) and class indices y (B,), None without classes, gives
    pictures (B, C, H, W) in [-1, 1]; `g.draw(seeds, label=None)` gives the uint8 (N, H, W, C) of `sagan sample`.

    Args:
        path: what `sagan export` wrote needs no run directory; of a run the newest checkpoint is taken.
        device: auto, cpu, cuda, cuda:N or mps.

    Raises:
        sagan_cli.errors.UsageError: nothing of that kind is there, or no such device.
        sagan_cli.errors.CheckpointError: it is damaged, of another format, or of an architecture that is not installed.
    """
    from sagan_cli.export import generator

    return generator.load_generator(path, device)
