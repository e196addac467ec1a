"""One iteration of training: what it takes from outside, its updates in order, and whether it can be one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sagan_cli.config.schema import TrainConfig
from sagan_cli.engine.cuda import CudaGraphs
from sagan_cli.engine.cuda_graph import Replay
from sagan_cli.engine.runtime import Runtime
from sagan_cli.engine.step import Objective, Players, discriminator_step, generator_step
from sagan_cli.errors import UsageError

Pair = tuple[Tensor, Tensor | None]
"""Pictures or latents (n, ...), and classes (n,) or None."""


@dataclass(frozen=True)
class Inputs:
    """All that an iteration takes from outside, of this process's share of the batch, on its device."""

    rounds: tuple[tuple[Pair, Pair, Tensor], ...]
    """For each update of D: real pictures, latents, mixture of the gradient penalty."""
    noise: Pair
    """Latents of the update of G."""

    def tensors(self) -> list[Tensor]:
        """All of them, in a fixed order."""
        flat = [t for real, noise, mixture in self.rounds for t in (*real, *noise, mixture)]
        return [t for t in (*flat, *self.noise) if t is not None]

    def like(self) -> Inputs:
        """The same shapes and layouts in memory of its own."""

        def pair(given: Pair) -> Pair:
            return given[0].clone(), None if given[1] is None else given[1].clone()

        rounds = tuple((pair(real), pair(noise), mixture.clone()) for real, noise, mixture in self.rounds)
        return Inputs(rounds, pair(self.noise))


Iteration = Callable[[Inputs], Tensor]
"""Updates both networks; returns (4,): D's loss, G's loss, D's mean logit on real and on fake pictures."""


def iteration(players: Players, runtime: Runtime, cfg: TrainConfig, warn: Callable[[str], None]) -> Iteration:
    """The iteration that a run's settings ask for: D's updates, then G's, plainly or replayed as a CUDA graph.

    Raises:
        UsageError: `--graph on` where there can be none.
    """
    objective = Objective.of(cfg)

    def plain(inputs: Inputs) -> Tensor:
        for real, noise, mixture in inputs.rounds:
            d_loss, d_real, d_fake = discriminator_step(
                players, runtime, real, noise, objective, mixture, cfg.accumulate
            )
        g_loss = generator_step(players, runtime, inputs.noise, objective, cfg.accumulate)
        return torch.stack([d_loss, g_loss, d_real, d_fake])

    hindrance = why_no_graph(cfg, runtime)
    if cfg.graph == "on" and hindrance:
        raise UsageError(f"--graph on: {hindrance}; leave it out")
    if cfg.graph == "off" or hindrance:
        return plain
    return Replay(plain, players, CudaGraphs(runtime.device), warn)


def check_slices(cfg: TrainConfig, runtime: Runtime) -> None:
    """Refuse slices that are not equal.

    Raises:
        UsageError: `--accumulate` does not divide the pictures of a process.
    """
    share = cfg.batch // runtime.world
    if share % cfg.accumulate:
        whose = f"the {share} pictures of " + ("a batch" if runtime.world == 1 else "each process")
        raise UsageError(
            f"--accumulate {cfg.accumulate}: does not divide {whose}; choose a divisor, or another --batch"
        )


def why_no_graph(cfg: TrainConfig, runtime: Runtime) -> str | None:
    """What stands against one CUDA graph; None where nothing does."""
    if runtime.device.type != "cuda":
        return f"needs a CUDA device, and this is {runtime.device.type}"
    if runtime.world > 1:
        return "several processes exchange their gradients outside a graph"
    if cfg.checkpointing:
        return "--checkpointing asks for the state of the random generators, which a graph cannot tell"
    return None
