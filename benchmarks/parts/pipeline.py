"""The data pipeline alone: how many pictures a second are decoded and packed, and how many are read from the pack."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import interleaved, summary, timed, waiting
from PIL import Image

from parts import packing
from sagan_cli.data.batches import Batches
from sagan_cli.data.decode import decode_image, fit
from sagan_cli.data.packing.pack import PackRequest, open_pack
from sagan_cli.data.sources.folders import open_folder

KINDS = (("64x64", (64, 64), 64), ("178x218, as CelebA's", (178, 218), 64), ("500x375, as ImageNet's", (500, 375), 128))
"""Name, width and height of the JPEG files, and the side that they are trained at."""
BATCH = 64
QUICK, WHOLE = (128, 3), (512, 5)
"""Files of each kind, and rounds."""
LINKS = 15
"""Further names of each file while they are packed: so many that starting the workers is little beside it."""


def measure(device: torch.device, quick: bool) -> list[dict[str, Any]]:
    """A row for each kind of file: rates in pictures a second, of one process with one thread but for the last."""
    rows = []
    count, rounds = QUICK if quick else WHOLE
    for name, size, side in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            files = _files(Path(folder) / "pictures", size, count)

            def opened(files: list[Path] = files) -> None:
                for file in files:
                    with Image.open(file) as image:
                        image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)  # noqa: B023

            def ours(files: list[Path] = files) -> None:
                for file in files:
                    fit(decode_image(file), side, side, 3, "crop")  # noqa: B023

            seconds = interleaved({"pillow": timed(opened), "decode": timed(ours)}, rounds, warm=1)
            pack, packing = _pack(Path(folder), side)
            batches = Batches(pack, batch=BATCH, seed=0, flip=False, device=device)
            reading = interleaved({"read": timed(_reader(batches), waiting(device))}, 10 * rounds, warm=5)
            rows.append({
                "files": name, "side": side, "bytes": round(sum(f.stat().st_size for f in files) / count),
                **{k: _rate(count, s) for k, s in seconds.items()},
                "pack_two_processes": float(f"{count / packing:.4g}"), "read": _rate(BATCH, reading["read"]),
            })  # fmt: skip
    return rows


def _rate(count: int, seconds: list[float]) -> dict[str, float]:
    return summary([count / s for s in seconds])


def _files(folder: Path, size: tuple[int, int], count: int) -> list[Path]:
    """JPEG files of quality 90 with detail at all scales, so that they are about as large as photographs."""
    folder.mkdir()
    rng, files = np.random.default_rng(0), []
    for n in range(count):
        layers = [rng.normal(0, 90 / (k + 1), (max(size[1] >> (5 - k), 1), max(size[0] >> (5 - k), 1), 3))
                  for k in range(6)]  # fmt: skip
        scaled = [np.stack([np.asarray(Image.fromarray(layer[..., c].astype(np.float32)).resize(size))
                            for c in range(3)], -1) for layer in layers]  # fmt: skip
        pixels = np.clip(128 + sum(scaled), 0, 255).astype(np.uint8)
        files.append(folder / f"{n:04d}.jpg")
        Image.fromarray(pixels).save(files[-1], quality=90)
    return files


def _pack(folder: Path, side: int) -> tuple[Any, float]:
    """The pack, and the seconds that packing the files once took: each is packed under many names."""
    for file in list((folder / "pictures").iterdir()):
        for n in range(LINKS):
            file.with_stem(f"{file.stem}-{n}").hardlink_to(file)
    command = [sys.executable, packing.__file__, str(folder / "pictures"), str(folder / "cache"), str(side)]
    seconds = float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    dataset = open_folder(folder / "pictures", where="pictures", unconditional=True)
    pack = open_pack(
        dataset, PackRequest(side, side, 3), cache_dir=folder / "cache", max_bad=0.0, workers=1,
        progress=lambda done, total: None, notify=lambda text: None,
    )  # fmt: skip
    if not pack.from_cache:
        raise RuntimeError("the pack that was just made was not found")
    return pack, seconds / (1 + LINKS)


def _reader(batches: Batches) -> Callable[[], Any]:
    update = iter(range(10**9))
    return lambda: batches.at(next(update))
