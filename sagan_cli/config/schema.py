"""Every setting of a training run: name, type, default and help. To add a setting, add a field.

The flags of `sagan train`, the keys of `--config` files and `--set`, and the `SAGAN_*` variables follow from the field:
`d_steps` of section `train` is `--d-steps`, `train.d_steps` and `SAGAN_D_STEPS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sagan_cli.config.schedule import Schedule
from sagan_cli.plugins import registry

AUTO = "auto"
"""The value of a setting that the architecture decides."""
CHOSEN_KEYS = (
    "train.loss", "train.penalty", "model.spectral_norm", "model.qk_norm", "train.d_lr", "train.g_lr", "train.augment",
    "train.grad_clip", "data.flip",
)  # fmt: skip
"""Settings that the default recipe chooses from the data (`config/recipe.py`)."""
OBJECTIVE_KEYS = {"train.loss", "train.penalty", "train.grad_clip", "train.d_lr", "train.g_lr"}
"""Those of them that depend on whether the networks have spectral norm."""
RECIPE_KEYS = (*CHOSEN_KEYS, "train.batch", "train.steps")
"""These, and settings of its preset that belong to it. A resumed run keeps those that the user left open."""
OPTION_FLAGS = ("attention", "attn_ratio", "qk_norm", "spectral_norm", "g_norm")
"""Options of an architecture that have a flag; all others are set by `--set model.options.NAME`."""


def setting(default: Any, text: str, **more: Any) -> Any:
    """Return a field with its help; `low` and `high` bound a number, `choices` are the texts allowed."""
    return field(default=default, metadata={"help": text, **more})


@dataclass(frozen=True)
class DataConfig:
    """The dataset, and how images are fitted to the network."""

    data: str = setting(
        "quadrupeds",
        "Folder of images or of class folders, .zip, IDX folder, or the name of a dataset.",
        metavar="PATH|NAME",
    )
    data_root: str = setting("data", "Folder that holds named datasets.", metavar="DIR", live=True)
    split: str = setting("train", "Part of a dataset that has parts.", choices=("train", "test"))
    size: str = setting("auto", "Image size, N or HEIGHTxWIDTH; auto is the dataset's own, else 64.", metavar="SIZE")
    channels: str = setting("auto", "1, 3 or 4; auto is detected from the images.", choices=("auto", "1", "3", "4"))
    fit: str = setting("auto", "How an image of another shape is fitted.", choices=("auto", "crop", "pad", "stretch"))
    flip: bool = setting(False, "Mirror half of the images left to right.")
    holdout: float = setting(
        0.0, "Images reserved for scoring, never trained on: a share below 1, or a number.", low=0.0
    )
    unconditional: bool = setting(False, "Ignore the classes.")
    max_bad: float = setting(
        0.01, "Largest share of unreadable images that is skipped; more is an error.", low=0.0, high=1.0, live=True
    )


@dataclass(frozen=True)
class ModelConfig:
    """The two networks."""

    arch: str = setting("sagan", "Architecture, built in or from a plugin.", metavar="NAME")
    width: int = setting(64, "Channels at full resolution.", low=1)
    latent: int = setting(128, "Length of the latent vector z.", low=1)
    attn_at: str = setting(
        "auto",
        "Feature maps with self-attention, by longer side: 32, 16,32, none; auto is the architecture's own: for "
        "sagan 32, or 16 at 32 pixels.",
        metavar="SIDES",
    )
    attention: str = setting(
        AUTO,
        "Attention variant; residual is a plain block of equal size instead; auto is the architecture's own.",
        choices=(AUTO, "official", "paper", "port", "rows", "nonlocal", "residual"),
    )
    attn_ratio: str = setting(
        AUTO,
        "k of the paper: queries and keys have C/k channels; auto is 8.",
        choices=(AUTO, "1", "2", "4", "8"),
    )
    qk_norm: str = setting(
        AUTO,
        "Normalisation of the attention's queries and keys; rms keeps its scores small without spectral norm; auto is "
        "the architecture's own.",
        choices=(AUTO, "none", "rms"),
    )
    spectral_norm: str = setting(
        AUTO,
        "Networks with spectral norm; auto is the architecture's own.",
        choices=(AUTO, "both", "d", "none"),
    )
    g_norm: str = setting(
        AUTO,
        "Norm of the generator's blocks; none is a gain and a bias alone; auto is the architecture's own.",
        choices=(AUTO, "batch", "none"),
    )
    options: dict[str, Any] = field(default_factory=dict, metadata={"help": "An architecture's own settings."})

    def spec_options(self) -> dict[str, Any]:
        """Return the options for `ModelSpec`: `model.options`, and the flags of `OPTION_FLAGS` that are not `auto`.

        An architecture without such an option receives nothing unless the user asked for it, and then refuses it.
        """
        given = {name: getattr(self, name) for name in OPTION_FLAGS if getattr(self, name) != AUTO}
        if "attn_ratio" in given:
            given["attn_ratio"] = int(given["attn_ratio"])
        return {**given, **self.options}


@dataclass(frozen=True)
class TrainConfig:
    """The objective and its optimisation."""

    init_from: str = setting(
        "", "Start from trained weights: a run, RUN/best, a checkpoint, or an exported file.", metavar="MODEL"
    )
    freeze_d: int = setting(0, "With --init-from: first blocks of the discriminator that are not trained.", low=0)
    steps: int = setting(100_000, "Generator updates in total, including those before a resume.", low=1, live=True)
    batch: int = setting(64, "Images per update, over all processes.", low=1)
    d_steps: int = setting(1, "Discriminator updates per generator update.", low=1)
    d_lr: float | str = setting(4e-4, "Adam's learning rate of the discriminator; may be a schedule.", low=0.0)
    g_lr: float | str = setting(1e-4, "Adam's learning rate of the generator; may be a schedule.", low=0.0)
    decay_steps: int = setting(0, "Step at which the learning rates have fallen linearly to 0; 0: never.", low=0)
    decay_from: int = setting(0, "Step at which they begin to fall.", low=0)
    loss: str = setting("hinge", "Adversarial loss.", metavar="NAME", kind="losses")
    penalty: str = setting(
        "",
        "Penalties added to the discriminator's loss, as in r1=0.1/4,r2=0.1/4: weight, and interval in updates.",
        metavar="NAME=WEIGHT[/INTERVAL],...",
        kind="penalties",
    )
    gp: float | str = setting(0.0, "Weight of the gradient penalty, 10 in WGAN-GP; short for --penalty gp=W.", low=0.0)
    r1: float | str = setting(0.0, "Weight gamma of the R1 penalty; short for --penalty r1=W.", low=0.0)
    augment: str = setting(
        "",
        "Augmentations of all images that the discriminator sees, with their probability.",
        metavar="NAME[=PROBABILITY],...",
        kind="augmentations",
    )
    ada: float = setting(
        0.0,
        "Adaptive augmentation: multiply the probabilities of --augment by a factor that rises from 0 while the mean "
        "sign of the discriminator on real images (for a loss over pairs: on differences) is above this target, 0.6 "
        "in Karras et al. 2020; 0 turns it off.",
        low=0.0,
        high=1.0,
    )
    ada_images: int = setting(500_000, "Images within which the factor of --ada can rise from 0 to 1.", low=1)
    clip: float = setting(0.0, "Largest absolute weight of the discriminator (0.01 in WGAN); 0 is no limit.", low=0.0)
    grad_clip: float = setting(
        0.0, "Largest norm of a network's gradient; a larger gradient is scaled down to it; 0 is no limit.", low=0.0
    )
    constraint: str = setting(
        "",
        "Changes of the discriminator's weights after each of its updates; --clip C is clip=C.",
        metavar="NAME=VALUE,...",
        kind="constraints",
    )
    beta1: float = setting(0.0, "Adam's beta 1.", low=0.0, high=0.9999)
    beta2: float | str = setting(0.9, "Adam's beta 2; may be a schedule.", low=0.0, high=0.99999)
    ema: float | str = setting(
        0.999, "Decay of the generator's EMA; 0 turns it off; may be a schedule.", low=0.0, high=0.99999
    )
    ema_halflife: float | str = setting(
        0.0, "Half-life of the EMA in images, instead of --ema; 0 uses --ema; may be a schedule.", low=0.0
    )
    seed: int = setting(0, "Seed of weights, latents and the order of the images.", low=0)
    precision: str = setting(
        "auto",
        "Type of convolutions and products; auto is bf16 if the hardware supports it.",
        choices=("auto", "fp32", "bf16"),
        live=True,
    )
    device: str = setting("auto", "auto, cpu, cuda, cuda:N or mps.", metavar="DEVICE", live=True)
    accumulate: int = setting(
        1, "Number of slices in which a batch is computed one after another, to save memory.", low=1
    )
    checkpointing: bool = setting(
        False, "Recompute the activations of each block in the backward pass, to save memory.", live=True
    )
    graph: str = setting(
        "auto",
        "Run each step as a CUDA graph; auto uses one where possible.",
        choices=("auto", "on", "off"),
        live=True,
    )


@dataclass(frozen=True)
class RunConfig:
    """What a run writes and how often."""

    log_every: int = setting(50, "Steps between lines of metrics.jsonl.", low=1, live=True)
    grid_every: int = setting(500, "Steps between sample grids.", low=1, live=True)
    save_every: int = setting(500, "Steps between checkpoints.", low=1, live=True)
    keep: int = setting(3, "Checkpoints kept, besides the best one.", low=1, live=True)
    eval_every: str = setting(
        "off",
        "Score while training: every N steps; auto uses at most 5 % of the time; off.",
        metavar="N|auto|off",
        live=True,
    )
    eval_n: int = setting(2048, "Number of images of a score while training.", low=2, live=True)
    eval_metrics: str = setting(
        "fid,prc",
        "Metrics of a score while training; the first one decides which checkpoint is the best.",
        metavar="LIST",
        live=True,
        kind="metrics",
    )
    eval_extractor: str = setting(
        "auto",
        "Feature extractor of these scores; auto is the classifier if the data has classes.",
        metavar="NAME",
        live=True,
    )
    logger: str = setting(
        "", "Loggers besides the progress display and metrics.jsonl.", metavar="NAME,...", live=True, kind="loggers"
    )


@dataclass(frozen=True)
class Config:
    """The complete configuration of a run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def get(self, key: str) -> Any:
        """Return the value of the key `section.name`."""
        section, name = key.split(".", 1)
        return getattr(getattr(self, section), name)


