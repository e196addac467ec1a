"""A drawing as pixels: png, pdf, and animations of several drawings."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from sagan_cli.attention.colour import PAPER, readable_on
from sagan_cli.attention.drawing import Dot, Drawing, Frame, Image, Outline, Text

FINE = 4
"""Lines and circles are drawn this many times larger and averaged down; Pillow's own have stairs."""
PRINT = 4
"""Enlargement for paper."""
PRINT_DPI = 300
FRAME_MS, LAST_FRAME_MS = 600, 2500
_ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}


def paint(drawing: Drawing, scale: int = 1) -> Pillow.Image:
    """RGB, `scale` times the plain size."""
    fine = FINE if scale == 1 else 1
    zoom = scale * fine
    sheet = Pillow.new("RGB", (round(drawing.width * zoom), round(drawing.height * zoom)), PAPER)
    pen = ImageDraw.Draw(sheet, "RGBA")
    for mark in drawing.marks:
        if isinstance(mark, Image):
            _image(sheet, mark, zoom)
        elif isinstance(mark, Frame):
            _frame(pen, mark, zoom)
        elif isinstance(mark, Outline):
            _outline(pen, mark, zoom)
        elif isinstance(mark, Dot):
            _dot(pen, mark, zoom)
    if fine > 1:
        sheet = sheet.reduce(fine)
    pen = ImageDraw.Draw(sheet)
    for mark in drawing.marks:  # letters last, at their own size, where they are sharp
        if isinstance(mark, Text):
            _text(pen, mark.x, mark.y, mark.words, mark.size, mark.colour, mark.anchor, scale)
        elif isinstance(mark, Dot) and mark.label:
            _text(pen, *_label(mark), mark.label, mark.radius * 1.5, readable_on(mark.colour), "middle", scale)
    return sheet


def png(drawing: Drawing, about: Mapping[str, Any], scale: int = 1) -> bytes:
    """With `about` as text `sagan`, as `sagan sample` writes it."""
    info = PngInfo()
    info.add_text("sagan", json.dumps(about, sort_keys=True))
    out = io.BytesIO()
    paint(drawing, scale).save(out, "PNG", pnginfo=info, optimize=True)
    return out.getvalue()


def pdf(drawing: Drawing) -> bytes:
    """One page, at 300 pixels an inch."""
    out = io.BytesIO()
    # Without dates, equal figures are equal files.
    paint(drawing, PRINT).save(
        out, "PDF", resolution=PRINT_DPI, quality=95, subsampling=0, title=drawing.title, subject=drawing.about,
        creationDate=None, modDate=None,
    )  # fmt: skip
    return out.getvalue()


def animation(drawings: Sequence[Drawing], kind: str) -> bytes:
    """A `gif` or `webp` that repeats, one drawing a frame, and rests on the last."""
    frames = [paint(drawing) for drawing in drawings]
    size = max(f.width for f in frames), max(f.height for f in frames)
    sheets = [Pillow.new("RGB", size, PAPER) for _ in frames]
    for sheet, frame in zip(sheets, frames, strict=True):
        sheet.paste(frame)
    times = [FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS]
    how: dict[str, Any] = {"quality": 90, "method": 4} if kind == "webp" else {"optimize": False}
    out = io.BytesIO()
    sheets[0].save(out, kind.upper(), save_all=True, append_images=sheets[1:], duration=times, loop=0, **how)
    return out.getvalue()


def width_of(words: str, size: float) -> float:
    """Pixels that a line takes."""
    return float(_font(size).getlength(words))


def _image(sheet: Pillow.Image, mark: Image, zoom: int) -> None:
    box = [round(v * zoom) for v in (mark.left, mark.top, mark.left + mark.width, mark.top + mark.height)]
    stretched = Pillow.fromarray(mark.pixels).resize((box[2] - box[0], box[3] - box[1]), Pillow.Resampling.NEAREST)
    sheet.paste(stretched, (box[0], box[1]))


def _frame(pen: ImageDraw.ImageDraw, mark: Frame, zoom: int) -> None:
    left, top = (mark.left - mark.line) * zoom, (mark.top - mark.line) * zoom
    right = (mark.left + mark.width + mark.line) * zoom - 1
    bottom = (mark.top + mark.height + mark.line) * zoom - 1
    pen.rectangle((left, top, right, bottom), outline=mark.colour, width=round(mark.line * zoom))


def _outline(pen: ImageDraw.ImageDraw, mark: Outline, zoom: int) -> None:
    # Once more through the first two points: the last corner gets its joint.
    way = [(x * zoom, y * zoom) for x, y in (*mark.points, *mark.points[:2])]
    pen.line(way, fill=(0, 0, 0, 130), width=round((mark.line + 2 * mark.seam) * zoom), joint="curve")
    pen.line(way, fill=mark.colour, width=round(mark.line * zoom), joint="curve")


def _dot(pen: ImageDraw.ImageDraw, mark: Dot, zoom: int) -> None:
    for radius, fill in ((mark.radius + 2.2, (0, 0, 0, 150)), (mark.radius + 1.4, PAPER), (mark.radius, mark.colour)):
        r = radius * zoom
        pen.ellipse((mark.x * zoom - r, mark.y * zoom - r, mark.x * zoom + r, mark.y * zoom + r), fill=fill)


def _label(mark: Dot) -> tuple[float, float]:
    return mark.x, mark.y + mark.radius * 0.52


def _text(
    pen: ImageDraw.ImageDraw, x: float, y: float, words: str, size: float, colour: tuple[int, int, int], anchor: str,
    scale: int,
) -> None:  # fmt: skip
    pen.text((x * scale, y * scale), words, colour, _font(size * scale), _ANCHORS[anchor])


def _font(size: float) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "a font with a size is never the bitmap one"
    return font
