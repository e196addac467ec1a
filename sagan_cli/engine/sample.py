"""Draw images from latents; image i depends on its seed and class only, not on the other images of its batch."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor, nn

from sagan_cli.contracts import ModelSpec
from sagan_cli.engine import checkpoint, networks
from sagan_cli.engine.runtime import Runtime
from sagan_cli.errors import CheckpointError, SaganError
from sagan_cli.model.layers import fold_network_
from sagan_cli.ops.randomness import generator, latents_and_labels
from sagan_cli.plugins import registry

DEFAULT_BATCH = 64
CPU_GROUP, CPU_PIXELS = 8, 32 * 32 * 32
"""Images computed together on a CPU: CPU_GROUP, doubled while they have at most CPU_PIXELS pixels in total."""


@dataclass(frozen=True)
class Request:
    """One image: its seed, and its class (None: chosen by the seed)."""

    seed: int
    label: int | None = None


@dataclass(frozen=True)
class Sampler:
    """A generator in evaluation mode, and its origin."""

    generator: nn.Module
    spec: ModelSpec
    class_names: tuple[str, ...]
    facts: checkpoint.Facts
    weights: str
    """`ema` or `raw`."""


def load(path: Path, runtime: Runtime, *, raw: bool = False) -> Sampler:
    """Load the generator of a checkpoint directory: the EMA, or with `raw` the trained weights.

    Raises:
        CheckpointError: damaged, of another format, or its tensors do not fit the architecture.
        UsageError, PluginError: its architecture is not installed.
    """
    facts = checkpoint.read_facts(path)
    prefix = "generator" if raw else "ema"
    tensors = checkpoint.load_tensors(facts, checkpoint.MODEL, (prefix,))
    if facts.arch not in registry.names("architectures"):
        raise CheckpointError(f"{path}: needs architecture '{facts.arch}' of package {facts.arch_package}; install it")
    g = _filled(facts, tensors, prefix)
    return Sampler(ready(g, runtime.device), facts.spec, facts.class_names, facts, "raw" if raw else "ema")


def _filled(facts: checkpoint.Facts, tensors: dict[str, Tensor], prefix: str) -> nn.Module:
    """Return the generator with the weights of `prefix`.

    Built-in architectures are built on the meta device, because initialising weights takes longer than loading them. A
    plugin's constructor may compute with its weights, so it is built normally.
    """
    if registry.find("architectures", facts.arch).builtin:
        with torch.device("meta"):
            g, _ = networks.build(facts.arch, facts.spec)
        checkpoint.load_module(g, tensors, prefix, facts.path, assign=True)
        if not hollow(g):
            return g
    with torch.random.fork_rng(devices=[]):
        g, _ = networks.build(facts.arch, facts.spec)
    checkpoint.load_module(g, tensors, prefix, facts.path)
    return g


def hollow(network: nn.Module) -> bool:
    """Return whether any tensor of the network is still on the meta device: it was in no file."""
    held = (value for m in network.modules() for value in (*vars(m).values(), *m.parameters(False), *m.buffers(False)))
    return any(isinstance(value, Tensor) and value.is_meta for value in held)


def ready(network: nn.Module, device: torch.device) -> nn.Module:
    """Return the generator in evaluation mode, laid out on the device, with its spectral norms folded."""
    return fold_network_(networks.laid_out(network, device).eval().requires_grad_(False))


def latents(requests: Sequence[Request], spec: ModelSpec, truncation: float | None) -> tuple[Tensor, Tensor | None]:
    """Return z (n, latent) and y (n,) or None, each row from its own seed.

    Truncation t maps the normal distribution onto [-t, t] by its distribution function. This is the truncated normal of
    BigGAN's truncation trick without rejection, so an image changes continuously with t.
    """
    drawn = [latents_and_labels(generator(r.seed, "sample"), 1, spec.latent, spec.num_classes) for r in requests]
    z = torch.cat([z for z, _ in drawn])
    if truncation is not None:
        low, high = torch.special.ndtr(torch.tensor([-truncation, truncation], dtype=torch.float64))
        z = torch.special.ndtri(low + torch.special.ndtr(z.double()) * (high - low)).float()
    if not spec.num_classes:
        return z, None
    own = [int(y) for _, y in drawn if y is not None]
    return z, torch.tensor([o if r.label is None else r.label for r, o in zip(requests, own, strict=True)])


def pictures(
    network: nn.Module,
    spec: ModelSpec,
    requests: Sequence[Request],
    runtime: Runtime,
    *,
    truncation: float | None = None,
    batch: int = DEFAULT_BATCH,
    whole: bool = False,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Draw the requests in order, a batch at a time.

    Args:
        whole: compute each batch at once, for a network that normalises by the statistics of its batch.

    Yields:
        uint8 (n, H, W, C) and labels int64 (n,), -1 if the model has no classes.

    Raises:
        SaganError: the generator's output is not finite.
    """
    group = batch if whole else group_of(spec, runtime.device, batch)
    for start in range(0, len(requests), batch):
        part = requests[start : start + batch]
        z, y = latents(part, spec, truncation)
        drawn = [_drawn(network, z[i : i + group], None if y is None else y[i : i + group], group, runtime)
                 for i in range(0, len(part), group)]  # fmt: skip
        yield np.concatenate(drawn), np.full(len(part), -1) if y is None else y.numpy()


