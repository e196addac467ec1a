"""Compare an exported model in its own runtime with PyTorch: differences on the same latents, and times."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from sagan_cli.errors import SaganError
from sagan_cli.export.portable import Portable, inputs, refuse_diverged
from sagan_cli.export.trained_model import Check, TrainedModel

BATCHES = (1, 3, 64)
TOLERANCE = 1e-4
"""Largest allowed difference of an output value, of images in [-1, 1] and of attention in [0, 1].

Another order of summation causes 1e-6, which an unscaled softmax over large scores multiplies; a wrong operator causes
1e-2 or more. One level of an 8-bit image is 80 times this.
"""
RUNS = 5
SECONDS = 2.0
"""Timing stops after RUNS runs or SECONDS."""

Run = Callable[[tuple[Tensor, ...]], Sequence[np.ndarray]]


def check(
    trained: TrainedModel,
    network: Portable,
    runtime: str,
    run: Run,
    draw: Run,
    notify: Callable[[str], None],
) -> Check:
    """Compare an exported model with PyTorch at batches of 1, 3 and 64.

    Args:
        network: the exported network; its outputs are the reference.
        runtime: name of the runtime, such as `onnxruntime 1.31.1, CPU`.
        run: all outputs of the exported model, in the order of `network.names`.
        draw: the image only, for timing.

    Raises:
        SaganError: an output differs by more than TOLERANCE or is not finite.
    """
    differences, theirs, ours = {}, {}, {}
    for batch in _batches(network, trained, notify):
        given = inputs(trained, batch)
        with torch.inference_mode():
            outputs = network(*given)
        refuse_diverged(outputs)
        expected = [output.numpy() for output in outputs]
        got = _attempt(run, given, runtime, batch)
        differences[batch] = max(
            _difference(name, batch, want, have, runtime)
            for name, want, have in zip(network.names, expected, got, strict=True)
        )
        del outputs, expected, got
        theirs[batch] = _milliseconds(lambda given=given: draw(given))  # type: ignore[misc]
        ours[batch] = _milliseconds(lambda given=given: _torch(trained, given))  # type: ignore[misc]
    return Check(runtime, differences, theirs, ours)


def _attempt(run: Run, given: tuple[Tensor, ...], runtime: str, batch: int) -> Sequence[np.ndarray]:
    try:
        return run(given)
    except Exception as e:  # runtimes raise their own types
        text = " ".join(str(e).split())[:300]
        raise SaganError(f"{runtime} cannot run the exported model with a batch of {batch}: {text}") from e


def _difference(name: str, batch: int, want: np.ndarray, have: np.ndarray, runtime: str) -> float:
    """Return the largest absolute difference.

    Raises:
        SaganError: it is too large.
    """
    if want.shape != have.shape:
        raise SaganError(f"{runtime}: '{name}' of a batch of {batch} has shape {have.shape}, not {want.shape}")
    gaps = np.abs(want - have)
    worst = float(gaps.max())
    if not worst <= TOLERANCE:  # written so that NaN does not pass
        place = tuple(int(i) for i in np.unravel_index(np.argmax(np.nan_to_num(gaps, nan=math.inf)), gaps.shape))
        raise SaganError(
            f"{runtime} differs from PyTorch by {worst:.3g} in '{name}' of a batch of {batch}, at {place}: "
            f"more than {TOLERANCE:g}; nothing was written"
        )
    return worst


def _batches(network: Portable, trained: TrainedModel, notify: Callable[[str], None]) -> list[int]:
    """Return 1, 3 and 64, or less than 64 if the attention maps do not fit into memory."""
    if len(network.names) > 1:
        with torch.inference_mode():
            per_image = sum(output.nbytes for output in network(*inputs(trained, 1))[1:])
    else:
        per_image = _score_bytes(trained)
    # Scores, their softmax, and a copy for the comparison.
    room = int(_free_memory() // max(4 * per_image, 1))
    if room >= BATCHES[-1]:
        return list(BATCHES)
    largest = max(room, BATCHES[-2] + 1)
    notify(
        f"checking batches of 1, 3 and {largest} instead of 64: the attention maps of 64 images do not fit into memory"
    )
    return [*BATCHES[:-1], largest]


def _score_bytes(trained: TrainedModel) -> int:
    """Return an upper bound of the bytes of attention scores of one image."""
    height, width = trained.spec.height, trained.spec.width
    total = 0
    for side in trained.spec.attn_at:
        positions = side * side * min(height, width) // max(height, width)
        total += 4 * positions * positions // 4
    return total


def _free_memory() -> float:
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # Windows
        return math.inf


def _torch(trained: TrainedModel, given: tuple[Tensor, ...]) -> Tensor:
    with torch.inference_mode():
        image: Tensor = trained.generator(*given) if len(given) > 1 else trained.generator(given[0], None)
    return image


def _milliseconds(run: Callable[[], object]) -> float:
    """Return the median time of a run, after a first run of the same batch."""
    times: list[float] = []
    while len(times) < RUNS and sum(times) < SECONDS:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)
