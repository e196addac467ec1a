"""What `sagan visualize-attn` shows: the layers of --layer, and images from seeds or from --image."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sagan_cli import console
from sagan_cli.errors import BadImage, DataError, SaganError, UsageError, closest
from sagan_cli.generators import run_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sagan_cli.attention.attention_data import AttentionData, Key
    from sagan_cli.attention.compute_maps import CheckpointNetworks, LayerNames, RecordedMaps
    from sagan_cli.contracts import ModelSpec, Tick
    from sagan_cli.engine.runtime import Runtime
    from sagan_cli.engine.sample import Request


@dataclass(frozen=True)
class LayerSelection:
    """Which layers to compute, and which to draw, in that order."""

    computed: tuple[Key, ...]
    drawn: tuple[Key, ...]

    def names(self) -> LayerNames:
        """Return the computed layers by network."""
        return {letter: [name for own, name in self.computed if own == letter] for letter in "GD"}


def open_networks(
    path: Path, runtime: Runtime, raw: bool, wanted: Sequence[str], *, needs_d: bool, all_layers: bool = False
) -> CheckpointNetworks:
    """Load the networks; D only if it is needed: by the caller, by --layer, or because G has no attention layers.

    With `all_layers`, D is loaded as well if it is there: an imported checkpoint and an exported file hold G only.
    """
    from sagan_cli.attention.compute_maps import open_generator, with_discriminator

    pair = open_generator(path, runtime, raw=raw)
    known = [("G", name) for name in pair.layers("G")] if pair.has_layers("G") else []
    optional = all_layers and not wanted and (path / "state.safetensors").is_file()
    if needs_d or optional or not known or any(not _named(text, known) for text in wanted):
        pair = with_discriminator(pair, runtime)
    return pair


def select_layers(
    pair: CheckpointNetworks, wanted: Sequence[str], *, own_images: bool, everything: bool
) -> LayerSelection:
    """Resolve --layer; without it, draw G's layer that is nearest to the image, or D's for own images.

    Args:
        wanted: `32`, `G32`, `G 32`, `d:16`, `G` or `D` for all layers of that network, or `all`.
        own_images: the images are not G's, so G has no maps for them.
        everything: without --layer, compute all layers, not only the drawn one.

    Raises:
        UsageError: no such layer.
        SaganError: no network declares an attention layer.
    """
    letters = "D" if own_images else "G" if pair.discriminator is None else "GD"
    declaring = [letter for letter in letters if pair.has_layers(letter)]
    known = [(letter, name) for letter in declaring for name in pair.layers(letter)]
    if not known:
        pair.layers(letters[0])  # raises the error
    if wanted:
        keys = tuple(dict.fromkeys(key for text in wanted for key in _resolve(text, known, letters)))
        return LayerSelection(keys, keys)
    # The layer of the largest feature map is the last of G and the first of D.
    first = next(key for key in (reversed(known) if known[0][0] == "G" else known) if key[0] == known[0][0])
    return LayerSelection(tuple(known) if everything else (first,), (first,))


@dataclass(frozen=True)
class SampledImages:
    """Images that G generates from seeds."""

    requests: Sequence[Request]

    def attention(self, pair: CheckpointNetworks, layers: LayerSelection, runtime: Runtime) -> AttentionData:
        """Compute the maps; captions give seed and class."""
        from sagan_cli.attention.compute_maps import maps_of_seeds

        with console.progress("attention", len(self.requests)) as tick:
            recorded = maps_of_seeds(pair, self.requests, layers.names(), runtime, _Counter(tick))
        names = pair.sampler.class_names
        captions = [
            f"seed {request.seed}" + (f", {names[label]}" if names else "")
            for request, label in zip(self.requests, recorded.labels, strict=True)
        ]
        return _checked(recorded, pair.sampler.facts.step, captions)


@dataclass(frozen=True)
class OwnImages:
    """Images of the user, as input of D."""

    images: NDArray[np.uint8]
    names: Sequence[str]
    label: int | None
    """The class that D gets; None means 0, with a warning if D's maps depend on it."""

    def attention(self, pair: CheckpointNetworks, layers: LayerSelection, runtime: Runtime) -> AttentionData:
        """Compute the maps; captions give the file."""
        from sagan_cli.attention.compute_maps import label_changes_maps, maps_of_images

        names = layers.names()["D"]
        if self.label is None and label_changes_maps(pair, self.images[0], names, runtime):
            first = pair.sampler.class_names[0]
            console.warn(f"--image: the maps of this D depend on the class, which is '{first}'; choose it by --class")
        with console.progress("attention", len(self.images)) as tick:
            recorded = maps_of_images(pair, self.images, self.label or 0, names, runtime, _Counter(tick))
        return _checked(recorded, pair.sampler.facts.step, self.names)


