"""Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174): blocks that keep their input and compute the rest again.

The activations inside a block are dropped after the forward pass and computed anew when the backward pass comes to it:
one more forward pass of the blocks for memory that holds one block's activations at a time. The gradients are the same
to the bit, because the second pass sees what the first one saw.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sagan_cli.errors import UsageError


def recompute_blocks(network: nn.Module, arch: str) -> None:
    """Let a network's blocks, and its attention layers, compute again instead of keeping activations; in place.

    Blocks are the modules of its list `blocks`; attention layers those that it offers by `attention_layers`. Parameters
    and their names stay as they are. A copy of the network made afterwards would share the original's weights.

    Raises:
        UsageError: it has no such list.
    """
    blocks = getattr(network, "blocks", None)
    if not isinstance(blocks, nn.ModuleList) or not len(blocks):
        way_out = "leave it out; --accumulate saves memory with every architecture"
        raise UsageError(f"--checkpointing: architecture '{arch}' has no list of blocks to compute again: {way_out}")
    attention: dict[str, nn.Module] = getattr(network, "attention_layers", dict)()
    for block in (*blocks, *attention.values()):
        setattr(block, "forward", _twice(block, block.forward))  # noqa: B010 - mypy takes methods for constants


def _twice(block: nn.Module, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The forward of `block`, run a second time when its activations are wanted."""

    def run(*args: Any) -> Tensor:
        if not torch.is_grad_enabled():
            return forward(*args)
        # What the second pass must see as it was: buffers, which batch norm and power iteration move on, and what
        # callers said for a stretch of code, which is over by then or belongs to another thread.
        buffers = {module: {k: _copy(b) for k, b in module._buffers.items()} for module in block.modules()}
        context = contextvars.copy_context()
        passes = 0

        def either(*args: Any) -> Tensor:
            nonlocal passes
            passes += 1
            if passes == 1:
                return forward(*args)
            with _buffers_of(buffers):
                return context.copy().run(forward, *args)

        out: Tensor = checkpoint(either, *args, use_reentrant=False)
        return out

    return run


@contextmanager
def _buffers_of(before: dict[nn.Module, dict[str, Tensor | None]]) -> Iterator[None]:
    """Within the block, modules work on copies of the given buffers; what that does to them is dropped.

    A batch norm would otherwise count a batch twice.
    """
    now = {module: module._buffers for module in before}
    for module, buffers in before.items():
        module._buffers = {k: _copy(b) for k, b in buffers.items()}
    try:
        yield
    finally:
        for module, buffers in now.items():
            module._buffers = buffers


def _copy(buffer: Tensor | None) -> Tensor | None:
    return None if buffer is None else buffer.clone()
