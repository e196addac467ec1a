"""What a data set and an architecture must offer: the whole agreement between the core and its plugins.

Built-ins keep it too, and `sagan_cli.testing` checks it. This file imports no torch and no numpy.

A `sagan.datasets` entry point names a `DatasetFactory`, a `sagan.architectures` one an `ArchitectureFactory`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

API_VERSION = 1
"""The contract's version; a plugin module may declare `SAGAN_PLUGIN_API = 1` to be refused by a core that moved on."""


@runtime_checkable
class Dataset(Protocol):
    """Numbered pictures, read one at a time while they are packed; training itself never calls `read`.

    It must survive pickling, because packing sends it to worker processes.
    """

    class_names: Sequence[str]
    """One name per label; empty when the pictures carry no labels."""

    def __len__(self) -> int: ...

    def fingerprint(self) -> str:
        """A short text that differs whenever any picture, label or their order differs; it keys the packed cache."""
        ...

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Picture `index` as uint8, shape (H, W) or (H, W, C) with C in 1, 3, 4, any H, W; and its label (0 if none).

        Raises:
            BadImage: this picture cannot be read; it is skipped, counted and listed.
        """
        ...


class DatasetFactory(Protocol):
    """Opens a data set by name.

    `root` is `--data-root` (files may live there), `split` is "train" or "test", and `height` x `width` is the size
    that training will use: a set that is drawn, not read, can draw at that size at once. The core crops and resizes
    whatever comes back.

    A factory may carry the attribute `native_size`, the side in pixels that `--size` defaults to for this data set, or
    (height, width), and `structure`, a function uint8 (N, H, W, 3) -> bool (N,) that tells which pictures are built
    right: `sagan eval-fid` then reports their share.
    """

    def __call__(self, root: Path, *, split: str, height: int, width: int) -> Dataset: ...


@dataclass(frozen=True)
class ModelSpec:
    """The shape of a generator/discriminator pair: all that an architecture factory is told."""

    height: int
    width: int
    channels: int = 3
    num_classes: int = 0
    """0 is unconditional."""
    latent: int = 128
    """Length of the latent vector z ~ N(0, 1)."""
    base_width: int = 64
    """Channels at full resolution; the paper's `ch`."""
    attn_at: tuple[int, ...] = (32,)
    """Feature maps with self-attention, each named by its longer side; () is the twin without attention."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """An architecture's own settings, from `--set model.options.key=value`."""


class ArchitectureFactory(Protocol):
    """Builds the two networks, freshly initialised from torch's default generator.

    generator(z, y)      z (N, latent) float, y (N,) int64 or None -> pictures (N, C, H, W) in [-1, 1]
    discriminator(x, y)  the same pictures and labels -> logits (N,)

    A network may offer `attention_layers() -> dict[str, nn.Module]`, by which attention is logged and drawn; a
    network without it simply has none. To be drawn, such a layer takes and returns a feature map (B, C, H, W) and has
    a method `maps(x) -> (B, N, M)`, the attention of the N = H W positions to M keys, whose rows sum to 1; keys that
    lie on another grid than (H / s, W / s) are told by a method `key_grid(H, W)`.

    A discriminator with the attribute `batches_apart = True` sees real and fake pictures in passes of their own, which
    batch norm in it needs; others see both in one.

    Modules with a method `advance_()` have it called once per optimiser step of their network, before the forward pass
    (spectral norm's power iteration lives there). Norms that carry `running_mean` and `momentum`, as PyTorch's do,
    have their statistics measured anew on the averaged weights.

    A factory may carry `settled`, a function (spec, *, auto: bool) -> ModelSpec that is asked once, when a run begins,
    where attention stands: with `auto`, `--attn-at` was left open, and `spec.attn_at` is what `sagan` would do; else it
    is what was said. What it returns is recorded and built, so it may name other maps, none (), or add an option.
    Without it, `auto` is what it is for `sagan`. It is not asked about networks that are there already.
    """

    def __call__(self, spec: ModelSpec) -> tuple[nn.Module, nn.Module]: ...


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
    """None where `Metric.real` is "none"."""
    knobs: Mapping[str, int]
    """Values of `Metric.knobs`: the user's, else the protocol's, else the defaults."""
    class_names: Sequence[str] = ()
    metrics: Sequence[str] = ()
    """Names of all metrics of this evaluation."""


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
    """(subject, path, *, notify, **options) -> Check or None: write the model at `path`, read it back, compare it.

    `subject` is a `sagan_cli.export.subject.Subject` (`generator`, `spec`, `class_names`, ...), the result a
    `sagan_cli.export.subject.Check`, or None if nothing was compared. `path` does not exist yet; what is written there
    is put in place whole, or not at all. `notify` shows one line to the user.
    """
    loading: str = ""
    """Markdown of the model card that loads it; may contain `{file}`, `{latent}`, `{call}` and `{feed}`."""
    options: Sequence[str] = ()
    """Flags of `sagan export` that it takes as keywords, of "attention", "push", "runtime"."""
    own_card: bool = False
    """Whether `write` writes the model card itself."""
    beside: Callable[[Path, Callable[[str], None]], None] | None = None
    """(path, notify) -> None: write further files beside the finished one."""

    @property
    def folder(self) -> bool:
        """Whether the format is a folder."""
        return "." not in self.default_name
