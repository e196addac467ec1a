"""Export to a web page: the ONNX model, a runtime and the page, in a folder that any web server can serve.

The page connects to no other host; the generator runs in the visitor's browser.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from sagan_cli.engine.attention_maps import attention_layers, record_maps
from sagan_cli.errors import SaganError
from sagan_cli.export.onnx import write_onnx
from sagan_cli.export.portable import SEED_RULE, inputs
from sagan_cli.export.trained_model import Check, TrainedModel, describe, published
from sagan_cli.export.web_runtime import WebRuntime, find_runtime
from sagan_cli.files import replace_folder, temporary_beside

FORMAT = 1
"""Version of model.json; the page refuses another."""
MODEL = "model.onnx"
FACTS = "model.json"
_CHANNELS = (1, 3, 4)
"""Channels that a browser can show."""
_GROUPS, _GROUP, _PROBES = 4, 4, 4
"""Groups of images, images in a group, and random directions of each image, for the order of the latents."""


def write_web(trained: TrainedModel, folder: Path, *, runtime: Path | None, notify: Callable[[str], None]) -> Check:
    """Write `folder` in one step: model.onnx, model.json, the files of the page and of onnxruntime-web.

    Args:
        runtime: an unpacked onnxruntime-web package or its dist folder; None: the cached one, or npm's.
        notify: receives lines for the user.

    Returns:
        The comparison of onnxruntime with PyTorch.

    Raises:
        UsageError: `runtime` is no such folder.
        SaganError: no runtime is available; the architecture cannot be exported; another number of channels; the folder
            cannot be written.
    """
    if trained.spec.channels not in _CHANNELS:
        raise SaganError(
            f"--format web: a browser shows 1, 3 or 4 channels, and this model draws {trained.spec.channels}"
        )
    files = find_runtime(runtime, notify)  # first, because it fails fast
    attention = _attention(trained)
    with temporary_beside(folder) as work:
        page = work / "page"
        page.mkdir()  # with the mode that a web server needs
        check = write_onnx(trained, page / MODEL, attention=bool(attention), notify=notify, script=False)
        for source in resources.files("sagan_cli.export").joinpath("web").iterdir():
            (page / source.name).write_bytes(source.read_bytes())
        files.write(page)
        facts = _facts(trained, attention, files, (page / MODEL).stat().st_size)
        (page / FACTS).write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        replace_folder(page, folder)
    return check


def _attention(trained: TrainedModel) -> list[dict[str, Any]]:
    """Return name, ONNX output and grids of each attention layer in forward order; empty without attention maps."""
    try:
        attention_layers(trained.generator)
    except SaganError:
        return []
    given = inputs(trained, 1)
    with torch.inference_mode(), record_maps(trained.generator) as found:
        trained.generator(given[0], given[1] if len(given) > 1 else None)
    return [
        {"name": name, "output": f"attention_{name}", "query_grid": maps.query_grid, "key_grid": maps.key_grid}
        for name, maps in found.items()
    ]


def _order(trained: TrainedModel) -> list[int]:
    """Return the indices of the latent vector, largest effect on the image first.

    The effect is the mean squared derivative of all pixels, the diagonal of E[J^T J], estimated by products of J^T with
    random vectors (Hutchinson 1989). 64 products find the largest twelve of a trained model.
    """
    given = inputs(trained, _GROUPS * _GROUP)
    generator = copy.deepcopy(trained.generator)  # its caches were made in inference mode
    rng = torch.Generator().manual_seed(0)
    slope = torch.zeros(trained.spec.latent)
    for start in range(0, _GROUPS * _GROUP, _GROUP):
        part = slice(start, start + _GROUP)
        z = given[0][part].clone().requires_grad_()
        with torch.enable_grad():
            x = generator(z, given[1][part] if len(given) > 1 else None)
        if not x.requires_grad:  # the generator may not be differentiable
            return list(range(trained.spec.latent))
        for left in range(_PROBES, 0, -1):
            (product,) = torch.autograd.grad(x, z, torch.randn(x.shape, generator=rng), retain_graph=left > 1)
            slope += product.square().sum(0)
    return [int(i) for i in slope.argsort(descending=True, stable=True)]


def _facts(trained: TrainedModel, attention: list[dict[str, Any]], runtime: WebRuntime, size: int) -> dict[str, Any]:
    """Return model.json: what the page uses and shows."""
    generator = describe(published(trained))
    spec, data = trained.spec, generator["data"]
    source = str(data["source"]).rstrip("/")
    kind = "moving average of the weights" if trained.weights == "ema" else "trained weights"
    return {
        "format": FORMAT,
        "title": f"{trained.arch} · {source}",
        "about": f"{spec.width} × {spec.height} pixels, trained on {data['count']:,} images "
        f"in {trained.step:,} steps ({kind}).",
        "height": spec.height,
        "width": spec.width,
        "channels": spec.channels,
        "latent": spec.latent,
        "latent_order": _order(trained),
        "num_classes": spec.num_classes,
        "class_names": list(trained.class_names) or [str(i) for i in range(spec.num_classes)],
        "attention": attention,
        "model": {"file": MODEL, "bytes": size},
        "runtime": runtime.facts(),
        "seed_rule": SEED_RULE,
        "generator": generator,
    }
