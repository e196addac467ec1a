"""A drawing as SVG: lines, dots and words as vectors, pictures as embedded PNG files. One file, nothing outside it."""

from __future__ import annotations

import base64
import io
import re
from xml.sax.saxutils import escape

from PIL import Image as Pillow

from sagan_cli.attention.colour import PAPER, Colour, readable_on
from sagan_cli.attention.drawing import Dot, Drawing, Frame, Image, Mark, Outline, Text

_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, not even escaped; a folder's name may have them."""


def svg(drawing: Drawing) -> bytes:
    """UTF-8 text."""
    width, height = _number(drawing.width), _number(drawing.height)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" font-family="Helvetica, Arial, sans-serif">',
        f"<title>{_words(drawing.title)}</title>",
        f"<desc>{_words(drawing.about)}</desc>",
        f'<rect width="100%" height="100%" fill="{_hex(PAPER)}"/>',
        *map(_mark, drawing.marks),
        "</svg>",
    ]
    return ("\n".join(lines) + "\n").encode()


def _mark(mark: Mark) -> str:
    if isinstance(mark, Image):
        # The second property is for renderers that know only the older name.
        return (
            f'<image {_box(mark.left, mark.top, mark.width, mark.height)} preserveAspectRatio="none" '
            f'style="image-rendering:crisp-edges;image-rendering:pixelated" href="{_png(mark)}"/>'
        )
    if isinstance(mark, Frame):
        half = mark.line / 2
        box = _box(mark.left - half, mark.top - half, mark.width + mark.line, mark.height + mark.line)
        return f'<rect {box} fill="none" stroke="{_hex(mark.colour)}" stroke-width="{_number(mark.line)}"/>'
    if isinstance(mark, Outline):
        way = "M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in mark.points) + "Z"
        seam = _number(mark.line + 2 * mark.seam)
        return (
            f'<path d="{way}" fill="none" stroke="#000" stroke-opacity="0.5" stroke-width="{seam}" '
            'stroke-linejoin="round"/>'
            f'<path d="{way}" fill="none" stroke="{_hex(mark.colour)}" stroke-width="{_number(mark.line)}" '
            'stroke-linejoin="round"/>'
        )
    if isinstance(mark, Dot):
        place = f'cx="{_number(mark.x)}" cy="{_number(mark.y)}"'
        number = Text(
            mark.x, mark.y + mark.radius * 0.52, mark.label, mark.radius * 1.5, readable_on(mark.colour), "middle"
        )
        return (
            f'<circle {place} r="{_number(mark.radius + 2.2)}" fill-opacity="0.6"/>'
            f'<circle {place} r="{_number(mark.radius + 0.7)}" fill="{_hex(mark.colour)}" stroke="{_hex(PAPER)}" '
            f'stroke-width="1.4"/>' + (_mark(number) if mark.label else "")
        )
    anchor = "" if mark.anchor == "start" else f' text-anchor="{mark.anchor}"'
    return (
        f'<text x="{_number(mark.x)}" y="{_number(mark.y)}" font-size="{_number(mark.size)}" '
        f'fill="{_hex(mark.colour)}"{anchor}>{_words(mark.words)}</text>'
    )


def _box(left: float, top: float, width: float, height: float) -> str:
    return f'x="{_number(left)}" y="{_number(top)}" width="{_number(width)}" height="{_number(height)}"'


def _png(mark: Image) -> str:
    out = io.BytesIO()
    Pillow.fromarray(mark.pixels).save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def _words(text: str) -> str:
    return escape(_NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text))


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
