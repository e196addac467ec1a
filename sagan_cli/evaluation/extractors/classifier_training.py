"""`--extractor classifier`: a small network trained on the data's own labels, once, by the same recipe everywhere."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sagan_cli.errors import DataError, SaganError
from sagan_cli.evaluation.extractors.classifier import (
    FEATURES,
    Classifier,
    as_extractor,
    exact,
    input_size,
    known_pictures,
)
from sagan_cli.evaluation.extractors.classifier_store import FORMAT, load, prepare, save, verify
from sagan_cli.evaluation.extractors.extractor import Extractor, three_channels
from sagan_cli.evaluation.extractors.published import Progress
from sagan_cli.evaluation.extractors.weights import tensor_digest
from sagan_cli.files import write_directory
from sagan_cli.ops.precision import no_autocast
from sagan_cli.ops.randomness import generator

Images: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.int64]

_BATCH = 128
_PASSES, _FEWEST, _MOST = 4, 20_000, 120_000
"""Passes over the pictures, unless that is fewer or more presentations of a picture than these."""
_RATE, _DECAY, _WARM_UP = 3e-3, 1e-2, 0.15
"""AdamW's peak step and weight decay; the share of the steps before the peak."""
_HELD_OUT = 10_000
_SEED = 0


def open_classifier(
    images: Images,
    labels: Labels,
    class_names: tuple[str, ...],
    data_digest: str,
    *,
    folder: Path,
    device: torch.device,
    progress: Progress,
    notify: Callable[[str], None],
) -> Extractor:
    """The classifier of this data set, from the cache or trained now, as an extractor.

    Args:
        images: uint8 (N, H, W, C), C in 1, 3, 4; may be memory-mapped, and is read batch by batch.
        labels: int64 (N,), positions in `class_names`.
        data_digest: identifies images and labels.
        folder: the cache of classifiers; made where it does not exist.
        progress: entered while training only; told how many pictures were shown. May raise to stop, and nothing is
            left behind.
        notify: given one line for a damaged classifier that is trained again, and for one that learned little.

    Raises:
        DataError: fewer than two classes.
        SaganError: the cache cannot be written, training diverged, or this machine does not reproduce the stored
            features.
    """
    if len(class_names) < 2:
        raise DataError("--extractor classifier needs pictures with classes; use another --extractor")
    recipe = _recipe(images.shape, len(class_names))
    key = hashlib.sha256(json.dumps([FORMAT, data_digest, recipe], sort_keys=True).encode()).hexdigest()
    path = folder / key[:40]
    found = load(path, recipe, notify)
    if found is None:
        prepare(folder)
        started = time.perf_counter()
        network, about = _train(images, labels, recipe, device, progress)
        about |= {
            "class_names": list(class_names), "data_digest": data_digest, "device": str(device),
            "seconds": round(time.perf_counter() - started, 1),
        }  # fmt: skip
        # Another process may have trained the same in the meantime: everybody uses what stands on disk.
        write_directory(path, lambda work: save(work, network, recipe, about))
        found = load(path, recipe, notify)
        if found is None:
            raise SaganError(f"{path}: the classifier that was just written has gone or is damaged: run again")
    network, about = found
    facts = {"accuracy": about["accuracy"], "classes": len(class_names), "trained_on": about["trained_on"]}
    extractor = as_extractor(network, tensor_digest(network.state_dict()), device, facts)
    verify(path, extractor(known_pictures(network.size), (FEATURES,))[FEATURES], about["known"])
    _judge(about, notify)
    return extractor


