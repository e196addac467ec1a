"""Decode an image file of any mode, depth and rotation to uint8, and fit images to a size."""

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

MAX_PIXELS = 89_478_485
"""Larger images are refused before they are decoded; Pillow's own limit."""

# Pillow ignores the file name and tries all formats, some of which start programs (EPS runs Ghostscript). Only these
# formats are opened.
_PLUGINS = ("Png", "Jpeg", "Mpo", "WebP", "Bmp", "Gif", "Tiff", "Ppm", "Tga", "Jpeg2K", "Avif")
_ALLOWED = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "TGA", "JPEG2000", "AVIF")

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
        except ImportError:  # an older Pillow without this format
            continue
    return tuple(name for name in _ALLOWED if name in Image.OPEN)


_FORMATS = _formats()


def decode(source: Path | IO[bytes]) -> Pixels:
    """Decode to an array: uint8 (H, W) for gray, (H, W, 3) for colour, (H, W, 4) with transparency.

    Raises:
        BadImage: as `decode_image`.
    """
    return np.asarray(decode_image(source))


def decode_image(source: Path | IO[bytes]) -> Image.Image:
    """Decode the first frame, upright, in mode L or RGB, or RGBA with transparency.

    16 bits are divided by 257, not clipped. Palettes are expanded; CMYK and similar modes are converted to RGB. An
    embedded colour profile is not applied.

    Raises:
        BadImage: empty, truncated, not an image, or too large.
    """
    try:
        with warnings.catch_warnings():
            # Warnings about metadata are ignored; images above the size limit are refused.
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
        raise BadImage("too large: more pixels than the limit") from e
    except UnidentifiedImageError as e:
        raise BadImage("empty file" if _is_empty(source) else "not an image that can be read") from e
    except MemoryError as e:
        raise BadImage("needs more memory than there is") from e
    # Decoders raise almost any exception for damaged files (struct.error, KeyError, OverflowError, ...).
    except Exception as e:
        raise BadImage(_reason(e)) from e


def _upright(image: Image.Image) -> Image.Image:
    """Apply the rotation of the EXIF tags; Pillow's exif_transpose fails on unusual tags."""
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except (SyntaxError, ValueError, KeyError, TypeError, OSError, struct.error):
        turn = None  # unreadable tags: no rotation
    return image if turn is None else image.transpose(turn)


def _plain(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray(_from_16_bits(np.asarray(image)))
    if image.mode in ("I", "F"):
        return Image.fromarray(_from_32_bits(np.asarray(image)))
    mode = "RGBA" if image.has_transparency_data else "L" if image.mode in ("1", "L") else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _from_16_bits(values: NDArray[Any]) -> Pixels:
    """Convert 0..65535 to 0..255, rounded: 65535 is 255 x 257."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _from_32_bits(values: NDArray[Any]) -> Pixels:
    """Convert 32-bit integers, which hold 16-bit values, and floats, whose largest value tells their white level."""
    if not np.isfinite(values).all():
        raise BadImage("has values that are not finite")
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
    """Return the reason in one line, without a path; the caller names the file."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = " ".join(str(error).split()) or type(error).__name__
    return f"truncated: {text}" if "truncated" in text and not text.startswith("truncated") else text


FITS = ("crop", "pad", "stretch")

BORDER = 8
"""An image that is smaller by at most this many pixels on each side gets a border and is not enlarged."""


def needs_border(height: int, width: int, to_height: int, to_width: int) -> bool:
    """Return whether "pad" adds a border to an image instead of scaling it."""
    return 0 <= to_height - height <= 2 * BORDER and 0 <= to_width - width <= 2 * BORDER


def is_gray(picture: Pixels | Image.Image) -> bool:
    """Return whether an image has one channel, or equal red, green and blue."""
    if isinstance(picture, Image.Image):
        picture = np.asarray(picture)
    if picture.ndim == 2 or picture.shape[2] == 1:
        return True
    red, green, blue = picture[..., 0], picture[..., 1], picture[..., 2]
    return np.array_equal(red, green) and np.array_equal(red, blue)


def fit(picture: Pixels | Image.Image, height: int, width: int, channels: int, how: str) -> Pixels:
    """Fit uint8 (h, w) or (h, w, 1|3|4), or an image of mode L, RGB or RGBA, to uint8 (height, width, channels).

    Transparency is kept with 4 channels and otherwise blended with white. `how` is one of:

        crop     the largest centred part with the target's aspect ratio, resized
        pad      the whole image, scaled into the target and centred on black (transparent with 4 channels); not scaled
                 if it is smaller by at most `BORDER` pixels on each side
        stretch  the whole image, without keeping its aspect ratio

    Resizing is Lanczos with antialiasing.
    """
    if not isinstance(picture, Image.Image):
        h, w = picture.shape[:2]
        if how == "pad" and channels == 1 and picture.ndim == 2 and needs_border(h, w, height, width):
            return _framed(picture[..., None], height, width)  # the MNIST family, without Pillow
        picture = Image.fromarray(picture[..., 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture)
    image = _in_channels(picture, channels)
    if how == "crop":
        image = _resized(image, width, height, _centre(image.width, image.height, width, height))
    elif how == "stretch":
        image = _resized(image, width, height, (0, 0, image.width, image.height))
    elif not needs_border(image.height, image.width, height, width):
        scale = min(width / image.width, height / image.height)
        inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        image = _resized(image, *inner, (0, 0, image.width, image.height))
    fitted: Pixels = np.asarray(image).reshape(image.height, image.width, channels)
    return _framed(fitted, height, width)


def _in_channels(image: Image.Image, channels: int) -> Image.Image:
    if image.mode == "RGBA" and channels != 4:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    return image if image.mode == mode else image.convert(mode)


def _centre(width: int, height: int, to_width: int, to_height: int) -> tuple[float, float, float, float]:
    """Return the largest centred box with the target's aspect ratio: left, top, right, bottom in pixels, exact."""
    if width * to_height > height * to_width:
        across = height * to_width / to_height
        return (width - across) / 2, 0, (width + across) / 2, height
    down = width * to_height / to_width
    return 0, (height - down) / 2, width, (height + down) / 2


def _resized(image: Image.Image, width: int, height: int, box: tuple[float, float, float, float]) -> Image.Image:
    # Pillow premultiplies alpha, so transparent pixels do not affect their neighbours.
    return image.resize((width, height), Image.Resampling.LANCZOS, box=box)


def _framed(picture: Pixels, height: int, width: int) -> Pixels:
    h, w, channels = picture.shape
    if (h, w) == (height, width):
        return picture
    top, left = (height - h) // 2, (width - w) // 2
    framed: Pixels = np.zeros((height, width, channels), np.uint8)
    framed[top : top + h, left : left + w] = picture
    return framed
