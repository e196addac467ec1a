"""The default recipe: settings that training chooses from the data, each with a reason. No torch.

It applies to the architecture `sagan` with the presets `laptop` and `base`, without `--system` and `--loss`. Any other
setting that the user gives has priority (`Resolved.left_open`). docs/recipes.md has the measurements behind every
number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sagan_cli.config.resolve import RECIPE, Resolved, flatten
from sagan_cli.config.schema import SETTINGS, build, current_keys
from sagan_cli.geometry import channels_at, geometry

GAMMA = (2.0, 0.2)
"""Weight of R1 and R2 at 32x32 pixels at the start and at the end of a run; both grow with the number of pixels."""
RATES, CHANNELS = (16e-4, 8e-4), 256
"""Learning rates of D and G for networks of at most so many channels; wider ones have proportionally lower rates.

An update of Adam changes every weight by about the learning rate, so the change of a layer's output grows with the
number of its inputs (Yang et al. 2022, arXiv 2203.03466). At 64 pixels these rates made a run diverge
(`tests/loggers/recorded/failed-spike.jsonl`).
"""
MAX_NORM = 20.0
"""Largest norm of a gradient; the median of G's is 6 to 8 at 32 pixels (docs/model.md)."""
INTERVAL = 4
"""Updates of the discriminator per penalty."""
FEW = 5_000
"""Images below which augmentation is used."""
AUGMENTATIONS, PROBABILITY = ("color", "translation", "cutout"), 0.3
"""Augmentations, and their probability at the end of a run, which it reaches on a cosine from 0."""
FLIP_BELOW = 20_000
"""Images from which mirroring is not needed."""


@dataclass(frozen=True)
class DataFacts:
    """What the recipe knows about the images."""

    images: int
    height: int
    width: int
    mirror: Callable[[], tuple[bool, str]]
    """Test whether images may be mirrored; returns the answer and its reason. Called only if it matters."""


@dataclass(frozen=True)
class Part:
    """Settings that belong together."""

    settings: Mapping[str, Any]
    about: str
    """What is chosen and why, in one phrase for the user; empty where it has no effect."""


def choose(resolved: Resolved, facts: DataFacts) -> list[Part]:
    """Return the parts of the recipe for these images, without the settings that the user gave."""
    keys = resolved.left_open
    if not keys:
        return []
    start, end = (f"{gamma * facts.height * facts.width / 32**2:.3g}" for gamma in GAMMA)
    weight = f"cosine:{start}:{end}:100%/{INTERVAL}"
    widest = channels_at(resolved.config.model.width, geometry(facts.height, facts.width).stages)
    d_lr, g_lr = (float(f"{rate * min(1, CHANNELS / widest):.2g}") for rate in RATES)
    parts = [
        Part(
            {
                "train.loss": "relativistic", "model.spectral_norm": "none",
                "train.penalty": f"r1={weight},r2={weight}", "train.grad_clip": MAX_NORM,
            },
            f"relativistic pairing with R1 and R2 (gamma {start}, falling to {end}) in place of the hinge loss and "
            "spectral norm, for variety",
        ),
        Part(
            {"train.d_lr": f"linear:{d_lr}:0.0:50%-100%", "train.g_lr": f"linear:{g_lr}:0.0:50%-100%"},
            f"learning rates {d_lr:g} and {g_lr:g} for {widest} channels, falling to 0 over the second half",
        ),
    ]  # fmt: skip
    about = "queries and keys of the attention normalised, in place of its spectral norm"
    parts.insert(1, Part({"model.qk_norm": "rms"}, "" if resolved.config.model.attn_at == "none" else about))
    if facts.images < FEW:
        parts.append(
            Part(
                {"train.augment": ",".join(f"{name}=cosine:0:{PROBABILITY}:100%" for name in AUGMENTATIONS)},
                f"augmentation of up to {100 * PROBABILITY:.0f} % of the images, for there are fewer than {FEW:,}",
            )
        )  # fmt: skip
    if "data.flip" in keys and facts.images < FLIP_BELOW:
        allowed, reason = facts.mirror()
        parts.append(Part({"data.flip": allowed}, f"{'half' if allowed else 'none'} of the images mirrored: {reason}"))
    return [_told(part, resolved) for part in parts if keys & part.settings.keys()]


def _told(part: Part, resolved: Resolved) -> Part:
    """Return the part; its phrase names the flags that the user gave instead."""
    given = [
        f"--{SETTINGS[key].flag}"
        for key, value in part.settings.items()
        if key not in resolved.left_open and resolved.config.get(key) != value
    ]
    return replace(part, about=f"{part.about}; but {' and '.join(given)} as given") if given and part.about else part


def apply(resolved: Resolved, parts: Iterable[Part]) -> Resolved:
    """Return the settings with those of the recipe that the user left open."""
    keys = resolved.left_open
    chosen = {key: value for part in parts for key, value in part.settings.items() if key in keys}
    return _with(resolved, chosen, dict.fromkeys(chosen, RECIPE))


def values_of(resolved: Resolved) -> dict[str, Any]:
    """Return value and source of the settings that the recipe may choose."""
    return {key: [resolved.config.get(key), resolved.sources[key]] for key in sorted(resolved.left_open)}


def with_values(resolved: Resolved, told: Mapping[str, Any]) -> Resolved:
    """Return the settings with what `values_of` returned on the leading process."""
    return _with(resolved, {k: v for k, (v, _) in told.items()}, {k: source for k, (_, source) in told.items()})


def recorded(resolved: Resolved, record: Mapping[str, Any]) -> Resolved:
    """Return the settings with those that the run to resume has where the user left them open."""
    keys = resolved.left_open
    values = current_keys(flatten(record["config"]))
    chosen = {key: values.get(key, SETTINGS[key].default) for key in keys}
    sources = record.get("sources", {})
    return _with(resolved, chosen, {key: sources.get(key, "default") for key in chosen})


def _with(resolved: Resolved, values: Mapping[str, Any], sources: Mapping[str, str]) -> Resolved:
    config = resolved.config
    merged = {key: config.get(key) for key in SETTINGS} | dict(values)
    return replace(resolved, config=build(merged, dict(config.model.options)), sources={**resolved.sources, **sources})
