"""Where every random number comes from: a function of (seed, purpose, counter), never of what was drawn before.

So a resumed run, or one spread over several processes, draws what the uninterrupted single process draws.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def generator(seed: int, purpose: str, counter: int = 0) -> torch.Generator:
    """A CPU generator of its own for one purpose at one moment; the CPU's stream is the same on every machine."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{counter}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def latents_and_labels(rng: torch.Generator, count: int, latent: int, num_classes: int) -> tuple[Tensor, Tensor | None]:
    """z (count, latent) ~ N(0, 1) and y (count,) uniform over the classes, or None for an unconditional model."""
    z = torch.randn(count, latent, generator=rng)
    y = torch.randint(num_classes, (count,), generator=rng) if num_classes else None
    return z, y
