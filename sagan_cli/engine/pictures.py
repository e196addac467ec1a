"""uint8 pictures to files: grids, single images, .zip and .npz, streamed."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

GRID_GAP = 2
"""Pixels between the pictures of a grid."""


def grid(pictures: np.ndarray, columns: int | None = None) -> np.ndarray:
    """uint8 (N, H, W, C) -> one picture; as square as can be unless `columns` is given; white gaps."""
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
    """uint8 (H, W, C), C in 1, 3, 4 -> the bytes of a png, jpg or webp file; png carries `about` as text `sagan`."""
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
    """Named files as an uncompressed archive (pictures are compressed already); equal input gives equal bytes."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name), data)


def write_npz(
    target: IO[bytes], batches: Iterator[tuple[np.ndarray, np.ndarray]], count: int, seeds: list[int]
) -> None:
    """`arr_0` uint8 (N, H, W, C), as other evaluators read it, `arr_1` labels and `seeds`; one batch in memory."""
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