@dataclass(frozen=True)
class Setting:
    """One setting, as flags, files and variables show it."""

    key: str
    kind: type
    """`str`, `int`, `float`, `bool`, or `Schedule` for a number or the text of a schedule."""
    default: Any
    help: str
    live: bool
    """Whether it may change when a run is resumed."""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    registered: str = ""
    """Kind of the registry whose names it takes; its help lists them."""

    @property
    def name(self) -> str:
        """The name in Python: `d_steps`."""
        return self.key.partition(".")[2]

    @property
    def flag(self) -> str:
        """The name of the flag, without dashes in front: `d-steps`."""
        return self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable: `SAGAN_D_STEPS`."""
        return "SAGAN_" + self.name.upper()


_TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool, "float | str": Schedule}
OPTIONS_KEY = "model.options"
"""The table of an architecture's own settings, `model.options.NAME`."""


def _settings() -> dict[str, Setting]:
    found = {}
    for section in dataclasses.fields(Config):
        for f in dataclasses.fields(_SECTIONS[section.name]):
            key = f"{section.name}.{f.name}"
            if key == OPTIONS_KEY:
                continue
            more = {k: v for k, v in f.metadata.items() if k in ("low", "high", "choices", "metavar")}
            more["registered"] = f.metadata.get("kind", "")
            found[key] = Setting(
                key=key, kind=_TYPES[str(f.type)], default=f.default, help=f.metadata["help"],
                live=f.metadata.get("live", False), **more,
            )  # fmt: skip
    return found


