"""Dot-product attention over the positions of a feature map (Zhang et al. 2019, equations 1 and 2).

There are N queries and M keys and values. SAGAN does not scale the scores: beta = softmax(q k^T).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sagan_cli.ops.assumed_batch import assumed_batch_size

EXPLICIT_LIMIT = 32 * 2**20
"""Bytes of scores up to which a CPU materialises the attention map, which is then faster than the fused kernel."""


def attention_map(query: Tensor, key: Tensor) -> Tensor:
    """Return beta of equation 1: query (B, N, d), key (B, M, d) -> (B, N, M); every row sums to 1."""
    # Autocast runs the softmax in fp32: a sum of M terms in bf16 would lose too much.
    return torch.softmax(query @ key.transpose(1, 2), dim=-1)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return beta v of equation 2, before the output convolution: (B, N, d), (B, M, d), (B, M, e) -> (B, N, e).

    Small score matrices are materialised; large ones are left to PyTorch's fused kernel, which never stores them. In
    the form `map @ value` the backward pass copies no score matrix.
    """
    if _explicit(query, key):
        return attention_map(query, key).to(value.dtype) @ value
    return _fused(query, key, value)


def _explicit(query: Tensor, key: Tensor) -> bool:
    assumed = assumed_batch_size()
    scores = (query.shape[0] if assumed is None else assumed) * query.shape[1] * key.shape[1] * 4
    return assumed == 0 or (query.device.type == "cpu" and scores <= EXPLICIT_LIMIT)


def _fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    # Fused kernels need one head width for query, key and value. Padding with zeros changes no dot product; without it
    # PyTorch falls back to a path that is slower than the explicit one.
    wide, e = max(query.shape[-1], value.shape[-1]), value.shape[-1]
    query, key, value = (F.pad(t, (0, wide - t.shape[-1])).unsqueeze(1) for t in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, scale=1.0).squeeze(1)[..., :e]
