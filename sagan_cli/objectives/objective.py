"""The objective of a run: its loss, penalties, augmentations and constraints, by the names in its settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sagan_cli.config.schedule import Term, parse_schedule, parse_terms
from sagan_cli.config.schema import TrainConfig
from sagan_cli.contracts import Augmentation, Constraint, Loss, Penalty
from sagan_cli.errors import UsageError
from sagan_cli.objectives.adaptive import AdaptiveStrength
from sagan_cli.ops.randomness import generator
from sagan_cli.plugins import registry


@dataclass(frozen=True)
class Objective:
    """A loss and its terms; each term has a weight and an interval."""

    loss: Loss
    penalties: tuple[tuple[Term, Penalty], ...] = ()
    augmentations: tuple[tuple[Term, Augmentation], ...] = ()
    constraints: tuple[tuple[Term, Constraint], ...] = ()

    @classmethod
    def of(cls, train: TrainConfig) -> Objective:
        """Return the objective that the settings of a run name.

        Raises:
            UsageError: an unknown name.
            PluginError: a plugin's term that cannot be loaded.
        """
        penalties = list(parse_terms(train.penalty, "--penalty"))
        for name in ("gp", "r1"):
            weight = parse_schedule(getattr(train, name), f"--{name}")
            if (weight.start or weight.end) and all(term.name != name for term in penalties):
                penalties.append(Term(name, weight))
        constraints = list(parse_terms(train.constraint, "--constraint"))
        if train.clip and all(term.name != "clip" for term in constraints):
            constraints.append(Term("clip", parse_schedule(train.clip, "--clip")))
        for term in constraints:
            if term.interval > 1 or not term.weight.constant:
                raise UsageError(f"--constraint {term}: takes a constant value and no interval")
        return cls(
            registry.load("losses", train.loss),
            _loaded("penalties", penalties, train),
            _loaded("augmentations", parse_terms(train.augment, "--augment", default=1.0), train),
            _loaded("constraints", constraints, train),
        )

    def random_inputs(
        self, seed: int, update: int, images: int, count: int, *, network: str
    ) -> Iterator[tuple[str, Tensor]]:
        """Draw the random inputs and weights of one update, by name, as functions of (seed, purpose, update).

        Args:
            images: images shown so far, by which weights are scheduled.
            count: images of the global batch.
            network: `d` or `g`, the network that is updated.

        Yields:
            For every penalty of this update `weight.NAME` (), and `random.NAME` (count, ...) if it has random inputs;
            for every augmentation `probability.NAME` (), and `random.NAME.real` and `random.NAME.fake` (count, ...).
        """
        if network == "d":
            for term, penalty in self.penalties:
                if update % term.interval == 0:
                    yield f"weight.{term.name}", _scalar(term.weight.at(images) * term.interval)
                    if penalty.random is not None:
                        stream = generator(seed, penalty.stream or term.name, update)
                        yield f"random.{term.name}", penalty.random(stream, count)
        for term, augmentation in self.augmentations:
            yield f"probability.{term.name}", _scalar(term.weight.at(images))
            for which in ("real", "fake") if network == "d" or self.loss.uses_real else ("fake",):
                stream = generator(seed, f"{term.name}/{network}/{which}", update)
                yield f"random.{term.name}.{which}", augmentation.random(stream, count)

    def augment(
        self, images: Tensor, given: dict[str, Tensor], which: str, adaptive: AdaptiveStrength | None
    ) -> Tensor:
        """Apply all augmentations to images (N, C, H, W).

        Args:
            which: `real` or `fake`.
            adaptive: multiplies the probabilities; None: they are used as they are.
        """
        for term, augmentation in self.augmentations:
            probability = given[f"probability.{term.name}"].to(images.dtype)
            if adaptive is not None:
                probability = probability * adaptive.strength
            images = augmentation.apply(images, given[f"random.{term.name}.{which}"], probability)
        return images


def _loaded(kind: str, terms: Iterable[Term], train: TrainConfig) -> tuple[tuple[Term, Any], ...]:
    total = train.steps * train.batch
    return tuple((replace(term, weight=term.weight.over(total)), registry.load(kind, term.name)) for term in terms)


def _scalar(value: float) -> Tensor:
    return torch.tensor(value)
