"""StudioGAN's SAGAN and SNGAN (POSTECH-CVLab/PyTorch-StudioGAN, src/models/resnet.py), with or without classes.

A norm's gain is 1 + W y with y one-hot and W a spectrally normalised linear layer: column by column a table. Its batch
norms have an epsilon of 1e-4, ours 1e-5.
"""

from __future__ import annotations

from sagan_cli.importing import layers
from sagan_cli.importing.foreign import Converted, Foreign
from sagan_cli.importing.resnet import Layout, Naming, convert

NAME, TITLE = "studiogan", "StudioGAN's SAGAN"
SIGNATURE = ("linear0.weight_orig", "blocks.0.0.conv2d0.weight_orig", "conv2d5.weight_orig")
"""Tensor names that only this generator has."""
EPSILON = 1e-4


def read(foreign: Foreign) -> Converted:
    """Convert the generator to `sagan`.

    Raises:
        CheckpointError: as `resnet.convert`; info_mix_linear and the like, of InfoGAN, count as too many.
    """
    return convert(foreign, NAMING)


def _layout(foreign: Foreign) -> Layout:
    """Return the layout; blocks and attention are in one list."""
    blocks: list[str] = []
    attention = {}
    i = 0
    while True:
        prefix = f"blocks.{i}.0."
        if f"{prefix}conv2d0.weight_orig" in foreign:
            blocks.append(prefix)
        elif f"{prefix}conv1x1_theta.weight_orig" in foreign and len(blocks) not in attention:
            attention[len(blocks)] = prefix
        else:
            return Layout(tuple(blocks) or ("blocks.0.0.",), attention)
        i += 1


def _classes(foreign: Foreign, name: str) -> int:
    return 0 if f"{name}.weight" in foreign else foreign.shape(f"{name}.gain.weight_orig", 2)[1]


def _norm(foreign: Foreign, name: str, classes: int, channels: int) -> layers.BatchNorm:
    if not classes:
        return layers.torch_batch_norm(foreign, name, channels, EPSILON)
    gain, bias = (
        layers.torch_normed(foreign, f"{name}.{part}", (channels, classes), bias=False).bar().t()
        for part in ("gain", "bias")
    )
    return layers.batch_norm(1 + gain, bias, layers.running_statistics(foreign, f"{name}.bn", channels), EPSILON)


def _final_norm(foreign: Foreign, name: str, channels: int) -> layers.BatchNorm:
    return layers.torch_batch_norm(foreign, name, channels, EPSILON)


NAMING = Naming(
    linear="linear0",
    block={"conv0": "conv2d1", "conv1": "conv2d2", "shortcut": "conv2d0", "norm0": "bn1", "norm1": "bn2"},
    attention={
        "query": "conv1x1_theta", "key": "conv1x1_phi", "value": "conv1x1_g", "output": "conv1x1_attn",
        "gamma": "sigma",
    },
    attention_bias=False, last_norm="bn4", to_image="conv2d5", weight="weight_orig", layout=_layout,
    classes=_classes, spectral=layers.torch_normed, norm=_norm, final_norm=_final_norm,
)  # fmt: skip
