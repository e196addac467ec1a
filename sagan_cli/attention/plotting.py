"""All use of matplotlib: figures measured in pixels, their colours, and their bytes as PNG, SVG, PDF, GIF or WebP.

Equal input gives equal bytes.
"""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

# Matplotlib warns on stderr of a HOME that it cannot write to and of a slow search for fonts; neither matters here.
_logger = logging.getLogger("matplotlib")
_level = _logger.level
_logger.setLevel(logging.ERROR)
try:
    import matplotlib
    from matplotlib import style
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.patches import Polygon
    from matplotlib.patheffects import Normal, Stroke
    from matplotlib.textpath import text_to_path
finally:
    _logger.setLevel(_level)

INK, MUTED = "#1e2126", "#686e78"

# Okabe and Ito 2008, "Color universal design", without its black; neighbours in this order are far apart.
QUERY_COLOURS = ("#d55e00", "#56b4e9", "#f0e442", "#cc79a7", "#009e73", "#e69f00", "#0072b2")
"""One per query: vermilion, sky blue, yellow, reddish purple, bluish green, orange, blue."""

DPI = 128
"""A power of two: sizes of whole pixels are exact in inches."""
POINT = 72 / DPI
"""Points per pixel."""
FONT = "sans-serif"
"""DejaVu Sans, which matplotlib contains; an SVG also names common fonts for viewers without it."""
FRAME_MS, LAST_FRAME_MS = 600, 2500
_STYLE = {
    "font.family": FONT, "text.color": INK, "text.parse_math": False,
    "svg.fonttype": "none", "svg.hashsalt": "sagan", "pdf.fonttype": 42,
}  # fmt: skip
_UNPRINTABLE = re.compile("[^ -\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Plot:
    """A figure, and what it shows in words for readers who cannot see it."""

    figure: Figure
    title: str
    description: str


@contextmanager
def figure_style() -> Iterator[None]:
    """Set the style of a figure that is made or saved within the block, whatever the user's matplotlibrc sets."""
    with style.context([_STYLE], after_reset=True), _no_glyph_warnings():
        yield


@contextmanager
def _no_glyph_warnings() -> Iterator[None]:
    """PNG and PDF show a box for a character that the font lacks; SVG keeps the character."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+")
        yield


@cache
def _font(size: float) -> FontProperties:
    with figure_style():
        return FontProperties(family=FONT, size=size)


def new_figure(width: int, height: int) -> Figure:
    """Return an empty white figure of a size in pixels."""
    figure = Figure((width / DPI, height / DPI), DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def add_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes at a position in pixels from the top left."""
    across, down = figure.bbox.size
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def add_text(figure: Figure, x: float, y: float, text: str, size: float, colour: str = INK, ha: str = "left") -> None:
    """Add one line of text; y is its baseline, in pixels from the top."""
    across, down = figure.bbox.size
    figure.text(x / across, 1 - y / down, printable(text), fontsize=size * POINT, color=colour, ha=ha)


def printable(text: str) -> str:
    """Replace line breaks and characters that XML cannot hold; a file name may have both."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def text_width(text: str, size: float) -> float:
    """Return the width of a line in pixels."""
    with _no_glyph_warnings():
        return float(text_to_path.get_text_width_height_descent(text, _font(size), False)[0])


def shortened(text: str, size: float, width: float) -> str:
    """Cut a line to a width in pixels."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "...", size) > width:
        text = text[:-1]
    return text.rstrip() + "..."


def wrapped(text: str, size: float, width: float) -> list[str]:
    """Break text into lines of at most `width` pixels, with 4 % to spare for the font of an SVG viewer."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= 0.96 * width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return [shortened(line, size, width) for line in lines]


def add_outline(axes: Axes, corners: ArrayLike, colour: str, width: float, seam: float) -> None:
    """Add a closed line, in data coordinates, with a dark seam on either side that separates it from any image."""
    line = Polygon(np.asarray(corners), fill=False, edgecolor=colour, linewidth=width * POINT, joinstyle="round")
    edge = Stroke(linewidth=(width + 2 * seam) * POINT, foreground="black", alpha=0.5)
    line.set(path_effects=[edge, Normal()], clip_on=False, zorder=2)
    axes.add_patch(line)


def add_markers(axes: Axes, x: ArrayLike, y: ArrayLike, radius: float, colour: str) -> None:
    """Add filled circles with a white and a dark ring, in data coordinates."""
    ring = Stroke(linewidth=3.8 * POINT, foreground="black", alpha=0.8)
    axes.plot(
        x, y, "o", color=colour, markersize=(2 * radius + 1.4) * POINT, markeredgecolor="white",
        markeredgewidth=1.4 * POINT, path_effects=[ring, Normal()], clip_on=False, zorder=3,
    )  # fmt: skip


def encode(plot: Plot, kind: str, about: Mapping[str, Any], *, scale: int = 1) -> bytes:
    """Return a `png`, `svg` or `pdf`.

    Args:
        about: kept in a PNG as text `sagan` (JSON), as `sagan sample` does.
        scale: enlargement of a PNG.
    """
    title, description = printable(plot.title), printable(plot.description)
    metadata: dict[str, Any] = {
        "png": {"Title": title, "Description": description, "sagan": json.dumps(about, sort_keys=True)},
        "svg": {"Title": title, "Description": description, "Date": None},
        "pdf": {"Title": title, "Subject": description, "CreationDate": None},
    }
    out = io.BytesIO()
    with figure_style():
        plot.figure.savefig(out, format=kind, dpi=DPI * scale, metadata=metadata[kind])
    return out.getvalue()


def animation(plots: Sequence[Plot], kind: str) -> bytes:
    """Return a `gif` or `webp` that repeats, one figure a frame, with a longer stop at the last."""
    frames = [Image.open(io.BytesIO(encode(plot, "png", {}))).convert("RGB") for plot in plots]
    size = max(f.width for f in frames), max(f.height for f in frames)
    sheets = [Image.new("RGB", size, "white") for _ in frames]
    for sheet, frame in zip(sheets, frames, strict=True):
        sheet.paste(frame)
    times = [FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS]
    options: dict[str, Any] = {"quality": 90, "method": 4} if kind == "webp" else {"optimize": False}
    out = io.BytesIO()
    sheets[0].save(out, kind.upper(), save_all=True, append_images=sheets[1:], duration=times, loop=0, **options)
    return out.getvalue()


def table() -> NDArray[np.uint8]:
    """Return the colour map, (256, 3)."""
    colours: NDArray[np.uint8] = matplotlib.colormaps["magma"](np.arange(256), bytes=True)[:, :3]
    return colours


def colour_of(share: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Map values in [0, 1] of any shape to colours (..., 3); values outside are clipped."""
    return table()[np.rint(np.clip(share, 0, 1) * 255).astype(np.intp)]


def readable_on(colour: str) -> str:
    """Return the colour of text on `colour`: INK, or white on a dark colour."""
    red, green, blue = (((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour))
    return INK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.3 else "#ffffff"
