"""Named recipes: one row each, what is fixed and what to expect. To add a preset, add a row."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    # quadrupeds at 32 pixels: 88 and 98 of 100 pictures have four legs after 2000 steps, two seeds (docs/training.md)
    "laptop": ("a small network for a CPU: pictures worth looking at within minutes", {
        "model.base_width": 32, "train.batch": 32, "train.steps": 2000, "train.d_lr": 4e-4, "train.g_lr": 2e-4,
        "train.beta2": 0.99,
    }),
    "base": ("the published widths and rates at a batch that one GPU holds", {
        "model.base_width": 64, "train.batch": 64, "train.steps": 100_000,
    }),
    # ImageNet 128x128, 1000 classes: the paper reports FID 18.28 and IS 51.43 after 1M steps (feat32, Table 1)
    "paper": ("ImageNet at 128 pixels as Zhang et al. 2019 trained it, and a moving average", {
        "data.size": "128", "model.base_width": 64, "model.latent": 128, "model.attn_at": "32",
        "train.batch": 256, "train.steps": 1_000_000, "train.d_lr": 4e-4, "train.g_lr": 1e-4,
        "train.beta1": 0.0, "train.beta2": 0.9, "train.ema": 0.9999,
    }),
}  # fmt: skip
