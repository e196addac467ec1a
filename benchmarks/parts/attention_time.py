"""Attention alone, by the number of positions: the textbook's products, ours written out, ours fused, ours as it picks.

python benchmarks/parts/attention_time.py FORM POSITIONS      # MiB above the start, for a process of its own
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

CHANNELS = 64
"""Of the map: queries and keys have an eighth, values half; keys and values are pooled, N positions look at N / 4."""
BATCH = 1
Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def textbook(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """(B, N, d), (B, M, d), (B, M, e) -> (B, e, N), written as the ports write it."""
    attention = torch.softmax(torch.bmm(query, key.permute(0, 2, 1)), dim=-1)
    return torch.bmm(value.permute(0, 2, 1), attention.permute(0, 2, 1))


def explicit(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """-> (B, N, e), as `map @ value`: no transpose in the backward pass."""
    return torch.softmax(query @ key.transpose(1, 2), dim=-1) @ value


def fused(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """-> (B, N, e) by PyTorch's kernel, queries and keys padded with zeros to the values' width."""
    e = value.shape[-1]
    query, key, value = (F.pad(t, (0, e - t.shape[-1])).unsqueeze(1) for t in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, scale=1.0).squeeze(1)


def ours(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """-> (B, N, e) by the route that `sagan` takes at this size."""
    from sagan_cli.ops.dot_product_attention import attend

    return attend(query, key, value)


FORMS: dict[str, Callable[..., torch.Tensor]] = {
    "textbook": textbook, "explicit": explicit, "fused": fused, "ours": ours,
}  # fmt: skip


def pass_of(form: str, positions: int, device: torch.device) -> Callable[[], Any]:
    """Forward and backward of one form on a map of so many positions."""
    rng = torch.Generator().manual_seed(0)
    sizes = ((positions, CHANNELS // 8), (positions // 4, CHANNELS // 8), (positions // 4, CHANNELS // 2))
    given = [torch.randn(BATCH, *size, generator=rng).to(device).requires_grad_() for size in sizes]

    def run() -> Any:
        return torch.autograd.grad(FORMS[form](*given).sum(), given)

    return run


def main() -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from measuring import peak_mib

    form, positions = sys.argv[1], int(sys.argv[2])
    pass_of(form, 64, torch.device("cpu"))()  # libraries load what they load
    run = pass_of(form, positions, torch.device("cpu"))
    before = peak_mib()
    run()
    print(peak_mib() - before)


if __name__ == "__main__":
    main()
