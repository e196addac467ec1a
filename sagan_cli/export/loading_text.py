"""The lines of a model card that load the model, for each format; `{...}` are filled in by `export.card`."""

from __future__ import annotations

_PYTHON = """```python
import torch
import sagan_cli

g = sagan_cli.load_generator("{file}")
pictures = g.draw(range(16))  # uint8 (16, H, W, C)
z = torch.randn(4, {latent})
x = g({call})  # (4, C, H, W) in [-1, 1]
```

```sh
sagan sample {file} -n 16 --out grid.png
```"""

HOW_TO_LOAD = {
    "safetensors": "`pip install sagan-cli`, then\n\n" + _PYTHON,
    "hf": "`pip install sagan-cli`, `hf download user/name --local-dir {file}`, then\n\n" + _PYTHON,
    "onnx": """```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
x = session.run(["image"], {feed})[0]  # (4, C, H, W) in [-1, 1]
```""",
    "pt2": """```python
import torch

g = torch.export.load("{file}").module()
z = torch.randn(4, {latent})
(x,) = g({call})  # (4, C, H, W) in [-1, 1]
```

`torch.export.load` may run code of the file it reads: load only files whose source you trust.""",
    "web": """```sh
python -m http.server --directory {file}  # then open http://localhost:8000
```""",
}  # fmt: skip
"""Format -> Markdown."""
