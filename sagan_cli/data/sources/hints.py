"""What a data set of our own may tell the packer besides the contract of `sagan_cli.contracts.Dataset`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hints:
    """Carried as the attribute `hints`; a data set without it gets these defaults."""

    fit: str = "crop"
    """What `--fit auto` means for it."""
    channels: int | None = None
    """What `--channels auto` means for it; None looks at the pictures."""
    in_process: bool = False
    """Reading a picture costs less than sending it to another process."""


def hints_of(dataset: object) -> Hints:
    """The data set's own hints, or the defaults."""
    hints = getattr(dataset, "hints", None)
    return hints if isinstance(hints, Hints) else Hints()
