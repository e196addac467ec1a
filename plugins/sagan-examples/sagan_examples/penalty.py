"""The penalty `drift`: keeps the logits on real images near 0 (Karras et al. 2018, appendix A.1)."""

from __future__ import annotations

from torch import Tensor

from sagan_cli.contracts import Penalty, PenaltyInputs


def _compute(inputs: PenaltyInputs) -> Tensor:
    return inputs.discriminator(inputs.real, inputs.real_labels).float().square().mean()


DRIFT = Penalty("E[D(x)^2] on real images; Karras et al. 2018, appendix A.1", _compute)
