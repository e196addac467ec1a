"""The interfaces between the core and its extensions: every attribute that the core reads.

Built-ins use the same interfaces, and `sagan_cli.testing` checks them. This file imports neither torch nor numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

API_VERSION = 1
"""Version of these interfaces. A plugin module may declare `SAGAN_PLUGIN_API = 1`; another version then refuses it."""


@runtime_checkable
class Dataset(Protocol):
    """Numbered images, read one at a time while they are packed; training does not call `read`.

    It must be picklable, because packing sends it to worker processes.

    Optional members:
        hints: a `Hints`.
        glance(): a `Glance` of its files; the fingerprint is then cached, and not computed at every start.
        name_of(index): name of an image in messages, such as its file.
        image(index): as `read`, but with a PIL image, which saves a copy.
        listing: an object with `labels`, the labels of all images, if they are known without reading the images.
    """

    class_names: Sequence[str]
    """One name per label; empty without labels."""

    def __len__(self) -> int: ...

    def fingerprint(self) -> str:
        """Return a short text that differs if any image, label or their order differs; part of the cache's key."""
        ...

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Return image `index` as uint8 (H, W) or (H, W, C), C in 1, 3, 4, any H and W, and its label (0 if none).

        Raises:
            BadImage: the image cannot be read; it is skipped, counted and listed.
        """
        ...


@dataclass(frozen=True)
class Hints:
    """Defaults that a dataset chooses for its images."""

    fit: str = "crop"
    """Meaning of `--fit auto`."""
    channels: int | None = None
    """Meaning of `--channels auto`; None: detected from the images."""
    in_process: bool = False
    """Whether reading an image costs less than sending it to a worker process."""


@dataclass(frozen=True)
class Glance:
    """What stat reports of a dataset's files; equal keys mean equal bytes."""

    key: str
    newest: int
    """Time of the latest change of any file, in ns since the epoch."""


class Fingerprinted(Protocol):
    """An object with a fingerprint; it may have `glance() -> Glance`, by which the fingerprint is cached."""

    def fingerprint(self) -> str:
        """Return a text that differs if the content differs."""
        ...


class DatasetFactory(Protocol):
    """Opens a dataset; an entry point of `sagan.datasets` names it.

    Args:
        root: `--data-root`, the folder of files.
        split: "train" or "test".
        height, width: the size used in training. A drawn dataset may draw at this size; others are cropped and resized.

    Optional attributes:
        native_size: default of `--size`: the side in pixels, or (height, width).
        structure: uint8 (N, H, W, 3) -> bool (N,), whether each image is correct; `sagan eval-fid` reports the share.
        can_download = True: it accepts `download=True` (`--download`) and then fetches missing files.
    """

    def __call__(self, root: Path, *, split: str, height: int, width: int) -> Dataset: ...


@dataclass(frozen=True)
class ModelSpec:
    """The shape of a generator and its discriminator: the argument of an architecture factory."""

    height: int
    width: int
    channels: int = 3
    num_classes: int = 0
    """0: unconditional."""
    latent: int = 128
    """Length of the latent vector z ~ N(0, 1)."""
    base_width: int = 64
    """Channels at full resolution; the paper's `ch`."""
    attn_at: tuple[int, ...] = (32,)
    """Feature maps with self-attention, each named by its longer side; (): no attention."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The architecture's own settings, from `--set model.options.NAME=VALUE`."""


class ArchitectureFactory(Protocol):
    """Builds the two networks, initialised from torch's default generator.

    An entry point of `sagan.architectures` names it.

    generator(z, y)      z (N, latent) float, y (N,) int64 or None -> images (N, C, H, W) in [-1, 1]
    discriminator(x, y)  images and labels of the same form -> logits (N,)

    Optional attributes of a network:
        attention_layers(): name -> module of each attention layer, whose gamma is logged. To be drawn, a layer maps
            (B, C, H, W) to (B, C, H, W) and has `maps(x) -> (B, N, M)`, the attention of the N = H W positions to M
            keys; rows sum to 1. `key_grid(H, W)` returns the grid of the keys if it is not (H / s, W / s).
        blocks: nn.ModuleList of the blocks that `--checkpointing` recomputes.
        batches_apart = True: a discriminator with batch norm, which sees real and fake images in separate passes.

    Optional attributes of a module:
        advance_(): called once per optimiser step of its network, before the forward pass, as for the power iteration
            of spectral norm.
        fold_(): replace normalised weights by constants, for inference; called once on a loaded generator.
        running_mean, momentum: batch statistics as in PyTorch's norms; they are measured again for the EMA weights.

    Optional attribute of the factory:
        settled(spec, *, auto): return the spec to build and record; called once, when a run begins. With `auto`,
            `--attn-at` was left open and `spec.attn_at` is that of `sagan`; the returned spec may have other feature
            maps, none, or further options. By default the spec is used as it is.
    """

    def __call__(self, spec: ModelSpec) -> tuple[nn.Module, nn.Module]: ...


