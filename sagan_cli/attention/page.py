"""The interactive page: one HTML file with images, maps and scripts, which makes no network requests."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sagan_cli.attention import page_data, plotting
from sagan_cli.attention.attention_data import AttentionData, LayerAttention
from sagan_cli.errors import SaganError

BUDGET = 3_000_000
"""Limit of a page in bytes: small enough for an e-mail."""
IMAGES_SHARE = 0.35
"""Share of the budget for images; beyond it they are compressed with loss."""
ANY_SIDE = 1 << 30
SCRIPTS = ("decode.js", "draw.js", "script.js")


def page(checkpoints: Sequence[AttentionData], *, title: str, budget: int = BUDGET) -> bytes:
    """Return an HTML file that shows the map of any position of any image.

    To meet the budget, first the precision of the maps is reduced, then their grids; the page shows which. Equal input
    gives equal bytes.

    Args:
        checkpoints: in the order of training, with the same latents or images and the same layers.
        title: plain text.
        budget: limit in bytes.

    Raises:
        SaganError: no image or layer, a map that is not a probability, or too many images for the budget.
        ValueError: checkpoints with different images or layers.
    """
    _check(checkpoints)
    assets = {name: _asset(name) for name in ("template.html", "style.css", *SCRIPTS)}
    script = "".join(assets[name] for name in SCRIPTS)
    images = _images(checkpoints, int(IMAGES_SHARE * budget))
    html_and_css = assets["template.html"], assets["style.css"]
    frame = _page(*html_and_css, script, title, _content(checkpoints, title, images, None))
    punctuation = 8 * sum(len(data.layers) * len(data.captions) for data in checkpoints)
    packed = page_data.pack(checkpoints, budget - len(frame) - punctuation)
    if packed is None:
        raise SaganError(
            f"{len(checkpoints[0].captions)} images at {_counted(len(checkpoints), 'checkpoint')} do not fit into a "
            f"page of {budget / 1e6:.1f} MB: show fewer (-n) or fewer steps"
        )
    return _page(*html_and_css, script, title, _content(checkpoints, title, images, packed))


def _check(checkpoints: Sequence[AttentionData]) -> None:
    if not checkpoints or not checkpoints[0].layers or not len(checkpoints[0].images):
        raise SaganError("there is no attention to show: no image, or no attention layer")
    first = checkpoints[0]
    for data in checkpoints[1:]:
        if [_form(x) for x in data.layers] != [_form(x) for x in first.layers]:
            raise ValueError("checkpoints of one page must have the same layers")
        if data.captions != first.captions or data.images.shape[:3] != first.images.shape[:3]:
            raise ValueError("checkpoints of one page must have the same images")


def _form(layer: LayerAttention) -> tuple[object, ...]:
    return layer.network, layer.name, layer.query_grid, layer.key_grid, layer.maps.shape


def _content(
    checkpoints: Sequence[AttentionData],
    title: str,
    images: tuple[list[str], list[list[int]]],
    packed: page_data.Packed | None,
) -> dict[str, Any]:
    """Return the JSON that the page's script reads; without maps if `packed` is None."""
    detail = packed.detail if packed else page_data.DETAILS[0]
    return {
        "title": title,
        "size": list(checkpoints[0].size),
        "captions": list(checkpoints[0].captions),
        "images": images[0],
        "levels": detail.levels,
        "scale": plotting.table().ravel().tolist(),
        "dots": [[c, plotting.readable_on(c)] for c in plotting.QUERY_COLOURS],
        "layers": [_layer(layer, detail) for layer in checkpoints[0].layers],
        "checkpoints": [
            {
                "step": data.step,
                "images": images[1][i],
                "layers": [
                    {
                        "gamma": _number(layer.gamma),
                        "strength": [_number(v) for v in layer.strength],
                        "idle": layer.idle,
                        "maps": packed.texts[i][j] if packed else [],
                    }
                    for j, layer in enumerate(data.layers)
                ],
            }
            for i, data in enumerate(checkpoints)
        ],
    }


def _layer(layer: LayerAttention, detail: page_data.Detail) -> dict[str, Any]:
    query_side, key_side = page_data.groups(layer, detail)
    return {
        "network": layer.network,
        "name": layer.name,
        "queries": [n // query_side for n in layer.query_grid],
        "keys": [n // key_side for n in layer.key_grid],
        "groups": [query_side, key_side],
    }


def _number(value: float | None) -> float | None:
    """Round to six significant digits; None for values that JSON lacks."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _images(checkpoints: Sequence[AttentionData], budget: int) -> tuple[list[str], list[list[int]]]:
    """Return the distinct images as data URIs, and their indices for each checkpoint; compressed only if necessary."""
    tries = ((ANY_SIDE, None), (ANY_SIDE, 92), (256, 88), (128, 85), (64, 80))
    for longest, quality in tries:
        uris: dict[str, int] = {}
        indices = [
            [uris.setdefault(_uri(image, longest, quality), len(uris)) for image in data.images] for data in checkpoints
        ]
        if sum(map(len, uris)) <= budget:
            break
    return list(uris), indices


def _uri(pixels: NDArray[np.uint8], longest: int, quality: int | None) -> str:
    """Encode as PNG, or with `quality` as JPEG on white; shrunk to at most `longest` pixels a side."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    if quality is None:
        image.save(out, "PNG", optimize=True)
        return _data("image/png", out.getvalue())
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    image.save(out, "JPEG", quality=quality, subsampling=0)
    return _data("image/jpeg", out.getvalue())


def _data(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _page(template: str, style: str, script: str, title: str, content: Mapping[str, Any]) -> bytes:
    """Fill in the template in one pass, so that inserted text is never taken for a placeholder."""
    data = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    parts = {
        "title": html.escape(title),
        "style": style,
        "script": script,
        # In a script element only `</script` and `<!--` have a meaning; both begin with this character.
        "data": data.replace("<", "\\u003c"),
        "policy": f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'",
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda m: parts[m[1]], template).encode("utf-8")


def _digest(text: str) -> str:
    """Return the hash by which a Content-Security-Policy allows one inline text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}"


def _asset(name: str) -> str:
    return (resources.files("sagan_cli.attention") / "page" / name).read_text(encoding="utf-8")


def _counted(n: int, thing: str) -> str:
    return f"{n} {thing}" + ("s" if n != 1 else "")
