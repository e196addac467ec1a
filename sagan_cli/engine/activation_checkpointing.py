"""Activation checkpointing (Chen et al. 2016, arXiv 1604.06174): recompute the activations of a block when needed.

The activations inside a block are dropped after the forward pass and computed again in the backward pass. This costs
one more forward pass and keeps the activations of one block at a time. The gradients have the same bits, because the
second pass has the same inputs, buffers and context as the first.
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
    """Make a network's blocks and attention layers recompute their activations; in place.

    Blocks are the modules of its list `blocks`; attention layers are those of `attention_layers()`. Parameters and
    their names do not change. A copy of the network made afterwards shares the original's weights.

    Raises:
        UsageError: the network has no list `blocks`.
    """
    blocks = getattr(network, "blocks", None)
    if not isinstance(blocks, nn.ModuleList) or not len(blocks):
        way_out = "leave it out; --accumulate saves memory with every architecture"
        raise UsageError(f"--checkpointing: architecture '{arch}' has no list of blocks to compute again: {way_out}")
    attention: dict[str, nn.Module] = getattr(network, "attention_layers", dict)()
    for block in (*blocks, *attention.values()):
        setattr(block, "forward", _twice(block, block.forward))  # noqa: B010 - mypy takes methods for constants


def _twice(block: nn.Module, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the forward function of `block` under activation checkpointing."""

    def run(*args: Any) -> Tensor:
        if not torch.is_grad_enabled():
            return forward(*args)
        # The second pass needs the buffers of the first, which batch norm and power iteration change, and its context
        # variables, which belong to another thread by then.
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
    """Let modules work on copies of the given buffers within the block.

    Otherwise a batch norm would count a batch twice.
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
