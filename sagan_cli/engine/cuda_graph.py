"""Run an iteration as a CUDA graph: recorded once, then replayed, so that its kernels are launched as one.

A graph holds addresses, not values. Inputs are therefore copied to the addresses that it reads, and learning rates are
tensors. A graph can be wrong without an error, so the first replay is compared with a plain iteration from the same
state and inputs. If it fails or differs, training continues with plain iterations and a warning.

Reference: "CUDA Graphs: whole-network capture" in PyTorch's documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from sagan_cli.engine.networks import Networks
from sagan_cli.engine.step_inputs import Inputs, Statistics

WARM = 3
"""Plain iterations before recording, which create the optimisers' state and let libraries choose kernels."""
TOLERANCE = 0.05
"""Largest allowed difference between replay and plain iteration, relative to the change made by the iteration.

Kernels that add in varying order differ by far less; a missing update, rate or input differs by far more.
"""


class Recorder(Protocol):
    """Makes recordings: `CudaGraphs`, or a substitute in tests."""

    def aside(self) -> AbstractContextManager[None]:
        """Return the context in which plain iterations before a recording run."""
        ...

    def record(self, work: Callable[[], Statistics]) -> Callable[[], Statistics]:
        """Return a function that repeats `work` on the tensors that it uses now."""
        ...


@dataclass
class Recording:
    """The recording of one kind of iteration; inputs have the same names in all iterations of a kind."""

    held: Inputs
    """Tensors that the recording reads; filled from the first iteration, so that one that reads no others is found."""
    count: int = 0
    rates: list[tuple[dict[str, Any], Tensor]] = field(default_factory=list)
    replay: Callable[[], Statistics] | None = None


class GraphedIteration:
    """A training iteration that is replayed from a CUDA graph, which is recorded after a few plain iterations.

    A penalty with an interval makes iterations of different kinds, each of which has a recording of its own.
    """

    def __init__(
        self, plain: Callable[[Inputs], Statistics], networks: Networks, recorder: Recorder, warn: Callable[[str], None]
    ) -> None:
        self.plain, self.networks, self.recorder, self.warn = plain, networks, recorder, warn
        self.recordings: dict[tuple[tuple[str, ...], ...], Recording] = {}
        self.refused: str | None = None
        """Why no graph is used, or None."""

    def __call__(self, inputs: Inputs) -> Statistics:
        """Update both networks; return the statistics, which the next call may overwrite."""
        if self.refused is not None:
            return self.plain(inputs)
        kind = tuple(tuple(update) for update in (*inputs.discriminator, inputs.generator))
        if kind not in self.recordings:
            self.recordings[kind] = Recording(inputs.like())
        recording = self.recordings[kind]
        recording.count += 1
        if recording.count <= WARM:
            with self.recorder.aside():
                return self.plain(inputs)
        return self._first(recording, inputs) if recording.replay is None else self._next(recording, inputs)

    def _first(self, recording: Recording, inputs: Inputs) -> Statistics:
        """Run plain and recorded iteration from one state; keep the replay if they agree, else the plain one."""
        live = state(self.networks)
        before = _kept(live)
        with self.recorder.aside():
            expected = self.plain(inputs)
        after = _kept(live)
        # .cpu() also waits for the device, so that errors of the plain iteration appear here.
        expected_values = {name: value.cpu() for name, value in expected.items()}
        _put(live, before)
        try:
            self._record(recording)
            found = self._next(recording, inputs)
            wrong = difference(live, before, after) or _other_statistics(found, expected_values)
        except RuntimeError as e:
            wrong = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        if wrong is None:
            return found
        self._give_up(wrong)
        _put(live, after)
        return expected

    def _record(self, recording: Recording) -> None:
        optimisers = (self.networks.opt_g, self.networks.opt_d)
        device = next(self.networks.generator.parameters()).device
        recording.rates = [(g, torch.zeros((), device=device)) for o in optimisers for g in o.param_groups]
        self._drop_gradients()
        with _recordable(recording.rates):
            recording.replay = self.recorder.record(lambda: self.plain(recording.held))

    def _next(self, recording: Recording, inputs: Inputs) -> Statistics:
        assert recording.replay is not None, "recorded"
        for mine, theirs in zip(recording.held.tensors(), inputs.tensors(), strict=True):
            mine.copy_(theirs)
        for group, rate in recording.rates:
            rate.fill_(group["lr"])
        return recording.replay()

    def _give_up(self, why: str) -> None:
        self.refused = why
        self.recordings.clear()
        # Undo what an aborted recording may have left.
        self.networks.train_discriminator(True)
        self._drop_gradients()
        self.warn(f"training continues without a CUDA graph: {why}; --graph off avoids the attempt")

    def _drop_gradients(self) -> None:
        for optimiser in (self.networks.opt_g, self.networks.opt_d):
            optimiser.zero_grad(set_to_none=True)


