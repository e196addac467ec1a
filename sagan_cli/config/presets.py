"""Named recipes: one row each, what is fixed and what to expect. To add a preset, add a row."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "laptop": ("a small network for a CPU: pictures worth looking at within minutes", {
        "model.base_width": 32, "train.batch": 32, "train.steps": 2000,
    }),
    "base": ("the published widths at a batch one GPU holds", {
        "model.base_width": 64, "train.batch": 64, "train.steps": 100_000,
    }),
    "paper": ("ImageNet 128x128 as Zhang et al. 2019 trained it (they report FID 18.28 after 1M steps)", {
        "data.size": "128", "model.base_width": 64, "model.latent": 128, "model.attn_at": "32",
        "train.batch": 256, "train.steps": 1_000_000, "train.d_lr": 4e-4, "train.g_lr": 1e-4,
        "train.beta1": 0.0, "train.beta2": 0.9, "train.ema": 0.9999,
    }),
}  # fmt: skip
