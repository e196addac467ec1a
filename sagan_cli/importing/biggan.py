"""BigGAN-PyTorch's SAGAN (ajbrock/BigGAN-PyTorch, scripts/launch_SAGAN_bs128x2_ema.sh), which has tables in each norm.

The norms' tables are plain embeddings, with 1 added to the gain; evaluation normalises by stored_mean and stored_var.
With --cross_replica and --mybn these lie one module deeper, under other names.
"""

from __future__ import annotations

from torch import Tensor

from sagan_cli.importing import layers
from sagan_cli.importing.foreign import Converted, Foreign
from sagan_cli.importing.resnet import Layout, Naming, convert

NAME, TITLE = "biggan-pytorch", "BigGAN-PyTorch's SAGAN"
SIGNATURE = ("linear.weight", "blocks.0.0.conv_sc.weight", "output_layer.2.weight")
"""Tensor names that only this generator has."""
EPSILON = 1e-5


def read(foreign: Foreign) -> Converted:
    """Convert the generator to `sagan`.

    Raises:
        CheckpointError: as `resnet.convert`; a BigGAN, whose norms share one embedding, is refused by name.
    """
    if "shared.weight" in foreign:
        raise foreign.refuse("shared.weight", "an embedding that all norms share makes it a BigGAN, not a SAGAN")
    return convert(foreign, NAMING)


def _layout(foreign: Foreign) -> Layout:
    count = 0
    while f"blocks.{count}.0.conv_sc.weight" in foreign:
        count += 1
    attention = {i + 1: f"blocks.{i}.1." for i in range(count) if f"blocks.{i}.1.theta.weight" in foreign}
    return Layout(tuple(f"blocks.{i}.0." for i in range(max(count, 1))), attention)


def _classes(foreign: Foreign, name: str) -> int:
    return foreign.shape(f"{name}.gain.weight", 2)[0]


def _norm(foreign: Foreign, name: str, classes: int, channels: int) -> layers.BatchNorm:
    gain, bias = (foreign.take(f"{name}.{part}.weight", classes, channels) for part in ("gain", "bias"))
    return layers.batch_norm(1 + gain, bias, _statistics(foreign, name, channels), EPSILON)


def _final_norm(foreign: Foreign, name: str, channels: int) -> layers.BatchNorm:
    gain, bias = (foreign.take(f"{name}.{part}", channels)[None] for part in ("gain", "bias"))
    return layers.batch_norm(gain, bias, _statistics(foreign, name, channels), EPSILON)


def _statistics(foreign: Foreign, name: str, channels: int) -> tuple[Tensor, Tensor]:
    if f"{name}.bn.running_mean" in foreign:
        return layers.running_statistics(foreign, f"{name}.bn", channels)
    inner = f"{name}.bn" if f"{name}.bn.stored_mean" in foreign else name
    foreign.skip(f"{inner}.accumulation_counter")
    return foreign.take(f"{inner}.stored_mean", channels), foreign.take(f"{inner}.stored_var", channels)


NAMING = Naming(
    linear="linear",
    block={"conv0": "conv1", "conv1": "conv2", "shortcut": "conv_sc", "norm0": "bn1", "norm1": "bn2"},
    attention={"query": "theta", "key": "phi", "value": "g", "output": "o", "gamma": "gamma"},
    attention_bias=False, last_norm="output_layer.0", to_image="output_layer.2", weight="weight", layout=_layout,
    classes=_classes, spectral=layers.biggan_normed, norm=_norm, final_norm=_final_norm,
)  # fmt: skip
