"""Evaluation protocols: one row for each set of knobs that a paper or tool fixes. To add a protocol, add a row.

What is the same in all of them, and therefore not a column: pictures are rounded to uint8 before they are measured, the
network is the 2015 Inception of TTUR (Heusel et al. 2017) in torch-fidelity's conversion, and other sizes are brought
to its 299 pixels by TensorFlow 1's bilinear rule without antialiasing, as TTUR and torch-fidelity do. StyleGAN and
Mimicry use that network and rule too; the official SAGAN code feeds unrounded floats, BigGAN-PyTorch torchvision's
Inception and StudioGAN pytorch-fid's resizing, so there a protocol fixes what is measured and against what, and the
last decimals may still differ.

The rows were read from the sources that `about` names, not from memory; what a source leaves open stands as in
`default`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sagan_cli.errors import UsageError, closest

DEFAULT = "default"
KNOBS = ("kid_subsets", "kid_subset_size", "isc_splits", "prc_neighbours")
"""Parameters of metrics that a protocol fixes."""


@dataclass(frozen=True)
class Protocol:
    """What is drawn, how, and what it is held against."""

    name: str
    about: str
    """One line: what it is, and whose."""
    n_fake: int = 50_000
    split: str = "train"
    """Part of the data that is the reference: `train` or `test` (a validation split counts as test)."""
    n_real: int | None = None
    """Pictures of that part; None is all of them. A part that holds fewer gives what it has."""
    ema: bool = True
    """The moving average of the weights, or the weights that were trained."""
    batch_norm: str = "running"
    """`running`: statistics as saved; `standing`: measured anew over many batches; `batch`: of each batch drawn."""
    labels: str = "uniform"
    """Classes drawn `uniform`ly, or as often as in the `data`."""
    truncation: float | None = None
    metrics: tuple[str, ...] = ("fid",)
    extractor: str = "inception-v3-compat"
    kid_subsets: int = 100
    kid_subset_size: int = 1000
    isc_splits: int = 10
    prc_neighbours: int = 3


# The knobs of KID, IS and precision/recall in `default` are torch-fidelity's; StyleGAN's metric_main.py has the same.
PROTOCOLS: dict[str, Protocol] = {
    row.name: row
    for row in (
        # The counts and the reference of StyleGAN's fid50k_full; labels as SAGAN, BigGAN and compare_gan draw them.
        Protocol(DEFAULT, "50,000 pictures of the averaged weights against the whole training split"),
        # eval_imagenet.py: eval_sample_size 50000 for both sides, zero logits for the classes, is_training=False, and
        # classifier_score_from_logits over all at once; train_imagenet.py keeps no average of the weights.
        Protocol("sagan", "Zhang et al. 2019, their eval_imagenet.py: 50,000 against 50,000 of training, no EMA",
                 n_real=50_000, ema=False, metrics=("fid", "isc"), isc_splits=1),
        # calculate_inception_moments.py: all of training; sample.py: accumulate_standing_stats, categorical classes.
        Protocol("biggan", "Brock et al. 2019, BigGAN-PyTorch: EMA, standing statistics, whole training split",
                 batch_norm="standing", metrics=("fid", "isc")),
        # metric_main.py: fid50k_full, kid50k_full and is50k; iterate_random_labels draws labels from the data. Their
        # pr50k3_full is left out: it looks through VGG16.
        Protocol("stylegan", "Karras et al. 2021, fid50k_full: EMA, labels as in the data, whole training split",
                 labels="data", metrics=("fid", "kid", "isc")),
        # README, Metrics: 50K real and generated, KID over 10 splits (compute_kid.py: of n/10 each), IS in 10 splits.
        Protocol("mimicry", "Lee and Town 2020, Mimicry: 50,000 against 50,000 of training, no EMA, KID of 10 x 5,000",
                 n_real=50_000, ema=False, metrics=("isc", "fid", "kid"), kid_subsets=10, kid_subset_size=5000),
        # SAGAN's log of 2020-09-18: eval_type test, 10000 generated images, ema and standing_statistics False; README:
        # IS is not split. compare_gan (Kurach et al. 2019) agrees: eval_test_samples 10000, g_use_ema False, one split.
        Protocol("cifar10-test", "StudioGAN's CIFAR-10 logs, compare_gan: 10,000 against the test split, no EMA",
                 n_fake=10_000, split="test", ema=False, metrics=("isc", "fid"), isc_splits=1),
        # SAGAN's log of 2021-02-11: eval_type valid, 50000 pictures, ema and standing_statistics False. StudioGAN's
        # later benchmark uses the training split and another resizer, which is not this.
        Protocol("studiogan-valid", "StudioGAN's ImageNet logs: 50,000 against the 50,000 of validation, no EMA",
                 split="test", ema=False, metrics=("isc", "fid"), isc_splits=1),
        # FID falls with the number of pictures (Chong and Forsyth 2020): not a figure for a table of 50,000s.
        Protocol("quick", "ours, for looking and not for papers: default with 10,000 pictures", n_fake=10_000),
    )
}  # fmt: skip


def find(name: str) -> Protocol:
    """The protocol of a name.

    Raises:
        UsageError: there is none; the message lists those there are.
    """
    if name not in PROTOCOLS:
        wrong = f"--protocol {name}: no such protocol{closest(name, PROTOCOLS)}"
        raise UsageError(f"{wrong}; there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def help_text() -> str:
    """What stands beside `--protocol` in the help: every row with its source, the default first."""
    rows = "; ".join(f"{p.name}: {p.about}" for p in PROTOCOLS.values())
    return f"Every knob that a paper fixes, at once; without it '{DEFAULT}'. {rows}."
