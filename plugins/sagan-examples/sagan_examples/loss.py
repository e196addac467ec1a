"""The loss `logistic-margin`: the non-saturating loss of logits that must exceed a margin of 1."""

from __future__ import annotations

import torch.nn.functional as F

from sagan_cli.contracts import Loss

LOGISTIC_MARGIN = Loss(
    "cross-entropy with a margin of 1",
    discriminator=lambda real, fake: F.softplus(1 - real).mean() + F.softplus(1 + fake).mean(),
    generator=lambda real, fake: F.softplus(-fake).mean(),
)