class Tick(Protocol):
    """Callback that receives the progress of a task."""

    def __call__(self, done: int, total: int | None = None) -> None: ...


Progress = Callable[[str, int], AbstractContextManager[Tick]]
"""progress(label, total) -> context manager of a `Tick`."""


# ---- Metrics (`sagan.metrics`) ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """One number of a metric."""

    name: str
    """Key in the record, `sagan compare --metric` and metrics.jsonl; must be a key of `Metric.better`."""
    value: float
    interval: tuple[float, float] | None = None
    """95 % interval, or None."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Further facts for the record, for example a standard deviation; begin the keys with the metric's name."""
    notes: Sequence[str] = ()
    """Warnings for the user, one sentence each."""


class Features(Protocol):
    """The features of one set of images at a metric's layer."""

    @property
    def rows(self) -> NDArray[np.float32]:
        """(N, D), read-only; may be mapped from a file. Of real images only if `Metric.real` is "rows"."""
        ...

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """(N,) class indices, or None without classes."""
        ...

    @property
    def mean(self) -> NDArray[np.float32]:
        """(D,)."""
        ...

    @property
    def covariance(self) -> NDArray[np.float64]:
        """(D, D), divided by N - 1."""
        ...

    @property
    def count(self) -> int:
        """N; 0 if unknown, as for ready statistics."""
        ...


@dataclass(frozen=True)
class MetricInputs:
    """What a metric is computed from."""

    fake: Features
    real: Features | None
    """None where `Metric.real` is "none"; all training images where `Metric.held_out` is true."""
    knobs: Mapping[str, int]
    """Values of `Metric.knobs`: the user's, else the protocol's, else the defaults."""
    class_names: Sequence[str] = ()
    metrics: Sequence[str] = ()
    """Names of all metrics of this evaluation."""
    held_out: Features | None = None
    """Images that were not trained on, where `Metric.held_out` is true."""


@dataclass(frozen=True)
class Metric:
    """A metric of generated images; an entry point of `sagan.metrics` names an instance.

    The name of the entry point is what `--metrics` accepts.
    """

    about: str
    """One line with its source."""
    better: Mapping[str, str]
    """Name of each number it returns -> "lower" or "higher"."""
    compute: Callable[[MetricInputs], Iterable[Score]]
    layer: str | None = "fid"
    """Extractor layer: that of the built-in metric of this name ("fid", "kid", "isc", "prc"); None: no extractor."""
    real: str = "rows"
    """What it needs of the real images: "rows" (all features), "moments" (mean and covariance) or "none"."""
    classes: bool = False
    """Whether it needs the classes of both sets of images."""
    held_out: bool = False
    """Whether it needs images that were not trained on, and all images that were."""
    knobs: Mapping[str, int] = field(default_factory=dict)
    """Its parameters and their defaults, set by `--knob NAME=VALUE`; recorded, and compared by `sagan compare`.

    Begin their names with that of the metric.
    """
    measure: Callable[[NDArray[np.uint8]], NDArray[Any]] | str | None = None
    """With `layer` None: uint8 (n, H, W, 3) images -> (n, D) or (n,), which become the float32 rows of the features.

    A string names an attribute of the dataset's factory that is such a function, as `structure` is.
    """
    digits: int = 4
    """Digits after the decimal point in tables."""

    def __post_init__(self) -> None:
        if not self.better or not set(self.better.values()) <= {"lower", "higher"}:
            raise ValueError(f"Metric.better must map each number to 'lower' or 'higher', not {self.better}")
        if self.real not in ("rows", "moments", "none"):
            raise ValueError(f"Metric.real must be 'rows', 'moments' or 'none', not {self.real!r}")
        if (self.layer is None) == (self.measure is None):
            raise ValueError("a Metric has either a layer or a function `measure`")


# ---- Objective (`sagan.losses`, `sagan.penalties`, `sagan.augmentations`, `sagan.constraints`) -----------------------


@dataclass(frozen=True)
class Loss:
    """An adversarial loss; an entry point of `sagan.losses` names an instance, chosen by `--loss`.

    Both functions take logits on real and on fake images, (N,) each, fp32, and return a scalar to be minimised. Row i
    of both belongs to one pair, for losses over pairs.
    """

    about: str
    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor | None, Tensor], Tensor]
    """The logits on real images are None unless `uses_real`."""
    uses_real: bool = False
    """Whether the generator's loss needs logits on real images, which costs D's forward pass over them."""


