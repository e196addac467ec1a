"""Pictures from a generator that `sagan export --format onnx` wrote: onnxruntime and numpy draw them, nothing else.

    python draw.py model.onnx --seeds 0-15 --out grid.png

The images are those of `sagan sample --seeds 0-15` (to one level of 255), because an image is a function of its seed.
The file needs no other file of sagan; as a module it has `Model`, `latents` and `draw`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

BATCH = 8
"""Images computed together."""
GAP = 2
"""White pixels between the images of a grid."""
FORMAT = 1
"""Version of the model's metadata."""


class Words:
    """The 32-bit words of PyTorch's CPU generator: Mersenne Twister 19937, seeded with the low half of the seed.

    NumPy's RandomState is the same generator, and its stream is guaranteed not to change.
    """

    def __init__(self, seed: int) -> None:
        self._engine = np.random.RandomState(seed & 0xFFFFFFFF)

    def take(self, count: int) -> np.ndarray:
        """uint32 (count,)."""
        return self._engine.randint(0, 2**32, count, dtype=np.uint32)

    def uniform_doubles(self, count: int) -> np.ndarray:
        """float64 (count,) in [0, 1), 53 bits of two words each, the first word high."""
        words = self.take(2 * count).astype(np.uint64).reshape(-1, 2)
        return ((words[:, 0] << np.uint64(32) | words[:, 1]) & np.uint64(2**53 - 1)) * 2.0**-53

    def uniform_floats(self, count: int) -> np.ndarray:
        """float32 (count,) in [0, 1), 24 bits of one word each."""
        return (self.take(count) & np.uint32(0xFFFFFF)).astype(np.float32) * np.float32(2**-24)

    def normal(self, count: int) -> np.ndarray:
        """Return float32 (count,) ~ N(0, 1), as torch.randn(count) on a CPU.

        Below 16 numbers, the bits are equal. From 16 up, PyTorch computes in float32 with vector instructions, whose
        logarithm and sine have an error in the last bit: equal to within 5e-7.
        """
        if count < 16:
            return self._normal_pairs(count)
        out = self.uniform_floats(count)
        whole = count - count % 16
        out[:whole] = _box_muller(out[:whole])
        if count % 16:  # PyTorch draws the last sixteen again
            out[-16:] = _box_muller(self.uniform_floats(16))
        return out

    def _normal_pairs(self, count: int) -> np.ndarray:
        u = self.uniform_doubles(2 * math.ceil(count / 2)).reshape(-1, 2)
        radius, angle = np.sqrt(-2 * np.log1p(-u[:, 1])), 2 * np.pi * u[:, 0]
        pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        return pairs.reshape(-1)[:count].astype(np.float32)

    def below(self, limit: int) -> int:
        """Return an integer from 0 to limit - 1, as torch.randint for limits under 2^28."""
        return int(self.take(1)[0]) % limit


def _box_muller(u: np.ndarray) -> np.ndarray:
    """Convert float32 (16 k,) from uniform to normal: in each sixteen, numbers j and j + 8 are a pair."""
    u = u.reshape(-1, 2, 8)
    # Rounded to float32 where PyTorch rounds.
    radius = np.sqrt(np.float32(-2) * np.log((np.float32(1) - u[:, 0]).astype(np.float64)).astype(np.float32))
    angle = (np.float32(2 * np.pi) * u[:, 1]).astype(np.float64)
    pairs = np.stack([radius * np.cos(angle).astype(np.float32), radius * np.sin(angle).astype(np.float32)], axis=1)
    return pairs.reshape(-1)


