"""`--extractor classifier`: a small network trained once on the dataset's labels and cached.

It replaces Inception where nothing can be downloaded. The network has four stages (five for images over 32 pixels) of
3x3 convolution, batch norm and ReLU; every stage halves the sides that are longer than 4. The layer `features` is the
128 global averages of the last stage, each standardised to mean 0 and variance 1 over the training images; the layer
`logits` is a linear map of them. Without standardisation, a few channels would dominate a Frechet distance, because the
standard deviations of the averages differ tenfold.

    <cache>/classifiers/<key>/model.safetensors    the weights
                              classifier.json      accuracy, recipe, features of known images, sha256 of the weights

The key is the sha256 of format, data digest and recipe. The directory is created by a rename.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sagan_cli import __version__
from sagan_cli.engine.checkpoint import write_tensors
from sagan_cli.errors import DataError, SaganError
from sagan_cli.evaluation.extractors.extractor import CLASSIFIER, Extractor, LayerTensors, tensor_digest, three_channels
from sagan_cli.evaluation.extractors.weights import Progress
from sagan_cli.files import discard, sha256_of, sweep, unwritable, utf8_name, write_directory
from sagan_cli.ops.precision import no_autocast
from sagan_cli.ops.randomness import generator

Images: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.int64]

FEATURES, LOGITS = "features", "logits"
LAYERS = {"fid": FEATURES, "kid": FEATURES, "prc": FEATURES, "isc": LOGITS}
DIMENSIONS = 128
LONGEST = 64
"""Pixels of the longer side above which images are downsized, to limit the cost."""

_WIDTHS = (32, 64, 128, DIMENSIONS)
_SMALL = 32
"""Pixels of the longer side above which a narrow first stage is added."""
_FLOOR = 4
"""Pixels of a side that is not halved further."""
FORMAT = 1
"""Part of every key: raise it when the network or its training changes, so that old classifiers are not used."""
MODEL, FACTS = "model.safetensors", "classifier.json"
TOLERANCE = 1e-3
"""Largest relative difference from the stored features: machines and threads cause 1e-6, mistakes 1e-1."""

_BATCH = 128
_PASSES, _FEWEST, _MOST = 4, 20_000, 120_000
"""Passes over the images, and limits of the total number of images shown."""
_RATE, _DECAY, _WARM_UP = 3e-3, 1e-2, 0.15
"""Peak learning rate and weight decay of AdamW; share of the steps before the peak."""
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
    """Open the classifier of a dataset from the cache, or train it.

    Args:
        images: uint8 (N, H, W, C), C in 1, 3, 4; may be memory-mapped, and is read batch by batch.
        labels: int64 (N,), positions in `class_names`.
        data_digest: digest of images and labels.
        folder: the cache of classifiers; created if necessary.
        progress: used only for training, with the number of images shown. It may raise to stop; no file is left then.
        notify: called with one line if a damaged classifier is trained again, or if the accuracy is low.

    Raises:
        DataError: fewer than two classes.
        SaganError: the cache cannot be written, training diverged, or this machine does not reproduce the stored
            features.
    """
    if len(class_names) < 2:
        raise DataError("--extractor classifier needs images with classes; use another --extractor")
    recipe = _recipe(images.shape, len(class_names))
    key = hashlib.sha256(json.dumps([FORMAT, data_digest, recipe], sort_keys=True).encode()).hexdigest()
    path = folder / key[:40]
    found = _load(path, recipe, notify)
    if found is None:
        _prepare(folder)
        started = time.perf_counter()
        network, about = _train(images, labels, recipe, device, progress)
        about |= {
            "class_names": list(class_names), "data_digest": data_digest, "device": str(device),
            "seconds": round(time.perf_counter() - started, 1),
        }  # fmt: skip
        # Another process may have trained the same classifier meanwhile: every process uses the one on disk.
        write_directory(path, lambda work: _save(work, network, recipe, about))
        found = _load(path, recipe, notify)
        if found is None:
            raise SaganError(f"{path}: the classifier just written is missing or damaged: run again")
    network, about = found
    facts = {"accuracy": about["accuracy"], "classes": len(class_names), "trained_on": about["trained_on"]}
    extractor = as_extractor(network, tensor_digest(network.state_dict()), device, facts)
    _verify(path, extractor(known_images(network.size), (FEATURES,))[FEATURES], about["known"])
    _judge(about, notify)
    return extractor


def input_size(height: int, width: int) -> tuple[int, int]:
    """Return (height, width) of the network's input for a dataset of this size; at most 64 per side."""
    scale = min(1.0, LONGEST / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


class Classifier(nn.Module):
    """Normalised images (N, 3, h, w) -> standardised features (N, 128) and logits (N, classes)."""

    def __init__(self, size: tuple[int, int], classes: int, rng: torch.Generator | None = None) -> None:
        """Initialise from `rng`, or arbitrarily before weights are loaded; the global random state is kept."""
        super().__init__()
        self.size = size
        widths = _WIDTHS if max(size) <= _SMALL else (_WIDTHS[0] // 2, *_WIDTHS)
        with torch.random.fork_rng(devices=[]):
            self.stages = nn.Sequential(*_stages(size, widths))
            self.standard = nn.BatchNorm1d(DIMENSIONS, affine=False)
            self.linear = nn.Linear(DIMENSIONS, classes)
        if rng is not None:
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=rng)
            nn.init.normal_(self.linear.weight, std=0.01, generator=rng)
            nn.init.zeros_(self.linear.bias)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        features = self.standard(self.stages(x).mean((2, 3)))
        return features, self.linear(features)

    def normalised(self, images: Tensor) -> Tensor:
        """Convert uint8 (N, 3, H, W) of any size to float32 (N, 3, h, w) in [-1, 1], channels_last.

        Images of another size are resized in float by antialiased bilinear interpolation.
        """
        x = images.float()
        if tuple(x.shape[2:]) != self.size:
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True, align_corners=False)
        return x.contiguous(memory_format=torch.channels_last).div_(127.5).sub_(1)


