"""Random numbers as a function of (seed, purpose, counter), independent of what was drawn before.

A resumed run, or a run on several processes, therefore draws the same numbers as an uninterrupted single process.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def generator(seed: int, purpose: str, counter: int = 0) -> torch.Generator:
    """Return a new CPU generator for one purpose and counter; PyTorch's CPU stream is the same on every machine."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{counter}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def latents_and_labels(rng: torch.Generator, count: int, latent: int, num_classes: int) -> tuple[Tensor, Tensor | None]:
    """Draw z (count, latent) ~ N(0, 1) and y (count,) uniform over the classes, None without classes."""
    z = torch.randn(count, latent, generator=rng)
    y = torch.randint(num_classes, (count,), generator=rng) if num_classes else None
    return z, y
