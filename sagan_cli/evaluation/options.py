"""Options of an evaluation: protocols, one row each, and metrics and their parameters by name. No torch at import.

To add a protocol, add a row.

All protocols round images to uint8, and use the 2015 Inception of TTUR (Heusel et al. 2017) in torch-fidelity's
conversion, with TensorFlow 1's bilinear resizing to 299 pixels without antialiasing. StyleGAN and Mimicry do the same.
The official SAGAN code uses unrounded floats, BigGAN-PyTorch torchvision's Inception, and StudioGAN pytorch-fid's
resizing; their own scores may differ in the last decimals.

The comments name the source of each row. Settings that a source does not give are those of `default`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from sagan_cli.contracts import Metric
from sagan_cli.errors import PluginError, UsageError, closest
from sagan_cli.plugins import registry

DEFAULT = "default"
TRAINING, HELD_OUT = "training", "held-out"
"""Parts of a run's images under `--holdout`; `--split held-out` names the second one."""
KNOBS = ("kid_subsets", "kid_subset_size", "isc_splits", "prc_neighbours")
"""Parameters of metrics that a protocol may set."""


@dataclass(frozen=True)
class Protocol:
    """Which images are drawn, how, and which real images they are compared with."""

    name: str
    about: str
    """One line with the source."""
    n_fake: int = 50_000
    split: str = "train"
    """Split of the real data: `train` or `test` (a validation split counts as test)."""
    n_real: int | None = None
    """Number of real images, at most those of the split; None is all."""
    ema: bool = True
    """Whether the moving average of the weights is scored, or the trained weights."""
    batch_norm: str = "running"
    """`running`: the saved statistics; `standing`: recomputed over many batches; `batch`: of each batch drawn."""
    labels: str = "uniform"
    """Frequencies of the drawn classes: `uniform`, or those of the `data`."""
    truncation: float | None = None
    metrics: tuple[str, ...] = ("fid",)
    extractor: str = "inception-v3-compat"
    knobs: Mapping[str, int] = field(default_factory=dict)
    """Parameters of metrics that differ from the metric's own defaults, which are torch-fidelity's and StyleGAN's."""

    def with_changes(self, **changes: Any) -> Protocol:
        """Return the protocol with settings changed by flags; None keeps a setting."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})


@dataclass(frozen=True)
class Options:
    """The options of one evaluation."""

    protocol: Protocol
    """The protocol with settings changed by flags, under its own name."""
    metrics: tuple[str, ...] | None = None
    """None: those of the protocol, and the structure score if the dataset has one."""
    n: int | None = None
    """Number of generated images; None is the protocol's."""
    n_real: int | None = None
    """Largest number of real images; None is all, or `n` if that is less than the protocol's number."""
    all_real: bool = False
    weights: Path | None = None
    per_class: bool = False
    """Whether the metric `intra_fid` is added."""
    fit: str | None = None
    seed: int = 0
    batch: int = 64
    part: str = TRAINING
    """Part of a run's images that the generator is compared with."""
    nearest: Path | None = None
    """File for the picture of the nearest pairs."""

    def real_limit(self) -> int | None:
        """Return the largest number of real images; None is all."""
        if self.all_real or self.n_real is not None:
            return self.n_real
        return self.n if self.n is not None and self.n < self.protocol.n_fake else self.protocol.n_real

    @property
    def departures(self) -> list[str]:
        """Names of the settings that flags have changed, for the record."""
        row = find(self.protocol.name)
        changed = [f.name for f in fields(row) if getattr(row, f.name) != getattr(self.protocol, f.name)]
        return changed + (["n_fake"] if self.n not in (None, row.n_fake) else [])


