"""The ResNet port (voletiv/self-attention-GAN-pytorch, sagan_models.py): 128 pixels, attention at 32, always classes.

Its norms' tables hold gain and bias side by side; the convolutions of its attention have biases, which ours have not:
`importing.layers` moves them into the layers around it.
"""

from __future__ import annotations

from sagan_cli.importing import layers
from sagan_cli.importing.foreign import Converted, Foreign
from sagan_cli.importing.resnet import Layout, Naming, convert

NAME, TITLE = "voletiv", "voletiv's self-attention-GAN-pytorch"
SIGNATURE = ("snlinear0.weight_orig", "block1.cond_bn1.embed.weight", "snconv2d1.weight_orig")
"""Tensor names that only this generator has."""
EPSILON = 1e-5


def read(foreign: Foreign) -> Converted:
    """Convert the generator to `sagan`.

    Raises:
        CheckpointError: as `resnet.convert`, or a bias of the attention that cannot be moved.
    """
    return convert(foreign, NAMING)


def _layout(foreign: Foreign) -> Layout:
    return Layout(tuple(f"block{i}." for i in range(1, 6)), {3: "self_attn."})


def _classes(foreign: Foreign, name: str) -> int:
    return foreign.shape(f"{name}.embed.weight", 2)[0]


def _norm(foreign: Foreign, name: str, classes: int, channels: int) -> layers.BatchNorm:
    gain, bias = foreign.take(f"{name}.embed.weight", classes, 2 * channels).chunk(2, 1)
    return layers.batch_norm(gain, bias, layers.running_statistics(foreign, f"{name}.bn", channels), EPSILON)


def _final_norm(foreign: Foreign, name: str, channels: int) -> layers.BatchNorm:
    return layers.torch_batch_norm(foreign, name, channels, EPSILON)


NAMING = Naming(
    linear="snlinear0",
    block={
        "conv0": "snconv2d1", "conv1": "snconv2d2", "shortcut": "snconv2d0", "norm0": "cond_bn1", "norm1": "cond_bn2"
    },
    attention={
        "query": "snconv1x1_theta", "key": "snconv1x1_phi", "value": "snconv1x1_g", "output": "snconv1x1_attn",
        "gamma": "sigma",
    },
    attention_bias=True, last_norm="bn", to_image="snconv2d1", weight="weight_orig", layout=_layout,
    classes=_classes, spectral=layers.torch_normed, norm=_norm, final_norm=_final_norm,
)  # fmt: skip
