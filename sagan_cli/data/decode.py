"""One picture file to pixels: whatever mode, depth or rotation it was saved with, uint8 comes out or BadImage."""

from __future__ import annotations

import importlib
import struct
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sagan_cli.errors import BadImage

Pixels = NDArray[np.uint8]

SUFFIXES = frozenset({
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
    ".tga", ".jp2", ".avif",
})  # fmt: skip
"""What counts as a picture in a folder or archive, in lower case; other files are ignored."""

MAX_PIXELS = 89_478_485
"""Larger pictures are refused by their header, before a decoder allocates for them (Pillow's own warning line)."""

# Pillow would try every format it knows whatever the file is called, and some of those start other programs
# (EPS runs Ghostscript). Only these are ever opened.
_PLUGINS = ("Png", "Jpeg", "Mpo", "WebP", "Bmp", "Gif", "Tiff", "Ppm", "Tga", "Jpeg2K", "Avif")
_WANTED = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "TGA", "JPEG2000", "AVIF")

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _formats() -> tuple[str, ...]:
    for name in _PLUGINS:
        try:
            importlib.import_module(f"PIL.{name}ImagePlugin")
        except ImportError:  # an older Pillow without this format: its files are then "not a picture"
            continue
    return tuple(name for name in _WANTED if name in Image.OPEN)


_FORMATS = _formats()


def is_picture(name: str) -> bool:
    """Whether a file of this name is taken for a picture; letter case does not matter."""
    return name[name.rfind(".") :].lower() in SUFFIXES


def decode(source: Path | IO[bytes]) -> Pixels:
    """`decode_image` as an array: uint8 (H, W) for gray, (H, W, 3) for colour, (H, W, 4) where there is transparency.

    Raises:
        BadImage: as `decode_image`.
    """
    return np.asarray(decode_image(source))


def decode_image(source: Path | IO[bytes]) -> Image.Image:
    """The first frame, upright, in mode L, RGB, or RGBA where there is transparency.

    16 bits are divided by 257, never clipped. Palettes are expanded, CMYK and its relatives converted to RGB. An
    embedded colour profile is not applied.

    Raises:
        BadImage: with the reason in a few words: empty, truncated, not a picture, too large.
    """
    try:
        with warnings.catch_warnings():
            # Remarks about odd metadata concern nobody here; a picture of bomb size is refused.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source, formats=_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise BadImage(f"too large: {image.width}x{image.height} pixels")
                image.load()
                return _plain(_upright(image))
    except BadImage:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as e:
        raise BadImage("too large: more pixels than any picture to train on has") from e
    except UnidentifiedImageError as e:
        raise BadImage("empty file" if _is_empty(source) else "not a picture that can be read") from e
    except MemoryError as e:
        raise BadImage("needs more memory than there is") from e
    # Decoders answer damaged files with almost any exception (struct.error, KeyError, OverflowError, ...); whichever
    # it is, the fact is the same and is counted and listed by the caller.
    except Exception as e:
        raise BadImage(_reason(e)) from e


def _upright(image: Image.Image) -> Image.Image:
    """Undo the camera's rotation. Pillow's own exif_transpose also rewrites the tags, and fails on odd ones."""
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except (SyntaxError, ValueError, KeyError, TypeError, OSError, struct.error):
        turn = None  # tags that cannot be read say nothing of rotation: the picture is taken as it lies
    return image if turn is None else image.transpose(turn)


def _plain(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray(_from_16_bits(np.asarray(image)))
    if image.mode in ("I", "F"):
        return Image.fromarray(_from_32_bits(np.asarray(image)))
    mode = "RGBA" if image.has_transparency_data else "L" if image.mode in ("1", "L") else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _from_16_bits(values: NDArray[Any]) -> Pixels:
    """0..65535 -> 0..255, rounded: 65535 is 255 x 257."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _from_32_bits(values: NDArray[Any]) -> Pixels:
    """Integers are 16-bit pictures in a wide box; floats say by their largest value what their white is."""
    if not np.isfinite(values).all():
        raise BadImage("holds values that are not numbers")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 65535:
        raise BadImage(f"values from {low:g} to {high:g}: neither 8 nor 16 bits")
    if values.dtype.kind == "i":
        return _from_16_bits(values)
    white = 1.0 if high <= 1 else 255.0 if high <= 255 else 65535.0
    return np.rint(values * (255.0 / white)).astype(np.uint8)


def _is_empty(source: Path | IO[bytes]) -> bool:
    if isinstance(source, Path):
        return source.stat().st_size == 0
    return source.seek(0, 2) == 0


def _reason(error: Exception) -> str:
    """One line, without Pillow's object addresses and without a second path: the caller names the file."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = " ".join(str(error).split()) or type(error).__name__
    return f"truncated: {text}" if "truncated" in text and not text.startswith("truncated") else text
