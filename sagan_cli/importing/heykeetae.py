"""The well-known DCGAN-shaped port (heykeetae/Self-Attention-GAN, sagan_models.py): 64 pixels, no classes.

Its own spectral norm takes the rows of a transposed convolution's matrix for the input channels, which our
`sagan-dcgan` does with the option `deconv_rows`. The project has 64 pixels only, so no other size is read.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from sagan_cli.contracts import ModelSpec
from sagan_cli.importing import layers
from sagan_cli.importing.foreign import Converted, Foreign

NAME, TITLE = "heykeetae", "heykeetae's Self-Attention-GAN"
SIGNATURE = ("l1.0.module.weight_bar", "l1.1.running_mean", "last.0.weight")
"""Tensor names that only this generator has."""
EPSILON = 1e-5
STAGES = 4
ATTENTION = {3: ("attn1", 16), 4: ("attn2", 32)}
"""After stage n, counted from 1: the block's name, and the side of its map at 64 pixels."""


def read(foreign: Foreign) -> Converted:
    """Convert the generator to `sagan-dcgan`.

    Raises:
        CheckpointError: a tensor is missing, too many or of another shape.
    """
    latent, top, _, _ = foreign.shape("l1.0.module.weight_bar", 4)
    base = top >> (STAGES - 1)
    if top != base << (STAGES - 1) or not base:
        raise foreign.refuse("l1.0.module.weight_bar", f"{top} channels cannot be halved {STAGES - 1} times")
    widths = [top >> i for i in range(STAGES)]
    state: dict[str, Tensor] = {}
    for n, (inner, outer) in enumerate(pairwise([latent, *widths]), start=1):
        # A transposed convolution has its inputs first, so these are the rows of their matrix; the bias is an output's.
        name, own = f"l{n}.0.module", f"stages.{n - 1}"
        state |= layers.normed_tensors(own, layers.heykeetae_normed(foreign, name, (inner, outer, 4, 4), bias=False))
        state[f"{own}.bias"] = foreign.take(f"{name}.bias", outer)
        state |= layers.batch_norm_tensors(
            f"norms.{n - 1}", layers.torch_batch_norm(foreign, f"l{n}.1", outer, EPSILON)
        )
        if n in ATTENTION:
            state |= _attention(foreign, *ATTENTION[n], outer)
    state["to_image.weight"] = foreign.take("last.0.weight", widths[-1], 3, 4, 4)
    state["to_image.bias"] = foreign.take("last.0.bias", 3)
    foreign.finish()
    options = {"deconv_rows": "input", "places": "published"}
    sides = tuple(side for _, side in ATTENTION.values())
    return Converted(
        "sagan-dcgan", ModelSpec(64, 64, latent=latent, base_width=base, attn_at=sides, options=options), state
    )


def _attention(foreign: Foreign, name: str, side: int, width: int) -> dict[str, Tensor]:
    """Plain 1x1 convolutions with biases."""
    state = {f"attention.{side}.gamma": foreign.take(f"{name}.gamma", 1).reshape(())}
    inner = max(width // 8, 1)
    for part, theirs, rows in (("query", "query", inner), ("key", "key", inner), ("value", "value", width)):
        own = f"attention.{side}.{part}"
        state[f"{own}.weight"] = foreign.take(f"{name}.{theirs}_conv.weight", rows, width, 1, 1)
        state[f"{own}.bias"] = foreign.take(f"{name}.{theirs}_conv.bias", rows)
    return state