def as_extractor(network: Classifier, digest: str, device: torch.device, facts: Mapping[str, Any]) -> Extractor:
    """Freeze the trained network on `device`, and return it as an extractor."""
    network = network.to(device).eval().requires_grad_(False)

    def compute(images: Tensor, layers: tuple[str, ...]) -> LayerTensors:
        with exact(device):
            found = dict(zip((FEATURES, LOGITS), network(network.normalised(images)), strict=True))
        return {layer: found[layer] for layer in layers}

    resize = f"antialiased bilinear to {network.size[0]}x{network.size[1]}, in float"
    return Extractor(CLASSIFIER, digest, None, LAYERS, resize, device, compute, facts)


def exact(device: torch.device) -> AbstractContextManager[None]:
    """Make convolutions deterministic and fp32, because TF32, the default of cuDNN, keeps only three digits."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


def known_images(size: tuple[int, int]) -> Tensor:
    """Return two images from integer arithmetic, noise and a ramp, 1.5 times `size`: uint8 (2, 3, H, W).

    Their features show whether weights, resizing and arithmetic are the same as when the classifier was trained.
    """
    height, width = (side + side // 2 + 1 for side in size)
    positions = torch.arange(3 * height * width)
    noise = (positions * 2654435761 % 4294967296).bitwise_right_shift(13) % 256
    slope = (positions % width) * 255 // width
    return torch.stack([noise, slope]).to(torch.uint8).reshape(2, 3, height, width)


def _recipe(shape: tuple[int, ...], classes: int) -> dict[str, Any]:
    """Return everything except the images that the weights depend on."""
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
    """Train a network on `device`; return it with its facts.

    `accuracy` is that on the held-out images, or None without any; `chance` is that of always predicting the most
    frequent class; `trained_on` is the number of distinct images.
    """
    seed, steps, batch = recipe["seed"], recipe["steps"], recipe["batch"]
    split = torch.randperm(len(images), generator=generator(seed, "classifier-split")).numpy()
    held, train = split[: recipe["held_out"]], split[recipe["held_out"] :]
    passes = range(math.ceil(steps * batch / len(train)))
    orders = (torch.randperm(len(train), generator=generator(seed, "classifier-order", i)) for i in passes)
    order = train[torch.cat(list(orders))[: steps * batch].numpy()]
    # The caller may be in inference mode and under autocast, for example during training.
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
    """Return the learning rate: linear up to the peak, then half a cosine down to 0."""
    peak, warm_up = float(recipe["rate"]), float(recipe["warm_up"])
    if done < warm_up:
        return peak * (done / warm_up * 0.95 + 0.05)
    return peak * 0.5 * (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up)))


def _batch(images: Images, labels: Labels, chosen: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the chosen images, uint8 (n, 3, H, W), and their labels (n,), in the order of the file."""
    chosen = np.sort(chosen)
    return three_channels(images[chosen]).to(device), torch.from_numpy(labels[chosen]).to(device)