def latents(
    seeds: Iterable[int], length: int, num_classes: int, label: int | None = None, truncation: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return z float32 (n, length) and y int64 (n,), each row from its own seed; y is 0 without classes.

    Without a label the seed chooses the class. Truncation t maps the normal distribution onto [-t, t] by its
    distribution function, as `sagan sample --truncation t`.
    """
    z, y = [], []
    for seed in seeds:
        digest = hashlib.blake2b(f"{seed}/sample/0".encode(), digest_size=8).digest()
        words = Words(int.from_bytes(digest, "little") >> 1)
        z.append(words.normal(length))
        own = words.below(num_classes) if num_classes else 0
        y.append(own if label is None else label)
    rows = np.stack(z)
    if truncation is not None:
        low, high = _below(-truncation), _below(truncation)
        inverse = NormalDist().inv_cdf
        flat = [inverse(low + _below(float(x)) * (high - low)) for x in rows.reshape(-1)]
        rows = np.array(flat, np.float32).reshape(rows.shape)
    return rows, np.array(y, np.int64)


def _below(x: float) -> float:
    """Return the value of the normal distribution function."""
    return 0.5 * math.erfc(-x / math.sqrt(2))


class Model:
    """An exported generator in onnxruntime."""

    def __init__(self, path: str | Path) -> None:
        """Raise ValueError for a file that is no exported generator, or of another format."""
        import onnxruntime

        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        text = self.session.get_modelmeta().custom_metadata_map.get("sagan")
        if text is None:
            raise ValueError(f"{path}: not a model that sagan exported")
        self.facts: dict[str, Any] = json.loads(text)
        version = self.facts.get("format")
        if version != FORMAT:
            raise ValueError(f"{path}: has format {version}, and this script reads {FORMAT}")
        self.length: int = self.facts["spec"]["latent"]
        self.num_classes: int = self.facts["spec"]["num_classes"]

    def draw(self, z: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return images uint8 (n, H, W, C) of z float32 (n, latent) and y int64 (n,)."""
        parts = []
        for start in range(0, len(z), BATCH):
            feed = {"latent": z[start : start + BATCH]}
            if self.num_classes:
                feed["class"] = y[start : start + BATCH]
            image = self.session.run(["image"], feed)[0]
            # Rounded half to even, as in PyTorch.
            levels = np.rint((np.clip(image, -1, 1) + np.float32(1)) * np.float32(127.5)).astype(np.uint8)
            parts.append(levels.transpose(0, 2, 3, 1))
        return np.concatenate(parts)


def draw(
    path: str | Path, seeds: Sequence[int], label: int | None = None, truncation: float | None = None
) -> np.ndarray:
    """Return the images of seeds, uint8 (n, H, W, C)."""
    model = Model(path)
    return model.draw(*latents(seeds, model.length, model.num_classes, label, truncation))


def grid(images: np.ndarray) -> np.ndarray:
    """Arrange uint8 (n, H, W, C) in one image (h, w, C), nearly square."""
    n, h, w, c = images.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = np.full((rows * (h + GAP) - GAP, columns * (w + GAP) - GAP, c), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (h + GAP), i % columns * (w + GAP)
        sheet[top : top + h, left : left + w] = image
    return sheet


def png(image: np.ndarray) -> bytes:
    """Encode uint8 (H, W, C), C in 1, 3, 4, as PNG."""
    height, width, channels = image.shape
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    lines = np.zeros((height, 1 + width * channels), np.uint8)  # each line begins with its filter: none
    lines[:, 1:] = image.reshape(height, -1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    body = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Draw images with a generator exported by sagan.")
    parser.add_argument("model", help="the .onnx file")
    parser.add_argument("--seeds", default="0-15", help="exact seeds, as in 0-15,42 (default 0-15)")
    parser.add_argument("--class", dest="label", help="name or index of the class; without it each seed chooses")
    parser.add_argument("--truncation", type=float, help="keep latents within [-T, T]")
    parser.add_argument("--out", default="grid.png", help="a grid as .png, or single images (n, H, W, C) as .npy")
    given = parser.parse_args(words)
    out = Path(given.out)
    if out.suffix not in (".png", ".npy"):
        parser.error(f"--out {out}: name a .png or .npy file")
    if given.truncation is not None and not 0 < given.truncation < math.inf:
        parser.error(f"--truncation {given.truncation}: must be above 0")
    try:
        seeds = _seeds(given.seeds)
        model = Model(given.model)
        label = None if given.label is None else _label(given.label, model.facts["class_names"])
    except Exception as e:  # noqa: BLE001 - onnxruntime's errors have no common base
        parser.error(" ".join(str(e).split()))
    images = model.draw(*latents(seeds, model.length, model.num_classes, label, given.truncation))
    if out.suffix == ".png":
        out.write_bytes(png(grid(images)))
    else:
        np.save(out, images)


def _seeds(text: str) -> list[int]:
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,18})(?:-(\d{1,18}))?\s*", part)
        if not match:
            raise ValueError(f"--seeds {text}: write numbers and ranges, as in 0-15,42")
        seeds.extend(range(int(match[1]), int(match[2] or match[1]) + 1))
    if not seeds:
        raise ValueError(f"--seeds {text}: an empty range")
    return seeds


def _label(text: str, names: list[str]) -> int:
    if text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    raise ValueError(f"--class {text}: not one of {', '.join(names) or 'the classes, of which there are none'}")


if __name__ == "__main__":
    main()
