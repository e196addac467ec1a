"""The inputs of a training step: real images, latents and random numbers, as functions of (seed, step)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from sagan_cli.config.schema import TrainConfig
from sagan_cli.contracts import ModelSpec
from sagan_cli.engine.runtime import Runtime
from sagan_cli.objectives.objective import Objective
from sagan_cli.ops.randomness import generator, latents_and_labels

Tensors = dict[str, Tensor]
"""Inputs of one update by name: `real`, `real_labels`, `latents`, `fake_labels`, and those of the terms
(`Objective.random_inputs`). Labels are absent without classes."""
Statistics = dict[str, Tensor]
"""Named scalars of a step, detached: losses, mean logits, the value of each penalty."""


@dataclass(frozen=True)
class Inputs:
    """All inputs of one iteration: this process's share of the batch, on its device."""

    discriminator: tuple[Tensors, ...]
    """One for each update of D."""
    generator: Tensors

    def tensors(self) -> list[Tensor]:
        """Return all tensors in a fixed order."""
        return [tensor for update in (*self.discriminator, self.generator) for tensor in update.values()]

    def like(self) -> Inputs:
        """Return a copy with the same shapes and layouts."""
        copies = [{name: t.clone() for name, t in update.items()} for update in (*self.discriminator, self.generator)]
        return Inputs(tuple(copies[:-1]), copies[-1])


class BatchSource(Protocol):
    """Where real images come from: `data.batches.Batches`."""

    def at(self, update: int) -> tuple[Tensor, Tensor | None]:
        """Return this process's images (n, C, H, W) and labels (n,) or None for a discriminator update."""
        ...


class StepInputs:
    """Makes the inputs of every step as a function of (seed, step), equal for any number of processes."""

    def __init__(self, objective: Objective, cfg: TrainConfig, spec: ModelSpec, real: BatchSource, runtime: Runtime):
        self.objective, self.cfg, self.spec, self.real, self.runtime = objective, cfg, spec, real, runtime
        share = cfg.batch // runtime.world
        self.mine = slice(runtime.rank * share, (runtime.rank + 1) * share)

    def at(self, step: int) -> Inputs:
        """Return the inputs of a step; `step` counts generator updates from 0."""
        first = step * self.cfg.d_steps
        rounds = tuple(self._discriminator(update, step) for update in range(first, first + self.cfg.d_steps))
        return Inputs(rounds, self._generator(step, rounds[-1]))

    def latents(self, purpose: str, counter: int) -> tuple[Tensor, Tensor | None]:
        """Return this process's latents (n, latent) and labels (n,) or None for a purpose."""
        rng = generator(self.cfg.seed, purpose, counter)
        z, y = latents_and_labels(rng, self.cfg.batch, self.spec.latent, self.spec.num_classes)
        return self._share(z), None if y is None else self._share(y)

    def _discriminator(self, update: int, step: int) -> Tensors:
        real, real_labels = self.real.at(update)
        latents, fake_labels = self.latents("d", update)
        return {**_present(real=real, real_labels=real_labels, latents=latents, fake_labels=fake_labels),
                **self._terms(update, step, "d")}  # fmt: skip

    def _generator(self, step: int, last: Tensors) -> Tensors:
        latents, fake_labels = self.latents("g", step)
        # A loss over pairs needs real images in this update as well: those of the last discriminator update.
        paired: Tensors = {k: last[k] for k in ("real", "real_labels") if self.objective.loss.uses_real and k in last}
        return {**paired, **_present(latents=latents, fake_labels=fake_labels), **self._terms(step, step, "g")}

    def _terms(self, update: int, step: int, network: str) -> Tensors:
        cfg = self.cfg
        drawn = self.objective.random_inputs(cfg.seed, update, step * cfg.batch, cfg.batch, network=network)
        return {name: self._share(tensor) if tensor.dim() else self.runtime.send(tensor) for name, tensor in drawn}

    def _share(self, tensor: Tensor) -> Tensor:
        return self.runtime.send(tensor[self.mine])


def _present(**tensors: Tensor | None) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}
