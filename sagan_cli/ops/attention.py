"""Self-attention over the positions of a feature map (Zhang et al. 2019, equations 1 and 2), and how it is computed.

N positions ask (queries), M positions answer (keys, values). SAGAN does not scale the scores: beta = softmax(q k^T).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sagan_cli.ops.routes import assumed

EXPLICIT_LIMIT = 32 * 2**20
"""Bytes of scores up to which CPU writes the map out: there it beats the fused kernel, whose memory is linear in N."""


def attention_map(query: Tensor, key: Tensor) -> Tensor:
    """beta, equation 1: query (B, N, d), key (B, M, d) -> (B, N, M); row n says where n looks; it sums to 1."""
    # The softmax runs in fp32 under bf16 autocast too: its sum over M terms is where eight bits of mantissa show.
    return torch.softmax(query @ key.transpose(1, 2), dim=-1)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """o = beta v, equation 2, before its output convolution: (B, N, d), (B, M, d), (B, M, e) -> (B, N, e).

    Two routes to one function. Written as `map @ value` (not `value @ map^T`, the ports' form) the backward pass
    copies no score matrix. Where the scores would be large, the fused kernel never stores them.
    """
    if _explicit(query, key):
        return attention_map(query, key).to(value.dtype) @ value
    return _fused(query, key, value)


def _explicit(query: Tensor, key: Tensor) -> bool:
    said = assumed()
    scores = (query.shape[0] if said is None else said) * query.shape[1] * key.shape[1] * 4
    return said == 0 or (query.device.type == "cpu" and scores <= EXPLICIT_LIMIT)


def _fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    # Fused kernels want one head width for query, key and value. Zeros change no dot product, so the padding is exact;
    # without it PyTorch falls back, silently, to a path slower than the explicit one.
    wide, e = max(query.shape[-1], value.shape[-1]), value.shape[-1]
    query, key, value = (F.pad(t, (0, wide - t.shape[-1])).unsqueeze(1) for t in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, scale=1.0).squeeze(1)[..., :e]
