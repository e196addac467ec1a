"""What only a CUDA device shows; run with `-m gpu`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from cli import ok
from make_idx import idx_folder
from safetensors.numpy import load_file

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

SMALL = ("--size", 16, "--width", 4, "--latent", 8, "--batch", 8)


def test_a_gpu_run_follows_the_cpu_run(tmp_path: Path) -> None:
    data = idx_folder(tmp_path / "idx")
    runs = {}
    for device in ("cpu", "cuda"):
        args = ("train", "--data", data, *SMALL, "--precision", "fp32", "--steps", 3)
        ok(*args, "--device", device, "--out", device, cwd=tmp_path)
        runs[device] = load_file(tmp_path / device / "checkpoints/00000003/model.safetensors")
    for name, tensor in runs["cpu"].items():
        np.testing.assert_allclose(runs["cuda"][name], tensor, atol=2e-3, err_msg=name)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_resuming_and_sampling(precision: str, tmp_path: Path) -> None:
    data = idx_folder(tmp_path / "idx")
    where = ("--device", "cuda", "--precision", precision, "--out", "run", "--log-every", 1)
    args = ("train", "--data", data, *SMALL, *where)
    ok(*args, "--steps", 2, cwd=tmp_path)
    ok(*args, "--steps", 4, cwd=tmp_path)
    metrics = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [m["step"] for m in metrics] == [1, 2, 3, 4]
    assert all(np.isfinite(m["d_loss"]) for m in metrics)
    ok("sample", "run", "--seeds", "0-9", "--batch", 4, "--out", "ten", "--device", "cuda", cwd=tmp_path)
    ok("sample", "run", "--seeds", "3", "--batch", 4, "--out", "one", "--device", "cuda", cwd=tmp_path)
    assert (tmp_path / "ten/seed000003.png").read_bytes() == (tmp_path / "one/seed000003.png").read_bytes()
