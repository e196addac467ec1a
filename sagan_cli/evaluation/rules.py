"""What to score by: a protocol with the flags that depart from it put in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from sagan_cli.evaluation.protocols import KNOBS, Protocol, find


@dataclass(frozen=True)
class Plan:
    """What to score by, and how."""

    protocol: Protocol
    """Rules that a record names; flags that depart from them have been put in already."""
    metrics: tuple[str, ...] | None = None
    """None is the protocol's, and the structure score where the data has one."""
    n: int | None = None
    n_real: int | None = None
    """Real pictures at most; None is all, or as many as `n` where that is below the protocol's count."""
    all_real: bool = False
    weights: Path | None = None
    per_class: bool = False
    fit: str | None = None
    seed: int = 0
    batch: int = 64
    given: Mapping[str, int] = field(default_factory=dict)
    """Parameters of metrics that the user set."""

    def knobs(self) -> dict[str, int]:
        """Return the parameters of metrics: the protocol's, replaced and completed by the user's."""
        rules = {name: getattr(self.protocol, name) for name in KNOBS}
        return rules | dict(self.given)

    def reals(self) -> int | None:
        """The limit on real pictures that follows."""
        if self.all_real or self.n_real is not None:
            return self.n_real
        return self.n if self.n is not None and self.n < self.protocol.n_fake else self.protocol.n_real

    @property
    def departures(self) -> list[str]:
        """Which rules of the protocol flags have changed, for the record."""
        rules = find(self.protocol.name)
        changed = [f.name for f in fields(rules) if getattr(rules, f.name) != getattr(self.protocol, f.name)]
        return changed + (["n_fake"] if self.n not in (None, rules.n_fake) else [])


def with_rules(rules: Protocol, **changes: Any) -> Protocol:
    """A protocol with the flags that depart from it put in; None leaves a rule as it is."""
    return replace(rules, **{k: v for k, v in changes.items() if v is not None})
