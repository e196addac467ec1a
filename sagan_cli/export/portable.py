"""A generator as exporters trace it: plain inputs, named outputs, one graph for every size of batch."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from sagan_cli.engine.attention_maps import attention_layers
from sagan_cli.engine.sample import Request, latents
from sagan_cli.errors import SaganError
from sagan_cli.export.trained_model import TrainedModel, describe, published
from sagan_cli.ops.assumed_batch import assumed_batch

SEED_RULE = (
    "picture of seed s: h = blake2b('{s}/sample/0', digest_size=8) as little-endian integer, shifted right by 1; "
    "mt19937 seeded with the low 32 bits of h; latent = torch.randn(1, latent) of that CPU stream; "
    "class, where none is asked for, = the next 32-bit word modulo the number of classes; "
    "pixel = round((image + 1) * 127.5)"
)

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_NOISY_LOGGERS = ("torch.onnx", "torch.export", "torch._export", "torch.fx", "onnxscript", "onnx_ir")


class Portable(nn.Module):
    """latent (B, latent) float32 and, with classes, label (B,) int64 -> image (B, C, H, W), then attention maps.

    The maps, one (B, N, M) for each attention layer in the order of `names[1:]`, are those that the pass itself uses.
    """

    def __init__(self, trained: TrainedModel, *, attention: bool = False) -> None:
        """Raises SaganError when maps are wanted and the generator shows none."""
        super().__init__()
        self.generator = trained.generator
        self.conditional = trained.spec.num_classes > 0
        self._layers = list(attention_layers(trained.generator).items()) if attention else []
        self.names = ["image", *(f"attention_{name}" for name, _ in self._layers)]

    def forward(self, latent: Tensor, label: Tensor | None = None) -> tuple[Tensor, ...]:
        found: dict[str, Tensor] = {}
        with ExitStack() as hooks:
            for name, layer in self._layers:

                def look(layer: nn.Module, args: tuple[Tensor, ...], _: Tensor, name: str = name) -> None:
                    found[name] = layer.maps(args[0]).float()  # type: ignore[operator]

                hooks.callback(layer.register_forward_hook(look).remove)
            image = self.generator(latent, label)
        return (image, *(found[name] for name, _ in self._layers))


def inputs(trained: TrainedModel, count: int) -> tuple[Tensor, ...]:
    """The latents, and classes where there are any, of the seeds from 0 to `count` - 1, as `sagan sample` has them."""
    z, y = latents([Request(seed) for seed in range(count)], trained.spec, None)
    return (z,) if y is None else (z, y)


def trace(network: nn.Module, trained: TrainedModel, *, pictures: int) -> ExportedProgram:
    """The graph of a forward pass for any batch from 1 up.

    Args:
        pictures: the batch for which routes are chosen that depend on one; see `ops.routes.assumed_batch`.

    Raises:
        SaganError: the architecture does something that has no such graph.
    """
    # Two: an example of one would be taken for a rule. The pass before it fills what a network keeps after the first,
    # which must not happen while tracing, where tensors are stand-ins.
    example = inputs(trained, 2)
    batch = Dim("batch", min=1)
    shapes = tuple({0: batch} for _ in example)
    try:
        with torch.no_grad(), assumed_batch(pictures):
            refuse_diverged(network(*example))
            return torch.export.export(network, example, dynamic_shapes=shapes, strict=False)
    except SaganError:
        raise
    except Exception as e:  # the tracer runs the architecture's code and raises what it likes
        raise SaganError(f"architecture '{trained.arch}' cannot be exported: {reason(e)}") from e


def refuse_diverged(outputs: Iterable[Tensor]) -> None:
    """Raises SaganError when an output is not a number."""
    if not all(bool(torch.isfinite(output).all()) for output in outputs):
        raise SaganError("the generator's output is not a number: its training diverged; export an earlier checkpoint")


def about(trained: TrainedModel) -> str:
    """What a file says of itself: one JSON object, keys sorted, without the paths of this machine."""
    try:
        return json.dumps({**describe(published(trained)), "seed_rule": SEED_RULE}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as e:  # options of a plugin's own
        raise SaganError(f"{trained.source}: cannot be described in a file: {e}") from e


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block, exporters print, warn and log nothing: what matters they raise."""
    loggers = [(logging.getLogger(name), logging.getLogger(name).level) for name in _NOISY_LOGGERS]
    nowhere = io.StringIO()
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger, _ in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in loggers:
                logger.setLevel(level)


def reason(e: BaseException) -> str:
    """The sentence of an exporter's error that says why, as one line."""
    while e.__cause__ is not None:  # each stage of an exporter wraps the error of the one before
        e = e.__cause__
    lines = [" ".join(_COLOUR.sub("", line).split()) for line in str(e).splitlines() if line.strip()]
    if any("specialized it to be a constant" in line or "inferred to be a constant" in line for line in lines):
        return "its forward pass fixes the size of the batch; len(x) and int(x.shape[0]) do that, x.shape[0] does not"
    return f"{type(e).__name__}: {lines[0][:300] if lines else ''}".removesuffix(": ")
