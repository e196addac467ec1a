"""An iteration that is recorded once and then replayed: the same kernels, launched as one and not a thousand times.

A recording holds addresses, not values: what it reads from outside is copied to where it read when it was made, and
learning rates lie in tensors. A recording may also be wrong without saying so. Therefore the first replay is compared
with the plain iteration, from the same state and on the same inputs, and where it fails or differs, training goes on
plainly from the plain result, with one line that says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from sagan_cli.engine.step import Players

if TYPE_CHECKING:
    from sagan_cli.engine.iteration import Inputs

WARM = 3
"""Plain iterations before the recording: they make the optimisers' state, and let libraries choose their kernels."""
TOLERANCE = 0.05
"""How far a replay may end from the plain iteration, as a share of how far that went, summed over a kind of state.

Kernels that add in varying order differ by far less; an update, a rate or an input that is missing by far more.
"""


class Recorder(Protocol):
    """What makes recordings: `engine.cuda.CudaGraphs`."""

    def aside(self) -> AbstractContextManager[None]:
        """Where plain iterations before a recording run."""
        ...

    def record(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """What repeats `work` on the tensors that it finds now."""
        ...


class Replay:
    """A plain iteration, a few times; then its recording."""

    def __init__(
        self, plain: Callable[[Inputs], Tensor], players: Players, recorder: Recorder, warn: Callable[[str], None]
    ) -> None:
        self.plain, self.players, self.recorder, self.warn = plain, players, recorder, warn
        self.count = 0
        self.held: Inputs | None = None
        self.rates: list[tuple[dict[str, Any], Tensor]] = []
        self.replay: Callable[[], Tensor] | None = None
        self.refused: str | None = None
        """Why nothing is replayed."""

    def __call__(self, inputs: Inputs) -> Tensor:
        """Update both networks; the four losses, in a tensor that the next call may overwrite."""
        if self.refused is not None:
            return self.plain(inputs)
        self.count += 1
        if self.count <= WARM:
            # The inputs of the first iteration, so that a recording that is not fed with new ones is found out.
            self.held = self.held or inputs.like()
            with self.recorder.aside():
                return self.plain(inputs)
        return self._first(inputs) if self.replay is None else self._next(inputs)

    def _first(self, inputs: Inputs) -> Tensor:
        """Both ways from one state; the replay's result where they agree, else the plain one."""
        live = state(self.players)
        before = _kept(live)
        with self.recorder.aside():
            expected = self.plain(inputs)
        after = _kept(live)
        told = expected.cpu()  # also waits for the device: what is wrong with the plain iteration shows here
        _put(live, before)
        try:
            self._record()
            found = self._next(inputs)
            wrong = difference(live, before, after) or _other_losses(found.cpu(), told)
        except RuntimeError as e:
            wrong = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        if wrong is None:
            return found
        self._give_up(wrong)
        _put(live, after)
        return expected

    def _record(self) -> None:
        held = self.held
        assert held is not None, "warmed up"
        optimisers = (self.players.opt_g, self.players.opt_d)
        device = held.noise[0].device
        self.rates = [(g, torch.zeros((), device=device)) for o in optimisers for g in o.param_groups]
        self._drop_gradients()
        with _recordable(self.rates):
            self.replay = self.recorder.record(lambda: self.plain(held))

    def _next(self, inputs: Inputs) -> Tensor:
        held, replay = self.held, self.replay
        assert held is not None, "warmed up"
        assert replay is not None, "recorded"
        for mine, theirs in zip(held.tensors(), inputs.tensors(), strict=True):
            mine.copy_(theirs)
        for group, rate in self.rates:
            rate.fill_(group["lr"])
        return replay()

    def _give_up(self, why: str) -> None:
        self.refused, self.replay, self.held, self.rates = why, None, None, []
        # What a recording that broke off may have left behind.
        self.players.discriminator.requires_grad_(True)
        self._drop_gradients()
        self.warn(f"training goes on without a CUDA graph: {why}; --graph off says so from the start")

    def _drop_gradients(self) -> None:
        for optimiser in (self.players.opt_g, self.players.opt_d):
            optimiser.zero_grad(set_to_none=True)


State = dict[str, list[Tensor]]
"""Kind of state -> its tensors."""


def state(players: Players) -> State:
    """Every tensor that an iteration changes, by the network it belongs to and what it is."""
    found: State = {}
    for name, network, optimiser in (
        ("generator", players.generator, players.opt_g), ("discriminator", players.discriminator, players.opt_d),
    ):  # fmt: skip
        weights: list[Tensor] = list(network.parameters())
        found[f"weights of the {name}"] = weights
        for buffer, tensor in network.named_buffers():
            found.setdefault(f"{buffer.rsplit('.', 1)[-1]} of the {name}", []).append(tensor)
        for weight in weights:
            for slot, value in optimiser.state.get(weight, {}).items():
                if isinstance(value, Tensor):
                    found.setdefault(f"{slot} of the {name}'s optimiser", []).append(value)
    return found


def difference(found: State, before: State, expected: State) -> str | None:
    """The first kind of state in which `found` is not what `expected` says; None where there is none.

    Whole numbers must be equal. Of others, the distance to `expected` must be a small share of that from `before` to
    `expected`, both as sums of magnitudes.
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


def _other_losses(found: Tensor, expected: Tensor) -> str | None:
    """(4,) each."""
    apart = (found - expected).abs().max().item()
    if not apart <= TOLERANCE * max(1.0, expected.abs().max().item()):
        return f"the losses differ from those of a plain step by {apart:.2g}"
    return None


@contextmanager
def _recordable(rates: list[tuple[dict[str, Any], Tensor]]) -> Iterator[None]:
    """Within the block, optimisers read their rates from the given tensors, and do what a recording can hold."""
    usual = [(group["lr"], group["capturable"]) for group, _ in rates]
    for group, rate in rates:
        group["lr"], group["capturable"] = rate, True
    try:
        yield
    finally:
        for (group, _), (lr, capturable) in zip(rates, usual, strict=True):
            group["lr"], group["capturable"] = lr, capturable


def _kept(live: State) -> State:
    """Copies in the host's memory: the device has none to spare where an iteration fills it."""
    return {kind: [t.detach().to("cpu", copy=True) for t in tensors] for kind, tensors in live.items()}


@torch.no_grad()
def _put(live: State, kept: State) -> None:
    for kind, tensors in live.items():
        for mine, theirs in zip(tensors, kept[kind], strict=True):
            mine.copy_(theirs)
