"""The hinge objective (Lim and Ye 2017; Zhang et al. 2019, equation 4) on discriminator logits."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))]: logits (N,) each -> scalar; 0 when all clear their margin."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator(fake: Tensor) -> Tensor:
    """-E[D(G(z))]: logits (N,) -> scalar."""
    return -fake.mean()