@torch.inference_mode()
def _accuracy(
    network: Classifier, images: Images, labels: Labels, held: NDArray[np.int64], device: torch.device
) -> float | None:
    """Return the accuracy on the held-out images; None without any."""
    if not len(held):
        return None
    right = 0
    with no_autocast(torch.empty(0, device=device)), exact(device):
        for start in range(0, len(held), _BATCH):
            x, y = _batch(images, labels, held[start : start + _BATCH], device)
            right += int((network(network.normalised(x))[1].argmax(1) == y).sum())
    return right / len(held)


def _judge(about: Mapping[str, Any], notify: Callable[[str], None]) -> None:
    """Warn if the accuracy is below both twice chance and halfway from chance to perfect."""
    accuracy, chance, held_out = about["accuracy"], about["chance"], about["recipe"]["held_out"]
    if accuracy is None:
        notify("--extractor classifier: its accuracy is unknown, because there are too few images to hold any out")
    elif accuracy < min(2 * chance, (1 + chance) / 2):
        notify(
            f"--extractor classifier: its accuracy on {held_out:,} held-out images is only {accuracy:.1%} (always "
            f"predicting the most frequent class gives {chance:.1%}): its scores mean little; use another --extractor"
        )


def _stages(size: tuple[int, int], widths: tuple[int, ...]) -> list[nn.Module]:
    """Return convolution, norm and ReLU for each width; a stage halves the sides that are longer than `_FLOOR`."""
    layers: list[nn.Module] = []
    before, sides = 3, size
    for width in widths:
        stride = (2 if sides[0] > _FLOOR else 1, 2 if sides[1] > _FLOOR else 1)
        sides = (-(-sides[0] // stride[0]), -(-sides[1] // stride[1]))
        layers += [
            nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
        before = width
    return layers


def _save(work: Path, network: Classifier, recipe: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write both files into the directory `work`.

    Raises:
        SaganError: weights that are not finite.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    if not all(bool(value.isfinite().all()) for value in state.values()):
        raise SaganError("--extractor classifier: training diverged on these images; use another --extractor")
    write_tensors(state, work / MODEL)
    device = next(network.parameters()).device
    known = as_extractor(network, "", device, {})(known_images(network.size), (FEATURES,))[FEATURES]
    facts = {
        "format": FORMAT, "sagan": __version__, **about, "recipe": dict(recipe), "sha256": sha256_of(work / MODEL),
        "versions": {"python": platform.python_version(), "torch": torch.__version__}, "known": known.tolist(),
    }  # fmt: skip
    (work / FACTS).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _load(
    path: Path, recipe: Mapping[str, Any], notify: Callable[[str], None]
) -> tuple[Classifier, dict[str, Any]] | None:
    """Read the network, on the CPU, and classifier.json; None if absent. Damaged files are reported and removed."""
    if not path.is_dir():
        return None
    try:
        about = json.loads((path / FACTS).read_text(encoding="utf-8"))
        if about["sha256"] != sha256_of(path / MODEL):
            raise ValueError(f"the sha256 of {MODEL} is not the one in {FACTS}")
        network = Classifier(tuple(recipe["size"]), recipe["classes"])
        with utf8_name(path / MODEL) as file:
            network.load_state_dict(load_file(file))
        absent = {"accuracy", "chance", "trained_on", "known", "recipe"} - set(about)
        if absent:
            raise ValueError(f"{FACTS} lacks {', '.join(sorted(absent))}")
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as e:
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        notify(f"{path}: this classifier is damaged and is trained again ({reason})")
        discard(path)
        return None
    return network, about


def _verify(path: Path, measured: Tensor, stored: list[list[float]]) -> None:
    """Check that this machine computes the same features as the one that trained the classifier.

    Raises:
        SaganError: it does not; the message names the directory.
    """
    known = torch.tensor(stored, dtype=torch.float32)
    off = (
        float(((measured - known).norm(dim=1) / known.norm(dim=1)).max()) if known.shape == measured.shape else math.nan
    )
    if not off <= TOLERANCE:
        raise SaganError(
            f"{path}: features of known images differ from the stored ones on this machine (relative difference "
            f"{off:.1g}, allowed {TOLERANCE:g}): delete this folder to train the classifier here"
        )


def _prepare(folder: Path) -> None:
    """Check before training that the folder can be written, and remove files that killed processes left.

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
