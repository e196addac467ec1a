"""What there is to show: pictures, and for each attention layer where every position looks, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IDLE = 0.01
"""|gamma o| / |x| below which a layer does next to nothing to what passes through it."""


@dataclass(frozen=True)
class Layer:
    """One attention layer over all pictures of a scene."""

    network: str
    """`G` or `D`."""
    name: str
    """The longer side of its feature map, or a plugin's own name."""
    maps: NDArray[np.float32]
    """(B, N, M): row n of picture b says where query position n looks; rows sum to 1; row-major positions."""
    query_grid: tuple[int, int]
    """(height, width) of the N query positions; cell (i, j) covers that part of the picture."""
    key_grid: tuple[int, int]
    """(height, width) of the M key positions, which tile the same picture, coarser where keys are pooled."""
    gamma: float | None
    strength: NDArray[np.float32]
    """(B,) |gamma o| / |x|."""
    entropy: NDArray[np.float32]
    """(B, N) of each row over log M: 0 looks at one place, 1 everywhere alike."""
    distance: NDArray[np.float32]
    """(B, N) mean distance from a query to where it looks, in units of the picture's longer side."""

    @property
    def key(self) -> str:
        """`G 32`: how people choose it."""
        return f"{self.network} {self.name}"

    @property
    def idle(self) -> bool:
        """Whether the layer does next to nothing."""
        return float(self.strength.mean()) < IDLE


@dataclass(frozen=True)
class Scene:
    """The same pictures, or the same latents, at one checkpoint."""

    step: int | None
    """Generator updates of the checkpoint; None where there is none to tell."""
    pictures: NDArray[np.uint8]
    """(B, H, W, C), C in 1, 3, 4."""
    captions: tuple[str, ...]
    """One per picture: its seed and class, or its file."""
    layers: tuple[Layer, ...]
    """G's from the latent to the picture, then D's from the picture to the logit."""
