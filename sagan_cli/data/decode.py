"""One image file to pixels: whatever mode, depth or rotation it was saved with, uint8 comes out or BadImage."""

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
"""What counts as an image in a folder or archive, in lower case; other files are ignored."""

MAX_PIXELS = 89_478_485
"""Larger images are refused by their header, before a decoder allocates for them (Pillow's own warning line)."""

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
        except ImportError:  # an older Pillow without this format: its files are then "not an image"
            continue
    return tuple(name for name in _WANTED if name in Image.OPEN)


_FORMATS = _formats()


def is_picture(name: str) -> bool:
    """Whether a file of this name is taken for an image; letter case does not matter."""
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
        BadImage: with the reason in a few words: empty, truncated, not an image, too large.
    """
    try:
        with warnings.catch_warnings():
            # Remarks about odd metadata concern nobody here; an image of bomb size is refused.
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
        raise BadImage("too large: more pixels than any image to train on has") from e
    except UnidentifiedImageError as e:
        raise BadImage("empty file" if _is_empty(source) else "not an image that can be read") from e
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
        turn = None  # tags that cannot be read say nothing of rotation: the image is taken as it lies
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
    """Integers are 16-bit images in a wide box; floats say by their largest value what their white is."""
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


FITS = ("crop", "pad", "stretch")

BORDER = 8
"""An image that lacks at most this many pixels on each side is framed, not enlarged: 28 -> 32 by a border of 2."""


def needs_border(height: int, width: int, to_height: int, to_width: int) -> bool:
    """Whether an image is so little smaller than the target that "pad" frames it unscaled."""
    return 0 <= to_height - height <= 2 * BORDER and 0 <= to_width - width <= 2 * BORDER


def is_gray(picture: Pixels | Image.Image) -> bool:
    """Whether no pixel has a colour: one channel, or equal red, green and blue."""
    if isinstance(picture, Image.Image):
        picture = np.asarray(picture)
    if picture.ndim == 2 or picture.shape[2] == 1:
        return True
    red, green, blue = picture[..., 0], picture[..., 1], picture[..., 2]
    return np.array_equal(red, green) and np.array_equal(red, blue)


def fit(picture: Pixels | Image.Image, height: int, width: int, channels: int, how: str) -> Pixels:
    """uint8 (h, w) or (h, w, 1|3|4), or an image of mode L, RGB or RGBA -> uint8 (height, width, channels).

    Transparency is kept with 4 channels and otherwise laid on white. `how`:

        crop     the largest centred part of the target's aspect, resized
        pad      the whole image, scaled into the target and centred on black (transparent with 4 channels); one that
                 lacks at most `BORDER` pixels a side is not scaled
        stretch  the whole image, its aspect given up

    Resizing is Lanczos with the filter widened when shrinking, so nothing aliases.
    """
    if not isinstance(picture, Image.Image):
        h, w = picture.shape[:2]
        if how == "pad" and channels == 1 and picture.ndim == 2 and needs_border(h, w, height, width):
            return _framed(picture[..., None], height, width)  # the MNIST family: 60,000 detours through Pillow saved
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
    """The largest centred box of the target's aspect: left, top, right, bottom in pixels, fractions allowed."""
    if width * to_height > height * to_width:
        across = height * to_width / to_height
        return (width - across) / 2, 0, (width + across) / 2, height
    down = width * to_height / to_width
    return 0, (height - down) / 2, width, (height + down) / 2


def _resized(image: Image.Image, width: int, height: int, box: tuple[float, float, float, float]) -> Image.Image:
    # Pillow multiplies colours by alpha around the filter, so transparent pixels do not bleed into their neighbours.
    return image.resize((width, height), Image.Resampling.LANCZOS, box=box)


def _framed(picture: Pixels, height: int, width: int) -> Pixels:
    h, w, channels = picture.shape
    if (h, w) == (height, width):
        return picture
    top, left = (height - h) // 2, (width - w) // 2
    framed: Pixels = np.zeros((height, width, channels), np.uint8)
    framed[top : top + h, left : left + w] = picture
    return framed
