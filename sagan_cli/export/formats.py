"""The built-in export formats: one row each; the work is done in the module of the same subject. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sagan_cli.contracts import Exporter

if TYPE_CHECKING:
    from sagan_cli.export.subject import Check, Subject

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


def _safetensors(subject: Subject, path: Path, *, notify: Notify) -> Check:
    from sagan_cli.export.single_file import proven, to_bytes

    data = to_bytes(subject)
    check = proven(data, subject)
    path.write_bytes(data)
    return check


def _onnx(subject: Subject, path: Path, *, notify: Notify, attention: bool) -> Check:
    from sagan_cli.export.onnx import write_onnx

    return write_onnx(subject, path, attention=attention, notify=notify, script=False)


def _onnx_script(path: Path, notify: Notify) -> None:
    from sagan_cli.export.onnx import write_script

    write_script(path, notify)


def _pt2(subject: Subject, path: Path, *, notify: Notify) -> Check:
    from sagan_cli.export.program import write_pt2

    return write_pt2(subject, path, notify=notify)


def _hf(subject: Subject, path: Path, *, notify: Notify, push: str | None) -> Check:
    from sagan_cli.export.hub import write_hub

    path.mkdir()
    return write_hub(subject, path, name=path.name, notify=notify)


def _web(subject: Subject, path: Path, *, notify: Notify, runtime: Path | None) -> Check:
    from sagan_cli.export.web import write_web

    return write_web(subject, path, runtime=runtime, notify=notify)


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
