"""All that only a CUDA device runs: the precision of its fp32 units, and the recording of a graph.

References: the notes "TensorFloat-32" and "CUDA Graphs: whole-network capture" of PyTorch's documentation.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def set_tf32(convolutions: bool) -> None:
    """Say outright what fp32 means: TF32 (10 bits of mantissa) in convolutions or not, and never in matrix products.

    Left alone, PyTorch takes TF32 for convolutions even of a run in fp32.
    """
    precision = "tf32" if convolutions else "ieee"
    cudnn: Any = torch.backends.cudnn  # the stubs know less of these than the documentation
    matmul: Any = torch.backends.cuda.matmul
    with warnings.catch_warnings(action="ignore"):
        # The old names are on their way out, but what asks by them fails where they were not set to the same.
        cudnn.allow_tf32, matmul.allow_tf32 = convolutions, False
    cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = precision
    matmul.fp32_precision = "ieee"


class CudaGraphs:
    """A recorder (`engine.replay.Recorder`) of the kernels that a piece of work launches."""

    def __init__(self, device: torch.device) -> None:
        # Warm-up and recording share one stream, on which libraries make their handles before the recording.
        self.stream = torch.cuda.Stream(device)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Run on the recording's stream, in order with what comes before and after."""
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            yield
        current.wait_stream(self.stream)

    def record(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Record without computing; the result launches all kernels at once and returns the tensor they write to."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            out = work()

        def replay() -> Tensor:
            graph.replay()
            return out

        return replay