PROTOCOLS: dict[str, Protocol] = {
    row.name: row
    for row in (
        # Counts and real images of StyleGAN's fid50k_full; labels as SAGAN, BigGAN and compare_gan draw them.
        Protocol(DEFAULT, "50,000 images of the averaged weights against the whole training split"),
        # eval_imagenet.py: eval_sample_size 50000 for both sides, zero logits for the classes, is_training=False, and
        # classifier_score_from_logits over all at once; train_imagenet.py keeps no average of the weights.
        Protocol("sagan", "Zhang et al. 2019, their eval_imagenet.py: 50,000 against 50,000 of training, no EMA",
                 n_real=50_000, ema=False, metrics=("fid", "isc"), knobs={"isc_splits": 1}),
        # calculate_inception_moments.py: all of training; sample.py: accumulate_standing_stats, categorical classes.
        Protocol("biggan", "Brock et al. 2019, BigGAN-PyTorch: EMA, standing statistics, whole training split",
                 batch_norm="standing", metrics=("fid", "isc")),
        # metric_main.py: fid50k_full, kid50k_full and is50k; iterate_random_labels draws labels from the data. Their
        # pr50k3_full is left out, because its features are VGG16's.
        Protocol("stylegan", "Karras et al. 2021, fid50k_full: EMA, labels as in the data, whole training split",
                 labels="data", metrics=("fid", "kid", "isc")),
        # README, Metrics: 50K real and generated, KID over 10 splits (compute_kid.py: of n/10 each), IS in 10 splits.
        Protocol("mimicry", "Lee and Town 2020, Mimicry: 50,000 against 50,000 of training, no EMA, KID of 10 x 5,000",
                 n_real=50_000, ema=False, metrics=("isc", "fid", "kid"),
                 knobs={"kid_subsets": 10, "kid_subset_size": 5000}),
        # SAGAN's log of 2020-09-18: eval_type test, 10000 generated images, ema and standing_statistics False; README:
        # IS is not split. compare_gan (Kurach et al. 2019) agrees: eval_test_samples 10000, g_use_ema False, one split.
        Protocol("cifar10-test", "StudioGAN's CIFAR-10 logs, compare_gan: 10,000 against the test split, no EMA",
                 n_fake=10_000, split="test", ema=False, metrics=("isc", "fid"), knobs={"isc_splits": 1}),
        # SAGAN's log of 2021-02-11: eval_type valid, 50000 images, ema and standing_statistics False. StudioGAN's later
        # benchmark differs: it uses the training split and another resizer.
        Protocol("studiogan-valid", "StudioGAN's ImageNet logs: 50,000 against the 50,000 of validation, no EMA",
                 split="test", ema=False, metrics=("isc", "fid"), knobs={"isc_splits": 1}),
        # FID falls with the number of images (Chong and Forsyth 2020): not comparable with values of 50,000.
        Protocol("quick", "default with 10,000 images: a fast estimate, not for publication", n_fake=10_000),
    )
}  # fmt: skip


def find(name: str) -> Protocol:
    """Return a protocol by name.

    Raises:
        UsageError: there is no such protocol; the message lists all.
    """
    if name not in PROTOCOLS:
        wrong = f"--protocol {name}: no such protocol{closest(name, PROTOCOLS)}"
        raise UsageError(f"{wrong}; there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def help_text() -> str:
    """Return the help of `--protocol`: every row with its source, the default first."""
    rows = "; ".join(f"{p.name}: {p.about}" for p in PROTOCOLS.values())
    return f"The settings of a paper or tool. Default: '{DEFAULT}'. {rows}."


# ---- Metrics by name -------------------------------------------------------------------------------------------------


@functools.cache
def builtin_metrics() -> dict[str, Metric]:
    """Return the built-in metrics by the name that `--metrics` accepts."""
    return {row.name: registry.load("metrics", row.name) for row in registry.BUILTINS["metrics"]}


def parse_metrics(text: str, flag: str = "--metrics") -> tuple[str, ...]:
    """Return the metrics of a comma-separated list, each once.

    Raises:
        UsageError: a name is unknown, or the list is empty.
        PluginError: a plugin's metric cannot be imported.
    """
    listed = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not listed:
        raise UsageError(f"{flag}: the list is empty; there are {', '.join(registry.names('metrics'))}")
    known = registry.names("metrics")
    for name in listed:
        if name not in known and flag != "--metrics":  # the registry's message names --metrics
            raise UsageError(f"{flag} {name}: no such metric{closest(name, known)}; there are {', '.join(known)}")
        registry.load("metrics", name)
    return listed


def metric_of(value: str) -> Metric | None:
    """Return the metric that computes a value, such as `prc` for "recall"; None if no installed metric does."""
    for metric in builtin_metrics().values():
        if value in metric.better:
            return metric
    found = (_usable(name) for name in registry.names("metrics") if name not in builtin_metrics())
    return next((metric for metric in found if metric is not None and value in metric.better), None)


def _usable(name: str) -> Metric | None:
    """A metric, or None if it is a plugin's that cannot be imported; `sagan plugins --check` reports it."""
    try:
        return builtin_metrics().get(name) or registry.load("metrics", name)
    except PluginError:
        return None


def value_names() -> list[str]:
    """Return the names of all values of built-in metrics."""
    return [value for metric in builtin_metrics().values() for value in metric.better]


def require_knobs(knobs: Mapping[str, int]) -> None:
    """Refuse parameters that no metric has, or that are not positive.

    Raises:
        UsageError: with one line that names the parameter.
    """
    known = {knob for name in registry.names("metrics") if (m := _usable(name)) is not None for knob in m.knobs}
    for name, value in knobs.items():
        if name not in known:
            raise UsageError(
                f"--knob {name}: no metric has it{closest(name, known)}; there are {', '.join(sorted(known))}"
            )
        if value < 1:
            raise UsageError(f"--knob {name}={value}: a whole number above 0")


def known_knobs(metrics: Mapping[str, Metric]) -> dict[str, int]:
    """Return the default knobs of the built-in metrics and of `metrics`."""
    return {knob: value for m in (*builtin_metrics().values(), *metrics.values()) for knob, value in m.knobs.items()}
