"""Values that change during training, and lists of weighted terms, in the text form of flags and TOML. No torch.

4e-4                          constant
linear:4e-4:0:200k            from 4e-4 to 0 over the first 200,000 images shown
cosine:0.1:0.01:50k-200k      constant before 50,000 images and after 200,000
linear:4e-4:0:50%-100%        in shares of the run's images (steps times batch)

r1=0.1/4,r2=linear:0.1:0:1M   terms: name, weight, and every how many updates (default 1)
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from sagan_cli.errors import UsageError

FORM = (
    "write a number, or linear:START:END:IMAGES or cosine:START:END:IMAGES, as in cosine:4e-4:0:200k, ...:50k-200k or "
    "...:50%-100%"
)
_COUNT = re.compile(r"(\d+(?:\.\d+)?)([kKmM%]?)")
_UNITS = {"": 1, "k": 1000, "m": 1_000_000}


@dataclass(frozen=True)
class Schedule:
    """A number as a function of the images shown so far (real images per generator update, summed over steps)."""

    shape: str
    """`constant`, `linear` or `cosine`."""
    start: float
    end: float
    first: float = 0
    """Images shown up to which the value is `start`."""
    last: float = 0
    """Images shown from which the value is `end`."""
    percent: bool = False
    """Whether `first` and `last` are percentages of the run's images; `over` makes them images."""

    def over(self, images: int) -> Schedule:
        """Return the schedule for a run of so many images in total."""
        if not self.percent:
            return self
        return replace(self, first=self.first * images / 100, last=self.last * images / 100, percent=False)

    def at(self, images: int) -> float:
        """Return the value after `images` images were shown."""
        if self.percent:
            raise ValueError("a schedule in percent of a run has no value before `over`")
        if self.shape == "constant":
            return self.start
        done = min(1.0, max(0.0, (images - self.first) / (self.last - self.first)))
        if self.shape == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        return self.start * (1 - done) + self.end * done

    @property
    def constant(self) -> bool:
        """Whether the value never changes."""
        return self.shape == "constant"

    def __str__(self) -> str:
        """Return the text that `parse_schedule` reads."""
        if self.constant:
            return repr(self.start)
        text = (lambda value: f"{value:g}%") if self.percent else _count_text
        span = text(self.last) if not self.first else f"{text(self.first)}-{text(self.last)}"
        return f"{self.shape}:{self.start!r}:{self.end!r}:{span}"


@dataclass(frozen=True)
class Term:
    """One entry of `--penalty`, `--augment` or `--constraint`."""

    name: str
    weight: Schedule
    interval: int = 1
    """Applied at every so many updates."""

    def __str__(self) -> str:
        return f"{self.name}={self.weight}" + (f"/{self.interval}" if self.interval > 1 else "")


def parse_schedule(value: float | str, where: str, *, low: float | None = None, high: float | None = None) -> Schedule:
    """Read a number or the text of a schedule; `where` begins an error message.

    Raises:
        UsageError: neither of the two, or a value outside of `low` and `high`.
    """
    if isinstance(value, str):
        shape, *parts = value.strip().split(":")
        try:
            found = Schedule("constant", float(shape), float(shape)) if not parts else _changing(shape, parts)
        except ValueError:
            raise UsageError(f"{where}: '{value}' is not a number or schedule; {FORM}") from None
    else:
        found = Schedule("constant", float(value), float(value))
    for number in (found.start, found.end):
        if not math.isfinite(number):
            raise UsageError(f"{where}: {number} is not a finite number")
        if low is not None and number < low:
            raise UsageError(f"{where}: {number} is below {low:g}")
        if high is not None and number > high:
            raise UsageError(f"{where}: {number} is above {high:g}")
    return found


def parse_terms(text: str, where: str, *, default: float | None = None) -> tuple[Term, ...]:
    """Read `NAME=WEIGHT[/INTERVAL],...`; a name alone has the weight `default`.

    Raises:
        UsageError: another form, a weight below 0, or a name twice.
    """
    found: list[Term] = []
    for part in (p.strip() for p in text.split(",")):
        if not part:
            continue
        name, equals, rest = part.partition("=")
        weight, slash, interval = rest.partition("/")
        if not name or (not equals and default is None) or (slash and not (interval.isdecimal() and int(interval))):
            raise UsageError(f"{where} {part}: write NAME=WEIGHT or NAME=WEIGHT/INTERVAL, as in r1=0.1/4")
        if any(name == term.name for term in found):
            raise UsageError(f"{where} {text}: {name} appears twice")
        schedule = parse_schedule(weight if equals else default or 0.0, f"{where} {name}", low=0.0)
        found.append(Term(name, schedule, int(interval) if slash else 1))
    return tuple(found)


def _changing(shape: str, parts: list[str]) -> Schedule:
    if shape not in ("linear", "cosine") or len(parts) != 3:
        raise ValueError(shape)
    first, dash, last = parts[2].partition("-")
    percent = last.endswith("%") if dash else first.endswith("%")
    if dash and first.endswith("%") != percent:
        raise ValueError(parts[2])
    begin, finish = (_images(first), _images(last)) if dash else (0, _images(first))
    if finish <= begin or (percent and finish > 100):
        raise ValueError(parts[2])
    return Schedule(shape, float(parts[0]), float(parts[1]), begin, finish, percent)


def _images(text: str) -> float:
    match = _COUNT.fullmatch(text.strip())
    if not match:
        raise ValueError(text)
    return float(match[1]) if match[2] == "%" else round(float(match[1]) * _UNITS[match[2].lower()])


def _count_text(images: float) -> str:
    for letter, unit in (("M", 1_000_000), ("k", 1000)):
        if images and images % unit == 0:
            return f"{images / unit:.0f}{letter}"
    return f"{images:.0f}"
