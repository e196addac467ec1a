"""From a checkpoint to scenes: which layers are meant, which pictures, and what to call them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sagan_cli import console
from sagan_cli.errors import SaganError, UsageError, closest
from sagan_cli.generators import run_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sagan_cli.attention.scene import Scene
    from sagan_cli.attention.scenes import Chosen, Pair, Sight
    from sagan_cli.engine.runtime import Runtime
    from sagan_cli.engine.sample import Request

Key = tuple[str, str]
"""`G` or `D`, and a layer's name."""


@dataclass(frozen=True)
class Layers:
    """Which layers to compute, and which to draw, in that order."""

    computed: tuple[Key, ...]
    drawn: tuple[Key, ...]

    def chosen(self) -> Chosen:
        """The computed ones by network."""
        return {letter: [name for own, name in self.computed if own == letter] for letter in "GD"}


def opened(checkpoint: Path, runtime: Runtime, raw: bool, wanted: Sequence[str], discriminator: bool) -> Pair:
    """The networks of a checkpoint; D only where it is asked for: by the caller, by --layer, or as G has no layers."""
    from sagan_cli.attention.scenes import open_pair, with_discriminator

    pair = open_pair(checkpoint, runtime, raw=raw)
    known = [("G", name) for name in pair.layers("G")] if pair.has_layers("G") else []
    # An imported checkpoint holds G alone; what does not name D does without it.
    has_d = (checkpoint / "state.safetensors").is_file()
    if (discriminator and (has_d or not known)) or not known or any(not _of_network(text, known) for text in wanted):
        pair = with_discriminator(pair, runtime)
    return pair


def choose_layers(pair: Pair, wanted: Sequence[str], *, own_pictures: bool, everything: bool) -> Layers:
    """What --layer means, or what is meant without it: G's layer nearest to the picture, D's on own pictures.

    Args:
        wanted: `32`, `G32`, `G 32`, `d:16`, `G` or `D` for all layers of that network, or `all`.
        own_pictures: the pictures are not G's, so only D has seen them.
        everything: without --layer, compute all there are, whatever is drawn.

    Raises:
        UsageError: no such layer.
        SaganError: no network that could be meant declares one.
    """
    letters = "D" if own_pictures else "G" if pair.discriminator is None else "GD"
    declaring = [letter for letter in letters if pair.has_layers(letter)]
    known = [(letter, name) for letter in declaring for name in pair.layers(letter)]
    if not known:
        pair.layers(letters[0])  # says what to do
    if wanted:
        found = tuple(dict.fromkeys(key for text in wanted for key in _meant(text, known, letters)))
        return Layers(found, found)
    # The layer at the largest map stands last in G and first in D.
    first = next(key for key in (reversed(known) if known[0][0] == "G" else known) if key[0] == known[0][0])
    return Layers(tuple(known) if everything else (first,), (first,))


@dataclass(frozen=True)
class Drawn:
    """Pictures that G draws."""

    requests: Sequence[Request]

    def scene(self, pair: Pair, layers: Layers, runtime: Runtime) -> Scene:
        """Captioned by seed and class."""
        from sagan_cli.attention.scenes import of_seeds

        with console.progress("looking", len(self.requests)) as tick:
            sight = of_seeds(pair, self.requests, layers.chosen(), runtime, _Counter(tick))
        names = pair.sampler.class_names
        captions = [
            f"seed {request.seed}" + (f", {names[label]}" if names else "")
            for request, label in zip(self.requests, sight.labels, strict=True)
        ]
        return _scene(sight, pair.sampler.facts.step, captions)


@dataclass(frozen=True)
class Own:
    """The user's own pictures, as D sees them."""

    pictures: NDArray[np.uint8]
    names: Sequence[str]
    label: int | None
    """The class that D is told; None is 0, after a look at whether it matters."""

    def scene(self, pair: Pair, layers: Layers, runtime: Runtime) -> Scene:
        """Captioned by file."""
        from sagan_cli.attention.scenes import label_matters, of_pictures

        names = layers.chosen()["D"]
        if self.label is None and label_matters(pair, self.pictures[0], names, runtime):
            first = pair.sampler.class_names[0]
            console.warn(f"--image: what this D looks at depends on the class, and it is told '{first}'; see --class")
        with console.progress("looking", len(self.pictures)) as tick:
            sight = of_pictures(pair, self.pictures, self.label or 0, names, runtime, _Counter(tick))
        return _scene(sight, pair.sampler.facts.step, self.names)