_SECTIONS: dict[str, type] = {"data": DataConfig, "model": ModelConfig, "train": TrainConfig, "run": RunConfig}
SETTINGS: dict[str, Setting] = _settings()
"""Every setting by key, in the order of the classes above."""


def build(values: dict[str, Any], options: dict[str, Any]) -> Config:
    """Return the Config of values by key; others keep their defaults."""
    sections = {
        name: kind(
            **{k.split(".", 1)[1]: v for k, v in values.items() if k.startswith(name + ".")},
            **({"options": options} if name == "model" else {}),
        )
        for name, kind in _SECTIONS.items()
    }
    return Config(**sections)


def option_text(option: str, value: Any) -> str:
    """Return an architecture's option as a user writes it: `--attn-ratio 3`, `--set model.options.heads=3`."""
    if option in OPTION_FLAGS:
        return f"--{option.replace('_', '-')} {value}"
    return f"--set {OPTIONS_KEY}.{option}={value}"


# ---- Records and files of earlier versions ---------------------------------------------------------------------------

RENAMED = {"data.source": "data.data", "data.root": "data.data_root", "model.base_width": "model.width"}
"""Key before version 0.3 -> key today."""
_ADDED_WITH_AUTO = "train.decay_from"
"""A record without this key was written before `auto` existed for the options of an architecture."""
_BEFORE_AUTO = {"model.attention": "official", "model.attn_ratio": 8, "model.spectral_norm": "both"}
"""Values that such a record has where the user chose nothing; they never reached the architecture."""


def current_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return recorded settings under the keys and with the values of this version."""
    found = {RENAMED.get(key, key): value for key, value in values.items()}
    if found and _ADDED_WITH_AUTO not in found:
        for key, default in _BEFORE_AUTO.items():
            value = found.get(key, default)
            found[key] = AUTO if value == default else str(value)
    return found


def effective(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings, defaults filled in and `auto` replaced by the architecture's own options.

    Settings that build the same networks compare equal.
    """
    filled: dict[str, Any] = {key: setting.default for key, setting in SETTINGS.items()} | dict(values)
    defaults = registry.default_options(filled["model.arch"])
    for name in OPTION_FLAGS:
        if filled.get(f"model.{name}") == AUTO and name in defaults:
            filled[f"model.{name}"] = str(defaults[name])
    return filled