State = dict[str, list[Tensor]]
"""Kind of state -> tensors."""


def state(networks: Networks) -> State:
    """Return every tensor that an iteration changes, by network and kind."""
    found: State = {}
    for name, network, optimiser in (
        ("generator", networks.generator, networks.opt_g), ("discriminator", networks.discriminator, networks.opt_d),
    ):  # fmt: skip
        weights: list[Tensor] = list(network.parameters())
        found[f"weights of the {name}"] = weights
        for buffer, tensor in network.named_buffers():
            found.setdefault(f"{buffer.rsplit('.', 1)[-1]} of the {name}", []).append(tensor)
        for weight in weights:
            for slot, value in optimiser.state.get(weight, {}).items():
                if isinstance(value, Tensor):
                    found.setdefault(f"{slot} of the {name}'s optimiser", []).append(value)
    if networks.adaptive is not None:
        found["strength of the augmentation"] = list(networks.adaptive.buffers())
    return found


def difference(found: State, before: State, expected: State) -> str | None:
    """Return a sentence about the first kind of state in which `found` differs from `expected`, or None.

    Integers must be equal. For floats, the distance to `expected` must be small relative to the distance from `before`
    to `expected`, both as sums of magnitudes.
    """
    for kind, tensors in found.items():
        apart = moved = size = 0.0
        for mine, old, new in zip(tensors, before[kind], expected[kind], strict=True):
            now = mine.detach().cpu()
            if not now.is_floating_point():
                if not torch.equal(now, new):
                    return f"the {kind} differ from those of a plain step"
                continue
            apart += (now - new).abs().sum().item()
            moved += (new - old).abs().sum().item()
            size += new.abs().sum().item()
        # Not `>`: a comparison with not-a-number is false.
        if not apart <= TOLERANCE * moved + 1e-6 * size:
            return f"the {kind} end {apart / max(moved, 1e-30):.2g} of a step away from those of a plain step"
    return None


def _other_statistics(found: Statistics, expected: Statistics) -> str | None:
    for name, value in expected.items():
        apart = (found[name].cpu() - value).abs().item()
        if not apart <= TOLERANCE * max(1.0, value.abs().item()):
            return f"{name} differs from that of a plain step by {apart:.2g}"
    return None


@contextmanager
def _recordable(rates: list[tuple[dict[str, Any], Tensor]]) -> Iterator[None]:
    """Make the optimisers read their rates from tensors and be capturable within the block."""
    usual = [(group["lr"], group["capturable"]) for group, _ in rates]
    for group, rate in rates:
        group["lr"], group["capturable"] = rate, True
    try:
        yield
    finally:
        for (group, _), (lr, capturable) in zip(rates, usual, strict=True):
            group["lr"], group["capturable"] = lr, capturable


def _kept(live: State) -> State:
    """Return copies in host memory, since the device may be full."""
    return {kind: [t.detach().to("cpu", copy=True) for t in tensors] for kind, tensors in live.items()}


@torch.no_grad()
def _put(live: State, kept: State) -> None:
    for kind, tensors in live.items():
        for mine, theirs in zip(tensors, kept[kind], strict=True):
            mine.copy_(theirs)


class CudaGraphs:
    """A `Recorder` of the CUDA kernels that a function launches."""

    def __init__(self, device: torch.device) -> None:
        # Warm-up and recording share one stream, on which libraries create their handles before the recording.
        self.stream = torch.cuda.Stream(device)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Run on the recording's stream, ordered with the work before and after."""
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            yield
        current.wait_stream(self.stream)

    def record(self, work: Callable[[], Statistics]) -> Callable[[], Statistics]:
        """Record without computing; the result launches all kernels at once and returns the tensors they write to."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            out = work()

        def replay() -> Statistics:
            graph.replay()
            return out

        return replay