def checkpoints_of(checkpoint: Path) -> list[Path]:
    """All kept checkpoints of the run that this one belongs to, oldest first.

    Raises:
        UsageError: it belongs to none.
    """
    run = run_of(checkpoint)
    if run is None:
        raise UsageError(f"--steps: {checkpoint} lies in no run; name a run with several checkpoints")
    kept = run.checkpoint_steps()
    if len(kept) < 2:
        console.warn(f"--steps: {run.path} keeps one checkpoint only; train with --save-every and --keep for more")
    return kept


def title_of(checkpoint: Path) -> str:
    """`001-quadrupeds-sagan32`, or the checkpoint's own name where it lies in no run."""
    run = run_of(checkpoint)
    return run.path.resolve().name if run else checkpoint.resolve().name


def warn_of_idle(scene: Scene) -> None:
    """Say of every layer that does next to nothing what that means and what to do."""
    for layer in scene.layers:
        if layer.idle:
            gamma = "" if layer.gamma is None else f", gamma {layer.gamma:.2g}"
            console.warn(
                f"attention layer {layer.key} is idle: it adds {float(layer.strength.mean()):.1%} to what passes "
                f"through it{gamma}, so its maps decide nothing; train longer or place attention elsewhere "
                f"(--attn-at), and follow gamma_{layer.network.lower()}{layer.name} in metrics.jsonl"
            )


def _key(text: str, known: Sequence[Key]) -> Key | None:
    """The layer that `32` (G's before D's), `G32`, `G 32` or `g:32` names."""
    for key in known:
        if key[1] == text.strip():
            return key
    match = re.fullmatch(r"\s*([GgDd])\s*:?\s*(.+?)\s*", text)
    named = (match[1].upper(), match[2]) if match else None
    return named if named in known else None


def _of_network(text: str, known: Sequence[Key]) -> list[Key]:
    """Return the layer that `text` names, or all layers of the network that it names by `G` or `D`."""
    key = _key(text, known)
    return [key] if key else [own for own in known if own[0] == text.strip().upper()]


def _meant(text: str, known: Sequence[Key], letters: str) -> list[Key]:
    if text.strip().lower() == "all":
        return list(known)
    if found := _of_network(text, known):
        return found
    if letters == "D" and re.match(r"\s*[Gg]", text):
        raise UsageError(f"--layer {text}: --image shows layers of D only; they are {_list(known)}")
    near = closest(text.replace(" ", ""), [f"{letter}{name}" for letter, name in known])
    raise UsageError(f"--layer {text}: no such attention layer{near}; there are {_list(known)}")


class _Counter:
    """Turns parts into a running total."""

    def __init__(self, tick: console.Tick) -> None:
        self._tick, self._done = tick, 0

    def __call__(self, part: int) -> None:
        self._done += part
        self._tick(self._done)


def _list(known: Sequence[Key]) -> str:
    return ", ".join(f"{letter}{name}" for letter, name in known)


def _scene(sight: Sight, step: int, captions: Sequence[str]) -> Scene:
    from sagan_cli.attention.scene import Layer, Scene

    layers = tuple(
        Layer(
            letter, seen.name, seen.maps.numpy(), seen.query_grid, seen.key_grid, seen.gamma, seen.strength.numpy(),
            seen.entropy().float().numpy(), seen.distance().float().numpy(),
        )
        for letter, seen in sight.layers
    )  # fmt: skip
    for layer in layers:
        if not (layer.maps.min() >= 0 and abs(layer.maps.sum(-1) - 1).max() < 1e-2):
            raise SaganError(f"attention layer {layer.key}: its maps are not probabilities whose rows sum to 1")
    return Scene(step, sight.pictures, tuple(captions), layers)
