"""A trained generator for Python programs: `sagan_cli.load_generator`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sagan_cli import runs
from sagan_cli.contracts import ModelSpec
from sagan_cli.engine import sample
from sagan_cli.engine.runtime import Runtime, pick_device
from sagan_cli.errors import CheckpointError, UsageError, closest
from sagan_cli.export.naming import exported_file, in_checkpoint
from sagan_cli.export.single_file import read_file


@dataclass(frozen=True)
class Generator:
    """A generator ready to draw, in evaluation mode and fp32."""

    sampler: sample.Sampler
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
        """Pictures (B, C, H, W) in [-1, 1], on the generator's device.

        Args:
            z: (B, latent), N(0, 1).
            y: (B,) class indices, for a generator with classes and for no other.

        Raises:
            UsageError: tensors of another shape, or classes that it has not.
        """
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
        with torch.inference_mode():
            x: Tensor = self.sampler.generator(z.to(self.runtime.device, torch.float32), y)
        return x.clone()  # an ordinary tensor, which a caller may go on computing with

    def draw(
        self, seeds: Iterable[int], label: int | str | None = None, *, truncation: float | None = None
    ) -> np.ndarray:
        """Pictures uint8 (N, H, W, C), one a seed, as `sagan sample --seeds` draws them.

        Args:
            seeds: any whole numbers from 0 up.
            label: a class by index or name; without it each seed chooses.
            truncation: keep latents within [-truncation, truncation].

        Raises:
            UsageError: a class that the generator has not.
            SaganError: its output is not a number.
        """
        spec, chosen = self.spec, self._label(label)
        requests = [sample.Request(int(seed), chosen) for seed in seeds]
        parts = sample.pictures(self.sampler.generator, spec, requests, self.runtime, truncation=truncation)
        empty = np.empty((0, spec.height, spec.width, spec.channels), np.uint8)
        return np.concatenate([empty, *(pictures for pictures, _ in parts)])

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


def load_generator(path: str | Path, device: str = "cpu") -> Generator:
    """The generator of a .safetensors file, a Hugging Face folder, a checkpoint, or a run (its newest checkpoint).

    Args:
        path: `sagan export`'s file or folder; a run's or checkpoint's directory.
        device: auto, cpu, cuda, cuda:N or mps.

    Raises:
        UsageError: nothing of that kind is there, or no such device.
        CheckpointError: it is damaged, of another format, or of an architecture that is not installed.
    """
    runtime = Runtime(pick_device(device), "fp32")
    return Generator(open_model(Path(path), runtime), runtime)


def open_model(path: Path, runtime: Runtime, *, raw: bool = False) -> sample.Sampler:
    """The generator of any of these; of a checkpoint the moving average, or with `raw` the trained weights.

    Raises:
        UsageError: there is no such thing, or `raw` of a file that has not got them.
        CheckpointError: as for `load_generator`.
    """
    if (file := exported_file(path)) is not None:
        return as_wanted(read_file(file, runtime.device), raw)
    if in_checkpoint(path):
        path = path.parent
    if not path.is_dir():
        what = "not a .safetensors file, run or checkpoint" if path.exists() else "no such file, run or checkpoint"
        raise UsageError(f"{path}: {what}")
    if not (path / runs.CHECKPOINT_FACTS).is_file():
        kept = runs.open_run(path).checkpoint_steps()
        if not kept:
            raise CheckpointError(f"{path}: has no checkpoint yet; train it further, or name another run")
        path = kept[-1]
    return sample.load(path, runtime, raw=raw)


def as_wanted(sampler: sample.Sampler, raw: bool) -> sample.Sampler:
    """An exported generator holds one kind of weights.

    Raises:
        UsageError: `raw` is wanted and it holds the moving average.
    """
    if raw and sampler.weights != "raw":
        path = sampler.facts.path
        raise UsageError(f"--raw: {path} holds the moving average alone; export the trained weights with --raw")
    return sampler
