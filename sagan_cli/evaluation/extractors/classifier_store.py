"""Trained classifiers on disk: kept beside the data cache, proven whole, and removed when they are not.

    <cache>/classifiers/<key>/model.safetensors    the weights
                              classifier.json      accuracy, recipe, features of known pictures, sha256 of the weights

The key is the sha256 of format, data digest and recipe. The directory appears by one rename, whole or not at all.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sagan_cli import __version__
from sagan_cli.errors import SaganError
from sagan_cli.evaluation.extractors.classifier import FEATURES, Classifier, as_extractor, known_pictures
from sagan_cli.files import discard, sha256_of, sweep, unwritable

FORMAT = 1
"""Part of every key: raise it when network or training change, and no old classifier is read again."""
MODEL, FACTS = "model.safetensors", "classifier.json"
TOLERANCE = 1e-3
"""Relative distance of features from the stored ones: machines and thread counts differ by 1e-6, mistakes by 1e-1."""


def save(work: Path, network: Classifier, recipe: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write both files into the directory `work`.

    Raises:
        SaganError: weights that are not finite.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    if not all(bool(value.isfinite().all()) for value in state.values()):
        raise SaganError("--extractor classifier: training diverged on these pictures; use another --extractor")
    save_file(state, work / MODEL)
    device = next(network.parameters()).device
    known = as_extractor(network, "", device, {})(known_pictures(network.size), (FEATURES,))[FEATURES]
    facts = {
        "format": FORMAT, "sagan": __version__, **about, "recipe": dict(recipe), "sha256": sha256_of(work / MODEL),
        "versions": {"python": platform.python_version(), "torch": torch.__version__}, "known": known.tolist(),
    }  # fmt: skip
    (work / FACTS).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load(
    path: Path, recipe: Mapping[str, Any], notify: Callable[[str], None]
) -> tuple[Classifier, dict[str, Any]] | None:
    """The network, on the CPU, and classifier.json; None where there is none. A damaged one is named and removed."""
    if not path.is_dir():
        return None
    try:
        about = json.loads((path / FACTS).read_text(encoding="utf-8"))
        if about["sha256"] != sha256_of(path / MODEL):
            raise ValueError(f"the sha256 of {MODEL} is not the one in {FACTS}")
        network = Classifier(tuple(recipe["size"]), recipe["classes"])
        network.load_state_dict(load_file(path / MODEL))
        absent = {"accuracy", "chance", "trained_on", "known", "recipe"} - set(about)
        if absent:
            raise ValueError(f"{FACTS} lacks {', '.join(sorted(absent))}")
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as e:
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        notify(f"{path}: this classifier is damaged and is trained again ({reason})")
        discard(path)
        return None
    return network, about


def verify(path: Path, measured: Tensor, stored: list[list[float]]) -> None:
    """Refuse to measure with arithmetic that is not what the classifier was trained with.

    Raises:
        SaganError: naming the directory.
    """
    known = torch.tensor(stored, dtype=torch.float32)
    off = (
        float(((measured - known).norm(dim=1) / known.norm(dim=1)).max()) if known.shape == measured.shape else math.nan
    )
    if not off <= TOLERANCE:
        raise SaganError(
            f"{path}: this machine computes other features of the known pictures than the stored ones (off by "
            f"{off:.1g} of their size, where {TOLERANCE:g} is allowed): delete this folder to train the classifier here"
        )


def prepare(folder: Path) -> None:
    """Find out before training whether its result can be kept, and remove what killed processes left.

    Raises:
        SaganError: naming SAGAN_CACHE.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise unwritable(folder, e.strerror or str(e)) from e
    if not os.access(folder, os.W_OK):
        raise unwritable(folder, "permission denied")
    sweep(folder)
