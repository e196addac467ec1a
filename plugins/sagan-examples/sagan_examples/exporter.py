"""The export format `npz`: the generator's weights as NumPy arrays by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sagan_cli.contracts import Exporter


def _write(trained: Any, path: Path, *, notify: Callable[[str], None]) -> None:
    import numpy as np

    weights = {name: tensor.cpu().numpy() for name, tensor in trained.generator.state_dict().items()}
    np.savez(path, **weights)
    with np.load(path, allow_pickle=False) as read:
        assert all(np.array_equal(read[name], weights[name]) for name in weights)
    notify(f"{len(weights)} arrays written and read back")


NPZ = Exporter(
    "Weights as NumPy arrays by name, without the network.",
    default_name="weights.npz",
    write=_write,
    loading='```python\nimport numpy as np\n\nweights = np.load("{file}")\n```',
)
