"""Named recipes: one row each, with a description and settings. To add a preset, add a row."""

from __future__ import annotations

from typing import Any

from sagan_cli.config.systems import SYSTEMS


def _system(name: str) -> dict[str, Any]:
    """Return the settings of a published system; a preset adds the scale of the publication."""
    return dict(SYSTEMS[name].settings)


RECIPE_PRESETS = ("laptop", "base")
"""Presets whose other settings the recipe chooses from the data (`config/recipe.py`)."""
RECIPE_ARCHITECTURE = "sagan"
"""The architecture that the recipe was measured with; others keep the settings of their preset."""

_LAPTOP = {
    "model.width": 32, "train.batch": 32, "train.steps": 2000, "train.beta2": 0.99, "train.d_lr": 4e-4,
    "train.g_lr": 2e-4,
}  # fmt: skip
_BASE = {"model.width": 64, "train.batch": 64, "train.steps": 100_000}
_HINGE = {
    "train.loss": "hinge", "train.penalty": "", "model.spectral_norm": "auto", "model.qk_norm": "auto",
    "train.augment": "", "train.ada": 0.0, "train.grad_clip": 0.0,
}  # fmt: skip

PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "laptop": ("a small network for a CPU, the recipe chosen from the data", _LAPTOP | {
        "train.batch": 16, "train.steps": 4000,
    }),
    "base": ("the published widths at a batch that one GPU holds, the recipe chosen from the data", _BASE),
    "laptop-hinge": ("laptop with the hinge loss and spectral norm: the default until version 0.3", _LAPTOP | _HINGE),
    "base-hinge": ("base with the hinge loss and spectral norm: the default until version 0.3", _BASE | _HINGE),
    # ImageNet 128x128, 1000 classes: the paper reports FID 18.28 and IS 51.43 after 1M steps (feat32, Table 1)
    "paper": ("ImageNet at 128 pixels as in Zhang et al. 2019, with an EMA", {
        "data.size": "128", "model.width": 64, "model.latent": 128, "model.attn_at": "32",
        "train.batch": 256, "train.steps": 1_000_000, "train.d_lr": 4e-4, "train.g_lr": 1e-4,
        "train.beta1": 0.0, "train.beta2": 0.9, "train.ema": 0.9999,
    }),
    # README and flags of the released code: 64 images on each of four GPUs, no EMA; the paper has 1M steps
    "official": ("the authors' code at its own scale: ImageNet at 128 pixels", {
        **_system("official"), "data.size": "128", "model.width": 64, "model.latent": 128, "model.attn_at": "32",
        "train.batch": 256, "train.steps": 1_000_000, "train.ema": 0.0,
    }),
    # SAGAN's table 2 reports FID 27.62 and IS 36.8; StudioGAN's run reached FID 26.79 (500,000 steps, batch 256)
    "sngan": ("SNGAN with projection at its own scale: ImageNet at 128 pixels, five updates of D", {
        **_system("sngan-d"), "data.size": "128", "model.width": 64, "model.latent": 128,
        "train.batch": 64, "train.steps": 450_000, "train.ema": 0.0,
        # Miyato and Koyama 2018, section 5: the rates decay linearly to 0 over the last 50,000 steps
        "train.decay_from": 400_000, "train.decay_steps": 450_000,
    }),
    # Algorithm 1: batches of 64. StudioGAN's CIFAR-10 run of 100,000 steps reached FID 53.98, Mimicry's 22.29
    "wgan-gp": ("WGAN-GP at batches of 64: five updates of D, gradient penalty 10", {
        **_system("wgan-gp"), "model.width": 64, "train.batch": 64, "train.steps": 100_000, "train.ema": 0.0,
    }),
    # Section 4: batches of 128. StudioGAN's CIFAR-10 run of 100,000 steps reached FID 48.29
    "dcgan": ("DCGAN at batches of 128 and 64 pixels", {
        **_system("dcgan"), "data.size": "64", "model.width": 64, "train.batch": 128, "train.steps": 100_000,
        "train.ema": 0.0,
    }),
}  # fmt: skip