def group_of(spec: ModelSpec, device: torch.device, batch: int = DEFAULT_BATCH) -> int:
    """Return how many images the network computes together: a constant for a model on a CPU, `batch` elsewhere.

    The last bits of a convolution depend on the size of its batch, not on the position in it. With a fixed size, padded
    if necessary, image i has the same bits whatever it is drawn with. On a CPU, converting the weights to oneDNN's
    layout at each call costs as much as the convolution of eight small images, so the group is at least eight; groups
    of large images are limited, because a single image is padded to a full group.
    """
    if device.type != "cpu":
        return batch
    group = CPU_GROUP
    while 2 * group <= DEFAULT_BATCH and 2 * group * spec.height * spec.width <= CPU_PIXELS:
        group *= 2  # so that groups fill the usual batch
    return group


def _drawn(network: nn.Module, z: Tensor, y: Tensor | None, group: int, runtime: Runtime) -> np.ndarray:
    """uint8 (n, H, W, C) for n <= group latents, computed as one full group."""
    spare = group - len(z)
    z = F.pad(z, (0, 0, 0, spare)).to(runtime.device)
    y = None if y is None else F.pad(y, (0, spare)).to(runtime.device)
    with torch.inference_mode(), runtime.autocast():
        x = network(z, y)
    if not torch.isfinite(x).all():
        raise SaganError("the generator's output is not a number: its training diverged; use an earlier checkpoint")
    return to_uint8(x)[: group - spare]


def to_uint8(x: Tensor) -> np.ndarray:
    """Convert (N, C, H, W) in [-1, 1] to uint8 (N, H, W, C), rounded to nearest."""
    levels = x.float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).cpu().numpy()


GRID_GAP = 2
"""Pixels between the images of a grid."""


def grid(pictures: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Arrange uint8 (N, H, W, C) in one image with white gaps, nearly square unless `columns` is given."""
    n, h, w, c = pictures.shape
    if n == 1:
        return pictures[0]
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = np.full((rows * (h + GRID_GAP) - GRID_GAP, columns * (w + GRID_GAP) - GRID_GAP, c), 255, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = i // columns * (h + GRID_GAP), i % columns * (w + GRID_GAP)
        sheet[top : top + h, left : left + w] = picture
    return sheet


def encode(picture: np.ndarray, kind: str, about: dict[str, Any] | None = None) -> bytes:
    """Encode uint8 (H, W, C), C in 1, 3, 4, as png, jpg or webp; a png stores `about` in the text field `sagan`."""
    image = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
    out = io.BytesIO()
    if kind == "png":
        info = PngInfo()
        if about:
            info.add_text("sagan", json.dumps(about, sort_keys=True))
        image.save(out, "PNG", pnginfo=info)
    elif kind == "jpg":
        opaque = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image) if image.mode == "RGBA" else image
        (opaque.convert("RGB") if opaque.mode == "RGBA" else opaque).save(out, "JPEG", quality=95, subsampling=0)
    elif kind == "webp":
        image.save(out, "WEBP", lossless=True)
    else:
        raise ValueError(f"no encoder for {kind}")
    return out.getvalue()


def write_zip(target: IO[bytes], files: Iterable[tuple[str, bytes]]) -> None:
    """Write named files to an uncompressed zip archive; equal input gives equal bytes."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name), data)


def write_npz(
    target: IO[bytes], batches: Iterator[tuple[np.ndarray, np.ndarray]], count: int, seeds: list[int]
) -> None:
    """Write `arr_0` uint8 (N, H, W, C), `arr_1` labels and `seeds`, with one batch in memory at a time."""
    labels: list[np.ndarray] = []
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        with archive.open(_entry("arr_0.npy"), "w", force_zip64=True) as member:
            for i, (pictures, ids) in enumerate(batches):
                if i == 0:
                    shape = (count, *pictures.shape[1:])
                    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(member, header)
                member.write(np.ascontiguousarray(pictures).tobytes())
                labels.append(ids)
        for name, values in (("arr_1.npy", np.concatenate(labels)), ("seeds.npy", np.array(seeds))):
            with archive.open(_entry(name), "w") as member:
                np.lib.format.write_array(member, values.astype(np.int64), allow_pickle=False)


def _entry(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(name)
