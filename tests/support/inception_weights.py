"""Weights for the real Inception network, seeded and random: `python tests/inception.py OUT.pth [SEED]` makes a file.

They let the whole path of a score be walked without a download. The scores mean nothing, but pictures that differ get
features that differ, finite and of the size of the real ones.
"""

from __future__ import annotations

import argparse
import io
import math
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

GAIN = 3.0
"""Variance of a weight times its fan-in: makes features about 0.4, as the trained network's are."""


def shapes() -> dict[str, Tensor]:
    """The 566 tensors of torch-fidelity's Inception, without numbers (device meta)."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with torch.device("meta"), mock.patch.object(FeatureExtractorInceptionV3, "load_state_dict"):
        module = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=nothing)
    found: dict[str, Tensor] = module.state_dict()
    return found


def random_state(seed: int = 0) -> dict[str, Tensor]:
    """Filters that sum to zero, and batch norm that does nothing.

    Without the zero sum, what all pictures share (every activation is positive) grows from layer to layer, until all
    features point the same way.
    """
    draw = torch.Generator().manual_seed(seed)
    state = {}
    for name, blank in shapes().items():
        if blank.ndim > 1:
            rows = torch.randn(len(blank), blank[0].numel(), generator=draw)
            rows -= rows.mean(1, keepdim=True)
            state[name] = (rows * math.sqrt(GAIN / rows.shape[1])).reshape(blank.shape)
        else:
            one = name.endswith(("running_var", "bn.weight"))
            state[name] = torch.full(blank.shape, int(one), dtype=blank.dtype)
    return state


def random_inception(path: Path, seed: int = 0) -> Path:
    """Write such weights as a .pth state dict of about 95 MB; the same seed gives the same tensors."""
    torch.save(random_state(seed), path)
    return path


def constructed() -> Any:
    """torch-fidelity's network with such weights."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    file = io.BytesIO()
    torch.save(random_state(), file)
    file.seek(0)
    return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path, metavar="OUT.pth", nargs="?")
    parser.add_argument("seed", type=int, nargs="?", default=0, metavar="SEED")
    parser.add_argument("--known", action="store_true", help="print KNOWN_FEATURES of self_check.py")
    arguments = parser.parse_args()
    if arguments.known:
        from sagan_cli.evaluation.extractors.self_check import known_weight_features

        print(
            *("    (" + ", ".join(f"{v:.6g}" for v in row) + ")," for row in known_weight_features(constructed())),
            sep="\n",
        )
    else:
        random_inception(arguments.out, arguments.seed)