def _recipe(shape: tuple[int, ...], classes: int) -> dict[str, Any]:
    """Everything besides the pictures that decides about the weights."""
    held_out = min(shape[0] // 10, _HELD_OUT)
    shown = min(max(_PASSES * (shape[0] - held_out), _FEWEST), _MOST)
    return {
        "size": list(input_size(shape[1], shape[2])), "classes": classes, "held_out": held_out,
        "steps": math.ceil(shown / _BATCH), "batch": _BATCH, "rate": _RATE, "decay": _DECAY, "warm_up": _WARM_UP,
        "seed": _SEED,
    }  # fmt: skip


def _train(
    images: Images, labels: Labels, recipe: Mapping[str, Any], device: torch.device, progress: Progress
) -> tuple[Classifier, dict[str, Any]]:
    """A trained network on `device`, and what it is worth.

    `accuracy` is the share of held-out pictures named rightly, None where none are; `chance` is what always naming the
    commonest class would reach; `trained_on` counts different pictures.
    """
    seed, steps, batch = recipe["seed"], recipe["steps"], recipe["batch"]
    split = torch.randperm(len(images), generator=generator(seed, "classifier-split")).numpy()
    held, train = split[: recipe["held_out"]], split[recipe["held_out"] :]
    passes = range(math.ceil(steps * batch / len(train)))
    orders = (torch.randperm(len(train), generator=generator(seed, "classifier-order", i)) for i in passes)
    order = train[torch.cat(list(orders))[: steps * batch].numpy()]
    # The caller may be scoring in the middle of a run, in inference mode, under autocast.
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        no_autocast(torch.empty(0, device=device)),
        exact(device),
        progress("training the classifier", steps * batch) as tick,
    ):
        network = Classifier(tuple(recipe["size"]), recipe["classes"], generator(seed, "classifier-weights"))
        network.to(device).train()
        optimiser = torch.optim.AdamW(network.parameters(), weight_decay=recipe["decay"], fused=True)
        for step in range(steps):
            optimiser.param_groups[0]["lr"] = _rate(step / steps, recipe)
            x, y = _batch(images, labels, order[step * batch : (step + 1) * batch], device)
            loss = F.cross_entropy(network(network.normalised(x))[1], y)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            tick((step + 1) * batch, steps * batch)
    accuracy = _accuracy(network.eval(), images, labels, held, device)
    chance = int(np.bincount(labels).max()) / len(labels)
    return network, {"accuracy": accuracy, "chance": chance, "trained_on": len(np.unique(order))}


def _rate(done: float, recipe: Mapping[str, Any]) -> float:
    """AdamW's step size: a straight line up to the peak, then half a cosine down to 0."""
    peak, warm_up = float(recipe["rate"]), float(recipe["warm_up"])
    if done < warm_up:
        return peak * (done / warm_up * 0.95 + 0.05)
    return peak * 0.5 * (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up)))


def _batch(images: Images, labels: Labels, chosen: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
    """The chosen pictures, uint8 (n, 3, H, W), and their labels (n,); read in the order of the file."""
    places = np.sort(chosen)
    return three_channels(images[places]).to(device), torch.from_numpy(labels[places]).to(device)


@torch.inference_mode()
def _accuracy(
    network: Classifier, images: Images, labels: Labels, held: NDArray[np.int64], device: torch.device
) -> float | None:
    """Share of the held-out pictures that are named rightly; None of none."""
    if not len(held):
        return None
    right = 0
    with no_autocast(torch.empty(0, device=device)), exact(device):
        for start in range(0, len(held), _BATCH):
            x, y = _batch(images, labels, held[start : start + _BATCH], device)
            right += int((network(network.normalised(x))[1].argmax(1) == y).sum())
    return right / len(held)


def _judge(about: Mapping[str, Any], notify: Callable[[str], None]) -> None:
    """Say so when the classifier learned little: halfway from chance to perfect, or twice chance, is the least."""
    accuracy, chance, held_out = about["accuracy"], about["chance"], about["recipe"]["held_out"]
    if accuracy is None:
        notify("--extractor classifier: too few pictures to hold any out: how well it names classes is not known")
    elif accuracy < min(2 * chance, (1 + chance) / 2):
        notify(
            f"--extractor classifier: it names only {accuracy:.1%} of {held_out:,} held-out pictures rightly, where "
            f"always naming the commonest class names {chance:.1%}: its distances say little; use another --extractor"
        )
