"""Write a generator to one .safetensors file, equal byte for byte each time (read by `engine.model_file`)."""

from __future__ import annotations

import io
import time

import torch
from safetensors.torch import save
from torch import Tensor, nn

from sagan_cli.engine import sample
from sagan_cli.engine.model_file import DIGEST, DTYPE_NAMES, KEY, content_digest, facts_text, read_file
from sagan_cli.errors import SaganError
from sagan_cli.export.trained_model import Check, TrainedModel, describe

BATCHES = (1, 3, 16)
"""Batch sizes of the comparison."""


def to_bytes(model: TrainedModel) -> bytes:
    """Return the file of a generator; equal weights and facts give equal bytes.

    Raises:
        SaganError: facts that JSON cannot represent, or weights of a type that the format lacks.
    """
    tensors = {k: t.detach().cpu().contiguous() for k, t in model.generator.state_dict().items()}
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPE_NAMES:
            raise SaganError(f"{model.source}: {name} is of type {tensor.dtype}, which safetensors files do not have")
    facts = describe(model)
    try:
        facts[DIGEST] = content_digest(facts, tensors)
        # The library refuses tensors that share memory, such as tied weights.
        return save({k: t.clone() for k, t in tensors.items()}, {KEY: facts_text(facts)})
    except ValueError as e:
        raise SaganError(f"{model.source}: cannot be described in a file's header: {e}") from e


def verify(data: bytes, model: TrainedModel) -> Check:
    """Read a file's bytes and compare the images with those of the generator.

    Raises:
        SaganError: the images differ, or the file cannot be read.
    """
    sampler = read_file(io.BytesIO(data))
    differences, ours, theirs = {}, {}, {}
    for batch in BATCHES:
        z, y = sample.latents([sample.Request(seed) for seed in range(batch)], model.spec, None)
        with torch.inference_mode():
            want, theirs[batch] = _timed(model.generator, z, y)
            got, ours[batch] = _timed(sampler.generator, z, y)
        differences[batch] = (want - got).abs().max().item()
        if not differences[batch] <= 1e-5:
            raise SaganError(f"the file draws other images than {model.source} (by {differences[batch]:.2g})")
    return Check(f"PyTorch {torch.__version__.partition('+')[0]}, CPU", differences, ours, theirs)


def _timed(network: nn.Module, z: Tensor, y: Tensor | None) -> tuple[Tensor, float]:
    """Return the output, and the milliseconds of the second of two passes."""
    network(z, y)
    begun = time.perf_counter()
    x: Tensor = network(z, y)
    return x, (time.perf_counter() - begun) * 1000