def read_images(path: Path, most: int, spec: ModelSpec, fit: str) -> tuple[NDArray[np.uint8], list[str]]:
    """Read a file, or the first `most` images of a folder at any depth by name: uint8 (B, H, W, C), and file names.

    Args:
        fit: `crop`, `pad` or `stretch`.

    Raises:
        UsageError: no such file or folder.
        DataError: no readable image in it.
    """
    import numpy as np

    from sagan_cli.data import decode
    from sagan_cli.data.sources.folders import open_folder

    if not path.exists():
        raise UsageError(f"--image {path}: no such file or folder")
    files = [path]
    if path.is_dir():
        try:
            files = [path / name for name in open_folder(path, where=str(path), unconditional=True).listing.names]
        except DataError as e:
            raise DataError(str(e).replace("--data", "--image")) from e
    images: list[NDArray[np.uint8]] = []
    names = []
    for file in files:
        if len(images) == most:
            break
        try:
            images.append(decode.fit(decode.decode_image(file), spec.height, spec.width, spec.channels, fit))
        except BadImage as e:
            if file == path:
                raise DataError(f"--image {path}: {e}") from e
            console.warn(f"{file}: left out: {e}")
        else:
            names.append(file.name)
    if not images:
        raise DataError(f"--image {path}: no readable image")
    return np.stack(images), names


def fit_of(checkpoint: Path, spec: ModelSpec) -> str:
    """Return how the run of a checkpoint fitted its images; `crop` if that is unknown."""
    from sagan_cli.data.sources.opening import hints_of, open_source

    run = run_of(checkpoint)
    if run is None:
        return "crop"
    data = run.config().data
    if data.fit != "auto":
        return data.fit
    try:
        dataset = open_source(
            data.data, data_root=Path(os.environ.get("SAGAN_DATA_ROOT", data.data_root)), split=data.split,
            height=spec.height, width=spec.width, unconditional=data.unconditional,
        )  # fmt: skip
    except SaganError as e:
        console.note(f"--image: fitted by 'crop', as the run's dataset cannot be opened: {e}")
        return "crop"
    return hints_of(dataset).fit


def checkpoints_of(checkpoint: Path) -> list[Path]:
    """Return all kept checkpoints of the run of this one, oldest first.

    Raises:
        UsageError: it is not in a run.
    """
    run = run_of(checkpoint) if checkpoint.is_dir() else None
    if run is None:
        raise UsageError(f"--steps: {checkpoint} lies in no run; name a run with several checkpoints")
    kept = run.checkpoint_steps()
    if len(kept) < 2:
        console.warn(f"--steps: {run.path} keeps one checkpoint only; train with --save-every and --keep for more")
    return kept


def title_of(path: Path) -> str:
    """Return the name of the checkpoint's run, `001-quadrupeds-sagan32`, or else of the checkpoint or file."""
    run = run_of(path) if path.is_dir() else None
    return run.path.resolve().name if run else path.resolve().name


def warn_of_idle(data: AttentionData) -> None:
    """Warn of every layer that hardly changes its input, as its maps have no effect."""
    for layer in data.layers:
        if layer.idle:
            gamma = "" if layer.gamma is None else f", gamma {layer.gamma:.2g}"
            console.warn(
                f"attention layer {layer.key} is idle: it adds {float(layer.strength.mean()):.1%} to its input{gamma}, "
                "so its maps have no effect; train longer or place attention elsewhere "
                f"(--attn-at), and follow gamma_{layer.network.lower()}{layer.name} in metrics.jsonl"
            )


def _named(text: str, known: Sequence[Key]) -> list[Key]:
    """Return the layer that `32` (G's before D's), `G32`, `G 32` or `g:32` names, or all of the network `G` or `D`."""
    for key in known:
        if key[1] == text.strip():
            return [key]
    match = re.fullmatch(r"\s*([GgDd])\s*:?\s*(.+?)\s*", text)
    key = (match[1].upper(), match[2]) if match else ("", "")
    return [key] if key in known else [own for own in known if own[0] == text.strip().upper()]


def _resolve(text: str, known: Sequence[Key], letters: str) -> list[Key]:
    if text.strip().lower() == "all":
        return list(known)
    if named := _named(text, known):
        return named
    names = [f"{letter}{name}" for letter, name in known]
    if letters == "D" and re.match(r"\s*[Gg]", text):
        raise UsageError(f"--layer {text}: --image shows layers of D only; they are {', '.join(names)}")
    near = closest(text.replace(" ", ""), names)
    raise UsageError(f"--layer {text}: no such attention layer{near}; there are {', '.join(names)}")


class _Counter:
    """Adds up the sizes of groups for a progress bar."""

    def __init__(self, tick: Tick) -> None:
        self._tick, self._done = tick, 0

    def __call__(self, part: int) -> None:
        self._done += part
        self._tick(self._done)


def _checked(recorded: RecordedMaps, step: int, captions: Sequence[str]) -> AttentionData:
    """Convert to NumPy and check that each map is a probability distribution."""
    from sagan_cli.attention.attention_data import AttentionData, LayerAttention

    layers = tuple(
        LayerAttention(
            letter, seen.name, seen.maps.numpy(), seen.query_grid, seen.key_grid, seen.gamma, seen.strength.numpy(),
            seen.entropy().float().numpy(), seen.distance().float().numpy(),
        )
        for letter, seen in recorded.layers
    )  # fmt: skip
    for layer in layers:
        if not (layer.maps.min() >= 0 and abs(layer.maps.sum(-1) - 1).max() < 1e-2):
            raise SaganError(f"attention layer {layer.key}: its maps are not probabilities whose rows sum to 1")
    return AttentionData(step, recorded.images, tuple(captions), layers)