@dataclass(frozen=True)
class PenaltyInputs:
    """What a penalty is computed from: one slice of a discriminator update."""

    discriminator: Callable[[Tensor, Tensor | None], Tensor]
    """Images (N, C, H, W) and classes (N,) or None -> logits (N,)."""
    real: Tensor
    """(N, C, H, W) in [-1, 1], augmented as D sees them."""
    fake: Tensor
    """(N, C, H, W), detached."""
    real_labels: Tensor | None
    fake_labels: Tensor | None
    random: Tensor | None
    """(N, ...) from `Penalty.random`."""


@dataclass(frozen=True)
class Penalty:
    """A term that is added to the discriminator's loss; an entry point of `sagan.penalties` names an instance.

    `--penalty NAME=WEIGHT[/INTERVAL]` adds WEIGHT times `compute` to the loss; with an interval k it is computed at
    every k-th update only, with k times the weight (lazy regularisation, Karras et al. 2020, appendix B).
    """

    about: str
    compute: Callable[[PenaltyInputs], Tensor]
    random: Callable[[torch.Generator, int], Tensor] | None = None
    """(generator, N) -> (N, ...) CPU tensor, one row per image; a function of (seed, stream, update)."""
    stream: str = ""
    """Name of its random stream; the registered name by default."""


@dataclass(frozen=True)
class Augmentation:
    """A differentiable transformation of every image that D sees, in both networks' updates.

    An entry point of `sagan.augmentations` names an instance; `--augment NAME[=PROBABILITY]` applies it.
    """

    about: str
    apply: Callable[[Tensor, Tensor, Tensor], Tensor]
    """(images (N, C, H, W) in [-1, 1], random (N, ...), probability ()) -> images (N, C, H, W)."""
    random: Callable[[torch.Generator, int], Tensor]
    """(generator, N) -> (N, ...) CPU tensor, one row per image; real and fake images have streams of their own."""


@dataclass(frozen=True)
class Constraint:
    """A change of D's weights after each of its updates; `--constraint NAME=VALUE` applies it."""

    about: str
    apply: Callable[[nn.Module, float], None]
    """(discriminator, VALUE) -> None; runs without gradients."""


# ---- Loggers (`sagan.loggers`) ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunInfo:
    """The run that a logger reports on."""

    path: Path
    """The run directory."""
    config: Mapping[str, Any]
    """All settings, as in run.json."""
    steps: int
    """Step at which training ends."""


class Logger:
    """Receives the events of a training run; subclass it and override what you need.

    An entry point of `sagan.loggers` names the subclass (or any function of `RunInfo` that returns one); it is created
    on the leading process only. An exception in a plugin's logger is reported once and does not stop training.
    """

    def __init__(self, run: RunInfo) -> None:
        self.run = run

    def start(self, step: int) -> None:
        """Training begins, or resumes after `step`."""

    def step(self, step: int, images_per_second: float, eta_seconds: float, numbers: Mapping[str, float]) -> None:
        """A step is done; `numbers` are the newest statistics, which may be some steps old. Must be cheap."""

    def statistics(self, step: int, numbers: Mapping[str, float]) -> None:
        """New statistics, every `run.log_every` steps: losses, logits, gammas, speed, whatever a step returned."""

    def grid(self, step: int, path: Path) -> None:
        """A sample grid (PNG) of the fixed latents was written."""

    def score(self, step: int, scores: Mapping[str, Any]) -> None:
        """The EMA generator was scored (`--eval-every`)."""

    def checkpoint(self, step: int, path: Path) -> None:
        """A checkpoint directory was written."""

    def end(self, step: int, finished: bool) -> None:
        """Training ended; `finished` is False after an interruption. Also called when training fails."""


# ---- Export formats (`sagan.exporters`) ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exporter:
    """An export format; an entry point of `sagan.exporters` names an instance, chosen by `--format`.

    Its file name ending is that of `default_name`; a format without one is a folder.
    """

    about: str
    default_name: str
    """Where it goes without `--out`, as in `model.onnx`; a name without an ending is a folder."""
    write: Callable[..., Any]
    """(trained, path, *, notify, **options) -> Check or None: write the model at `path`, read it back, compare it.

    `trained` is a `sagan_cli.export.trained_model.TrainedModel` (`generator`, `spec`, `class_names`, ...), the result a
    `sagan_cli.export.trained_model.Check`, or None if nothing was compared. `path` does not exist yet; what is written
    there is put in place whole, or not at all. `notify` shows one line to the user.
    """
    loading: str = ""
    """Markdown of the model card that loads it; may contain `{file}`, `{latent}`, `{call}` and `{feed}`."""
    options: Sequence[str] = ()
    """Flags of `sagan export` that it takes as keywords, of "attention", "push", "runtime"."""
    own_card: bool = False
    """Whether `write` writes the model card itself."""
    beside: Callable[[Path, Callable[[str], None]], None] | None = None
    """(path, notify) -> None: write further files next to the finished one."""

    @property
    def folder(self) -> bool:
        """Whether the format is a folder."""
        return "." not in self.default_name
