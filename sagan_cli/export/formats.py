"""The built-in export formats, one row each, and the choice of format and file names. No torch at import."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sagan_cli.contracts import Exporter
from sagan_cli.errors import PluginError, UsageError, closest
from sagan_cli.plugins import registry

if TYPE_CHECKING:
    from sagan_cli.export.trained_model import Check, TrainedModel

CARD = "README.md"
Notify = Callable[[str], None]

_PYTHON = """`pip install sagan-cli`{fetch}, then

```python
import torch
import sagan_cli

g = sagan_cli.load_generator("{{file}}")
images = g.draw(range(16))  # uint8 (16, H, W, C)
z = torch.randn(4, {{latent}})
x = g({{call}})  # (4, C, H, W) in [-1, 1]
```

```sh
sagan sample {{file}} -n 16 --out grid.png
```"""


def _safetensors(model: TrainedModel, path: Path, *, notify: Notify) -> Check:
    from sagan_cli.export.single_file import to_bytes, verify

    data = to_bytes(model)
    check = verify(data, model)
    path.write_bytes(data)
    return check


def _onnx(model: TrainedModel, path: Path, *, notify: Notify, attention: bool) -> Check:
    from sagan_cli.export.onnx import write_onnx

    return write_onnx(model, path, attention=attention, notify=notify, script=False)


def _onnx_script(path: Path, notify: Notify) -> None:
    from sagan_cli.export.onnx import write_script

    write_script(path, notify)


def _pt2(model: TrainedModel, path: Path, *, notify: Notify) -> Check:
    from sagan_cli.export.program import write_pt2

    return write_pt2(model, path, notify=notify)


def _hf(model: TrainedModel, path: Path, *, notify: Notify, push: str | None) -> Check:
    from sagan_cli.export.hub import write_hub

    path.mkdir()
    return write_hub(model, path, name=path.name, notify=notify)


def _web(model: TrainedModel, path: Path, *, notify: Notify, runtime: Path | None) -> Check:
    from sagan_cli.export.web import write_web

    return write_web(model, path, runtime=runtime, notify=notify)


SAFETENSORS = Exporter(
    "One file: weights and, in its header, everything needed to rebuild the network.",
    default_name="model.safetensors",
    write=_safetensors,
    loading=_PYTHON.format(fetch=""),
)
HF = Exporter(
    "`model.safetensors` holds weights and, in its header, everything needed to rebuild the network.",
    default_name="model-hf",
    write=_hf,
    loading=_PYTHON.format(fetch=", `hf download user/name --local-dir {file}`"),
    options=("push",),
    own_card=True,
)
ONNX = Exporter(
    "One ONNX file that needs neither PyTorch nor sagan.",
    default_name="model.onnx",
    write=_onnx,
    loading="""```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
x = session.run(["image"], {feed})[0]  # (4, C, H, W) in [-1, 1]
```""",
    options=("attention",),
    beside=_onnx_script,
)
PT2 = Exporter(
    "A `torch.export` program, which PyTorch runs without sagan.",
    default_name="model.pt2",
    write=_pt2,
    loading="""```python
import torch

g = torch.export.load("{file}").module()
z = torch.randn(4, {latent})
(x,) = g({call})  # (4, C, H, W) in [-1, 1]
```

`torch.export.load` may run code of the file it reads: load only files whose source you trust.""",
)
WEB = Exporter(
    "A page that draws images in the visitor's browser, by onnxruntime-web.",
    default_name="model-web",
    write=_web,
    loading="""```sh
python -m http.server --directory {file}  # then open http://localhost:8000
```""",
    options=("runtime",),
)


def exporter(name: str) -> Exporter:
    """Return the export format of a name.

    Raises:
        UsageError: an unknown name.
        PluginError: a plugin's format that cannot be loaded.
    """
    found: Exporter = registry.load("exporters", name)
    return found


def _endings() -> dict[str, str]:
    """Return format -> file name ending, "" for a folder; formats that cannot be loaded are left out."""
    found: dict[str, str] = {}
    for entry in registry.entries("exporters"):
        try:
            row: Exporter = registry.load_entry(entry)
        except PluginError:
            continue
        found.setdefault(entry.name, Path(row.default_name).suffix)
    return found


def format_of(out: str | None, given: str | None) -> str:
    """Return the format that `--out` and `--format` mean.

    Raises:
        UsageError: they contradict each other, or leave it open.
    """
    known = registry.names("exporters")
    if given is not None and given not in known:
        raise UsageError(f"--format {given}: choose one of {', '.join(known)}{closest(given, known)}")
    if out is None or out == "-":
        found = given or "safetensors"
        if out == "-" and exporter(found).folder:
            raise UsageError(f"--format {found} is a folder, which cannot go to stdout: name one with --out")
        return found
    suffix = "" if out.endswith("/") else Path(out).suffix.lower()
    endings = _endings()
    by_suffix = next((name for name, ending in endings.items() if ending and ending == suffix), None)
    if given is None:
        if by_suffix is None:
            files = ", ".join(ending for ending in endings.values() if ending)
            folders = " or ".join(name for name, ending in endings.items() if not ending)
            raise UsageError(f"--out {out}: add --format {folders} for a folder, or end it in one of {files}")
        return by_suffix
    if by_suffix not in (None, given):
        raise UsageError(f"--format {given} contradicts --out {out}")
    return given


def refuse_existing(out: Path, format_: str, force: bool) -> None:
    """Refuse to replace anything without `force`, and to replace a folder by a file or a file by a folder.

    Raises:
        UsageError: naming what is there.
    """
    if exporter(format_).folder:
        if out.exists() and not out.is_dir():
            raise UsageError(f"--out {out}: is a file, and --format {format_} makes a folder")
        if out.is_dir() and any(out.iterdir()) and not force:
            raise UsageError(f"--out {out}: exists and is not empty; --force replaces its files")
        return
    if out.is_dir():
        raise UsageError(f"--out {out}: is a directory; name a file in it")
    for path in (out, card_beside(out)):
        if path.exists() and not force:
            raise UsageError(f"--out {out}: {path} exists already; --force replaces it")


def card_beside(out: Path) -> Path:
    """Return the path of a file's model card: `model.onnx.md` for `model.onnx`."""
    return out.with_name(f"{out.name}.md")
