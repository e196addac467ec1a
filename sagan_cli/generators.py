"""Find and open the generator that a path or name means, for every command and for Python. No torch at import.

A target is a run (its newest checkpoint), `RUN/best`, a checkpoint, an exported file or its folder, `-` for a file on
standard input, or nothing for the newest run under `runs/`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sagan_cli import runs
from sagan_cli.errors import CheckpointError, UsageError, closest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

    from sagan_cli.contracts import ModelSpec
    from sagan_cli.engine.runtime import Runtime
    from sagan_cli.engine.sample import Request as ImageRequest
    from sagan_cli.engine.sample import Sampler

STDIN = "-"
BEST = "best"
"""`RUN/best` is the checkpoint that scored best while it was trained; without scores, the one that was kept because
training went wrong after it."""


def exported_file(path: Path) -> Path | None:
    """Return the file of an exported generator, `path` or the one in a Hugging Face folder; None for anything else."""
    if path.is_dir():
        return (
            None if (path / runs.CHECKPOINT_FACTS).exists() or not (path / runs.MODEL).is_file() else path / runs.MODEL
        )
    return path if path.suffix.lower() == ".safetensors" and path.is_file() and not in_checkpoint(path) else None


def in_checkpoint(path: Path) -> bool:
    """Return whether `path` is a file in a checkpoint directory."""
    return path.is_file() and (path.parent / runs.CHECKPOINT_FACTS).is_file()


def find_model(target: str | None) -> Path:
    """Return the checkpoint directory or .safetensors file that a target means; `-` for standard input.

    Raises:
        UsageError: no such target, or standard input is a terminal.
        CheckpointError: a run without checkpoints.
    """
    if target == STDIN:
        if sys.stdin is None or sys.stdin.isatty():
            what = "closed" if sys.stdin is None else "a terminal"
            source = "as from 'sagan export --format safetensors --out -'"
            raise UsageError(f"-: standard input is {what}: pipe a model in, {source}")
        return Path(STDIN)
    if target is not None:
        if (file := exported_file(Path(target))) is not None:
            return file
        if in_checkpoint(Path(target)):
            return Path(target).parent
    return find_checkpoint(target)


def open_found(found: Path, runtime: Runtime, *, raw: bool) -> Sampler:
    """Open the generator that `find_model` found.

    Raises:
        UsageError: `raw`, but the file holds the EMA weights only.
        CheckpointError: it is damaged, of another format, or of an architecture that is not installed.
    """
    from sagan_cli.engine import sample
    from sagan_cli.engine.model_file import read_file

    if found.is_dir():
        return sample.load(found, runtime, raw=raw)
    sampler = read_file(sys.stdin.buffer if found == Path(STDIN) else found, runtime.device)
    if raw and sampler.weights != "raw":
        path = sampler.facts.path
        raise UsageError(f"--raw: {path} holds the moving average alone; export the trained weights with --raw")
    return sampler


def find_checkpoint(target: str | None) -> Path:
    """Return the checkpoint directory of a run, `RUN/best` or a checkpoint; None is the newest run.

    Raises:
        UsageError: there is nothing there.
        CheckpointError: a run without checkpoints, or without a best one.
    """
    path = Path(target) if target is not None else runs.newest().path
    if path.name == BEST and not path.exists() and (path.parent / "run.json").is_file():
        return _best(runs.open_run(path.parent))
    if not path.exists():
        raise UsageError(f"{path}: no such file, run or checkpoint")
    if (path / runs.CHECKPOINT_FACTS).is_file():
        return path
    if not path.is_dir():
        raise UsageError(f"{path}: not a .safetensors file, run or checkpoint")
    kept = runs.open_run(path).checkpoint_steps()
    if not kept:
        raise CheckpointError(f"{path}: has no checkpoint yet; train it further, or name another run")
    return kept[-1]


def run_of(checkpoint: Path) -> runs.Run | None:
    """Return the run that a checkpoint belongs to; None for a copied checkpoint."""
    path = checkpoint.resolve().parent.parent
    return runs.Run(path) if (path / "run.json").is_file() else None


def _best(run: runs.Run) -> Path:
    record = run.read()
    best = record.get("best") or record.get("kept")
    if not best:
        raise CheckpointError(f"{run.path}/{BEST}: this run was not scored while it trained; see train --eval-every")
    path = run.checkpoints / f"{best['step']:08d}"
    if not path.is_dir():
        raise CheckpointError(f"{path}: the best checkpoint is gone")
    return path


@dataclass(frozen=True, repr=False)
class Generator:
    """A trained generator in evaluation mode."""

    sampler: Sampler
    """The network itself (`sampler.generator`) and where it comes from (`sampler.facts`)."""
    runtime: Runtime

    @property
    def spec(self) -> ModelSpec:
        """Size, channels, number of classes and length of the latent vector."""
        return self.sampler.spec

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class; empty without classes."""
        return self.sampler.class_names

    def __call__(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return `forward(z, y)`."""
        return self.forward(z, y)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return images (B, C, H, W) in [-1, 1], on the generator's device; differentiable by z.

        Args:
            z: (B, latent), N(0, 1).
            y: (B,) class indices, for a generator with classes only.

        Raises:
            UsageError: tensors of another shape, or classes that it does not have.
        """
        import torch

        spec = self.spec
        if z.dim() != 2 or z.shape[1] != spec.latent:
            raise UsageError(f"z is {tuple(z.shape)}: this generator takes (B, {spec.latent})")
        if (y is None) != (spec.num_classes == 0):
            way_out = "leave out y" if y is not None else "give y, class indices (B,)"
            raise UsageError(f"this generator has {spec.num_classes or 'no'} classes: {way_out}")
        if y is not None:
            if y.shape != z.shape[:1] or y.is_floating_point():
                raise UsageError(f"y is {tuple(y.shape)} of {y.dtype}: give ({len(z)},) class indices")
            if len(y) and not 0 <= int(y.min()) <= int(y.max()) < spec.num_classes:
                raise UsageError(f"y: classes are 0 to {spec.num_classes - 1}")
            y = y.to(self.runtime.device)
        # The copy is aligned as weights are (engine.networks.ALIGNMENT): the last bits depend on it.
        z = z.to(self.runtime.device, torch.float32, copy=True)
        with self.runtime.autocast():
            x: Tensor = self.sampler.generator(z, y)
        return x

    def latents(
        self, seeds: Iterable[int], label: int | str | None = None, *, truncation: float | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the inputs that `draw` uses: z (N, latent), and class indices y (N,), None without classes."""
        from sagan_cli.engine import sample

        return sample.latents(self._requests(seeds, label), self.spec, truncation)

    def images(
        self, seeds: Iterable[int], label: int | str | None = None, *, truncation: float | None = None
    ) -> list[Image]:
        """Return the images of `draw` as PIL images."""
        from PIL import Image as pil

        drawn = self.draw(seeds, label, truncation=truncation)
        return [pil.fromarray(image[..., 0] if image.shape[-1] == 1 else image) for image in drawn]

    def attention_maps(self, seeds: Iterable[int], label: int | str | None = None) -> dict[str, NDArray[np.float32]]:
        """Return the attention maps of the images of some seeds, by the longer side of their feature map.

        Returns:
            (N, Q, K) for each layer: row q is the attention of position q, in row-major order, to K keys; it sums to 1.

        Raises:
            SaganError: the generator has no attention layers.
        """
        import torch

        from sagan_cli.engine.attention_maps import record_maps

        z, y = self.latents(seeds, label)
        with torch.no_grad(), record_maps(self.sampler.generator) as found:
            self.forward(z, y)
        return {name: layer.maps.numpy() for name, layer in found.items()}

    def __repr__(self) -> str:
        spec, facts = self.spec, self.sampler.facts
        classes = f", {spec.num_classes} classes" if spec.num_classes else ""
        size = f"{spec.height}x{spec.width}x{spec.channels}"
        return f"<Generator {facts.arch} {size}{classes}, step {facts.step}, {self.sampler.weights}: {facts.path}>"

    def draw(
        self, seeds: Iterable[int], label: int | str | None = None, *, truncation: float | None = None
    ) -> NDArray[np.uint8]:
        """Return images uint8 (N, H, W, C), one for each seed, equal to those of `sagan sample --seeds`.

        Args:
            seeds: whole numbers from 0.
            label: a class by index or name; by default each seed chooses one.
            truncation: keep latents within [-truncation, truncation].

        Raises:
            UsageError: an unknown class.
            SaganError: the output is not finite.
        """
        import numpy as np

        from sagan_cli.engine import sample

        spec, requests = self.spec, self._requests(seeds, label)
        parts = sample.pictures(self.sampler.generator, spec, requests, self.runtime, truncation=truncation)
        empty = np.empty((0, spec.height, spec.width, spec.channels), np.uint8)
        return np.concatenate([empty, *(pictures for pictures, _ in parts)])

    def _requests(self, seeds: Iterable[int], label: int | str | None) -> list[ImageRequest]:
        from sagan_cli.engine.sample import Request

        chosen, listed = self._label(label), list(seeds)
        if wrong := [seed for seed in listed if seed != int(seed) or seed < 0]:
            raise UsageError(f"seed {wrong[0]}: seeds are whole numbers from 0")
        return [Request(int(seed), chosen) for seed in listed]

    def _label(self, label: int | str | None) -> int | None:
        if label is None:
            return None
        names = self.class_names
        if not names:
            raise UsageError(f"label {label!r}: this generator has no classes")
        if isinstance(label, str):
            if label not in names:
                raise UsageError(f"label {label!r}: no such class{closest(label, names)}; there are {', '.join(names)}")
            return names.index(label)
        if not 0 <= label < len(names):
            raise UsageError(f"label {label}: classes are 0 to {len(names) - 1}")
        return int(label)


def load_generator(
    target: str | Path | None = None, *, raw: bool = False, precision: str = "fp32", device: str = "cpu"
) -> Generator:
    """Load a trained generator.

    Args:
        target: a run (its newest checkpoint), `RUN/best`, a checkpoint, an exported .safetensors file, a Hugging Face
            folder, or `-`; None is the newest run under `runs/`.
        raw: the trained weights instead of their moving average.
        precision: fp32, bf16 or auto.
        device: auto, cpu, cuda, cuda:N or mps.

    Raises:
        UsageError: nothing of that kind is there, or no such device.
        CheckpointError: it is damaged, of another format, or of an architecture that is not installed.
    """
    from sagan_cli.engine.runtime import Runtime, pick_device, pick_precision

    where = pick_device(device)
    runtime = Runtime(where, pick_precision(precision, where))
    return Generator(open_found(find_model(None if target is None else str(target)), runtime, raw=raw), runtime)
