"""A picture of any shape to the one shape that is packed: channels, crop or border, antialiased resize."""

from __future__ import annotations

import numpy as np
from PIL import Image

from sagan_cli.data.decode import Pixels

FITS = ("crop", "pad", "stretch")

BORDER = 8
"""A picture that lacks at most this many pixels on each side is framed, not enlarged: 28 -> 32 by a border of 2."""


def needs_border(height: int, width: int, to_height: int, to_width: int) -> bool:
    """Whether a picture is so little smaller than the target that "pad" frames it unscaled."""
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
        pad      the whole picture, scaled into the target and centred on black (transparent with 4 channels); one that
                 lacks at most `BORDER` pixels a side is not scaled
        stretch  the whole picture, its aspect given up

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
