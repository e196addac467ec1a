"""Attention whose convolutions have biases, as attention without: the biases moved into the layers around it, exactly.

Write q, k, v for the projections without biases and a, b, c, d for the biases of query, key, value and output.

- b adds the same to every logit of a row, q_i . b: softmax does not see it.
- c passes through unchanged, as rows of the map sum to 1; with d it adds W c + d at every position.
- a adds a . k_j to the logits. No constant after the block can do that; but x + e does, if W_q e = a: W_q is wide, so
  there is such an e. The block before adds e by its last bias, and what e does elsewhere (x itself, k, v) is constant.

So the outputs differ by one constant for each channel, which the block behind takes up: its first batch norm in its
mean, its 1x1 shortcut in its bias. Evaluation stays the same function; in training, batch statistics would move.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sagan_cli.importing.foreign import Foreign
from sagan_cli.importing.spectral import Normed

LARGEST = 100.0
"""The largest e that is added: beyond it, x + e in fp32 would lose the digits that the match to 1e-5 needs."""


def constants(
    foreign: Foreign, name: str, query: Normed, value: Normed, output: Normed, gamma: Tensor
) -> tuple[Tensor, Tensor]:
    """(before, after): what to add to every position of x before the block without biases, and of y behind it; (C,).

    Args:
        name: the query's bias, for the message.

    Raises:
        CheckpointError: the query's bias cannot be made by any x, or only by a far too large one.
    """
    w_query, w_value, w_output = (layer.bar().flatten(1) for layer in (query, value, output))
    assert query.bias is not None
    assert value.bias is not None
    assert output.bias is not None
    before = torch.linalg.pinv(w_query) @ query.bias
    missed = float((w_query @ before - query.bias).abs().max())
    if missed > 1e-9 or float(before.abs().max()) > LARGEST:
        raise foreign.refuse(
            name, "this bias is not 0, our attention has none, and the query's weight is too near to singular for the "
            "layer before to make up for it"
        )  # fmt: skip
    after = gamma * (w_output @ (value.bias - w_value @ before) + output.bias) - before
    return before, after
