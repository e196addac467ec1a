"""The interactive page: one HTML file that holds pictures, maps and all that shows them, and asks no network."""

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

from sagan_cli.attention import packing, plotting
from sagan_cli.attention.scene import Layer, Scene
from sagan_cli.errors import SaganError

BUDGET = 3_000_000
"""Bytes that a page takes at most: small enough to be mailed."""
PICTURES_SHARE = 0.35
"""Of the budget, what pictures may take before they are kept with loss."""
ANY_SIDE = 1 << 30
SCRIPTS = ("decode.js", "draw.js", "script.js")


def page(scenes: Sequence[Scene], *, title: str, budget: int = BUDGET) -> bytes:
    """One self-contained HTML file that shows, for any position of any picture, where the network looks.

    Maps are kept as finely as the budget lets them: first their precision is reduced, then their grids; the page says
    which. The same scenes give the same bytes.

    Args:
        scenes: one per checkpoint, in the order of training: the same latents or pictures, the same layers.
        title: what the page shows, in plain text.
        budget: bytes that the page takes at most.

    Raises:
        SaganError: nothing to show, a map that is no attention, or too many pictures for the budget.
        ValueError: scenes that do not belong together.
    """
    _check(scenes)
    assets = {name: _asset(name) for name in ("template.html", "style.css", *SCRIPTS)}
    script = "".join(assets[name] for name in SCRIPTS)
    images = _images(scenes, int(PICTURES_SHARE * budget))
    frame = _page(assets["template.html"], assets["style.css"], script, title, _facts(scenes, title, images, None))
    packed = packing.pack(scenes, budget - len(frame) - 8 * sum(len(s.layers) * len(s.captions) for s in scenes))
    if packed is None:
        raise SaganError(
            f"{len(scenes[0].captions)} pictures at {_counted(len(scenes), 'checkpoint')} do not fit into a page of "
            f"{budget / 1e6:.1f} MB: show fewer (-n) or fewer steps"
        )
    facts = _facts(scenes, title, images, packed)
    return _page(assets["template.html"], assets["style.css"], script, title, facts)


def _check(scenes: Sequence[Scene]) -> None:
    if not scenes or not scenes[0].layers or not len(scenes[0].pictures):
        raise SaganError("there is no attention to show: no picture, or no attention layer")
    first = scenes[0]
    for scene in scenes[1:]:
        if [_form(x) for x in scene.layers] != [_form(x) for x in first.layers]:
            raise ValueError("scenes of one page have the same layers")
        if scene.captions != first.captions or scene.pictures.shape[:3] != first.pictures.shape[:3]:
            raise ValueError("scenes of one page have the same pictures")


def _form(layer: Layer) -> tuple[object, ...]:
    return layer.network, layer.name, layer.query_grid, layer.key_grid, layer.maps.shape


def _facts(
    scenes: Sequence[Scene], title: str, images: tuple[list[str], list[list[int]]], packed: packing.Packed | None
) -> dict[str, Any]:
    """All that the page's script reads; without maps when `packed` is None."""
    detail = packed.detail if packed else packing.DETAILS[0]
    return {
        "title": title,
        "size": list(scenes[0].pictures.shape[1:3]),
        "captions": list(scenes[0].captions),
        "images": images[0],
        "levels": detail.levels,
        "scale": plotting.table().ravel().tolist(),
        "dots": [[c, plotting.readable_on(c)] for c in plotting.QUERIES],
        "layers": [_layer_facts(layer, detail) for layer in scenes[0].layers],
        "scenes": [
            {
                "step": scene.step,
                "images": images[1][i],
                "layers": [
                    {
                        "gamma": _number(layer.gamma),
                        "strength": [_number(v) for v in layer.strength],
                        "idle": layer.idle,
                        "maps": packed.texts[i][j] if packed else [],
                    }
                    for j, layer in enumerate(scene.layers)
                ],
            }
            for i, scene in enumerate(scenes)
        ],
    }


def _layer_facts(layer: Layer, detail: packing.Detail) -> dict[str, Any]:
    query_side, key_side = packing.groups(layer, detail)
    return {
        "network": layer.network,
        "name": layer.name,
        "queries": [n // query_side for n in layer.query_grid],
        "keys": [n // key_side for n in layer.key_grid],
        "groups": [query_side, key_side],
    }


def _number(value: float | None) -> float | None:
    """Six significant digits; None for what JSON cannot say."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _images(scenes: Sequence[Scene], budget: int) -> tuple[list[str], list[list[int]]]:
    """The distinct pictures as data URIs, and for each scene which are its own: exact if they fit, else smaller."""
    tries = ((ANY_SIDE, None), (ANY_SIDE, 92), (256, 88), (128, 85), (64, 80))
    for longest, quality in tries:
        uris: dict[str, int] = {}
        places = [
            [uris.setdefault(_uri(picture, longest, quality), len(uris)) for picture in scene.pictures]
            for scene in scenes
        ]
        if sum(map(len, uris)) <= budget:
            break
    return list(uris), places


def _uri(picture: NDArray[np.uint8], longest: int, quality: int | None) -> str:
    """PNG without `quality`; else JPEG, transparency laid on white; shrunk to `longest` pixels a side at most."""
    image = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
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


def _page(template: str, style: str, script: str, title: str, facts: Mapping[str, Any]) -> bytes:
    """The template with its places filled, in one pass: what is put in is never read as a place."""
    data = json.dumps(facts, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    parts = {
        "title": html.escape(title),
        "style": style,
        "script": script,
        # In a script element only `</script` and `<!--` mean something, and both need the first sign.
        "data": data.replace("<", "\\u003c"),
        "policy": f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'",
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda m: parts[m[1]], template).encode("utf-8")


def _digest(text: str) -> str:
    """How a Content-Security-Policy names the one text that it lets run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}"


def _asset(name: str) -> str:
    return (resources.files("sagan_cli.attention") / "page" / name).read_text(encoding="utf-8")


def _counted(n: int, thing: str) -> str:
    return f"{n} {thing}" + ("s" if n != 1 else "")
