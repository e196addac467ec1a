"""DiffAugment against plain NumPy, and its use in training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.cli import fails, ok
from support.idx_files import idx_folder
from torch import Tensor

from sagan_cli.contracts import Augmentation
from sagan_cli.objectives.adaptive import AdaptiveStrength, discriminator_sign
from sagan_cli.objectives.augmentations import COLOR, CUTOUT, TRANSLATION
from sagan_cli.objectives.losses import HINGE, RELATIVISTIC

ALL = {"color": COLOR, "translation": TRANSLATION, "cutout": CUTOUT}


def batch(height: int = 16, width: int = 24, count: int = 12) -> Tensor:
    return torch.rand(count, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def numbers(augmentation: Augmentation, count: int = 12, seed: int = 1) -> Tensor:
    return augmentation.random(torch.Generator().manual_seed(seed), count)


def test_color_is_brightness_then_saturation_then_contrast() -> None:
    x, u = batch(), numbers(COLOR)
    found = COLOR.apply(x, u, torch.tensor(1.0)).numpy()
    for image, (_, b, s, c), got in zip(x.numpy(), u.double().numpy(), found, strict=True):
        want = image + b - 0.5
        want = want.mean(0) + (want - want.mean(0)) * 2 * s
        want = want.mean() + (want - want.mean()) * (c + 0.5)
        np.testing.assert_allclose(got, want, atol=1e-12)


def test_translation_moves_whole_pixels_and_zeros_in() -> None:
    x, u = batch(), numbers(TRANSLATION)
    found = TRANSLATION.apply(x, u, torch.tensor(1.0)).numpy()
    seen = set()
    for image, (_, a, b), got in zip(x.numpy(), u.double().numpy(), found, strict=True):
        down, right = int(np.floor(a * 5)) - 2, int(np.floor(b * 7)) - 3  # 16 / 8 = 2 and 24 / 8 = 3 pixels
        want = np.zeros_like(image)
        for row in range(16):
            for column in range(24):
                if 0 <= row + down < 16 and 0 <= column + right < 24:
                    want[:, row, column] = image[:, row + down, column + right]
        np.testing.assert_array_equal(got, want)
        seen.add((down, right))
    assert len(seen) > 6


def test_cutout_sets_a_rectangle_of_half_the_sides_to_zero() -> None:
    x, u = batch(), numbers(CUTOUT, 200)
    x = x[:1].expand(200, -1, -1, -1)
    zero = (CUTOUT.apply(x, u, torch.tensor(1.0)) == 0).all(1).numpy()
    for mask in zero:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.sum() == len(rows) * len(columns)
        assert 4 <= len(rows) <= 8
        assert 6 <= len(columns) <= 12
    assert zero.mean(0).min() > 0.05, "every pixel is cut out at times"


@pytest.mark.parametrize("name", ALL)
def test_probability_decides_per_image_and_gradients_pass(name: str) -> None:
    augmentation = ALL[name]
    x, u = batch(count=400), numbers(augmentation, 400)
    changed = [(augmentation.apply(x, u, torch.tensor(p)) != x).flatten(1).any(1) for p in (0.0, 0.3, 1.0)]
    assert not changed[0].any()
    assert changed[1].double().mean().item() == pytest.approx(0.3, abs=0.08)
    assert changed[2].double().mean().item() > 0.95  # a translation may be by no pixel
    assert torch.equal(changed[1] & changed[2], changed[1])
    some = batch(8, 8, 3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda images: augmentation.apply(images, numbers(augmentation, 3), torch.tensor(1.0)), some
    )


def test_they_train_and_resume_to_the_bit(tmp_path: Path) -> None:
    flags = (
        "train", "--data", idx_folder(tmp_path / "idx"),
        "--size", 16, "--width", 2, "--batch", 4, "--attn-at", "none", "-q",
        "--augment", "color,translation=linear:0:1:40,cutout=0.5", "--preset", "laptop-hinge",
    )  # fmt: skip
    ok(*flags, "--steps", 6, "--out", "whole", cwd=tmp_path)
    ok(*flags, "--steps", 3, "--out", "parts", cwd=tmp_path)
    ok(*flags, "--steps", 6, "--out", "parts", cwd=tmp_path)
    whole, parts = (
        json.loads((tmp_path / run / "checkpoints/00000006/checkpoint.json").read_text()) for run in ("whole", "parts")
    )
    assert whole["sha256"] == parts["sha256"]
    ok(*flags[:-3], "color", "--preset", "laptop-hinge", "--steps", 6, "--out", "other", cwd=tmp_path)
    other = json.loads((tmp_path / "other/checkpoints/00000006/checkpoint.json").read_text())
    assert other["sha256"] != whole["sha256"]


def test_the_strength_follows_the_sign_of_d() -> None:
    signs = np.random.default_rng(0).uniform(-1, 1, 60) + np.repeat([1.0, -1.0, 0.6], 20)
    adaptive, mean, strength, found = AdaptiveStrength(0.6, 1000, 50), 0.0, 0.0, list[float]()
    for sign in signs:
        mean += (sign - mean) / 4
        strength = min(1.0, max(0.0, strength + 0.05 * np.sign(mean - 0.6)))
        adaptive.update_(torch.tensor(sign))
        found.append(adaptive.strength.item())
        assert found[-1] == pytest.approx(strength, abs=1e-6)
    assert found[19] > 0.5
    assert found[39] == 0


def test_the_sign_is_of_logits_or_of_pairs() -> None:
    real, fake = torch.tensor([3.0, 3.0, -1.0, 2.0]), torch.tensor([1.0, 4.0, -2.0, 1.0])
    assert discriminator_sign(HINGE, real, fake) == 0.5
    assert discriminator_sign(RELATIVISTIC, real, fake) == 0.5
    assert discriminator_sign(RELATIVISTIC, real, fake - 5) == 1
    assert discriminator_sign(HINGE, real, fake - 5) == 0.5


def test_adaptive_augmentation_trains_and_resumes_to_the_bit(tmp_path: Path) -> None:
    common = (
        "train", "--data", idx_folder(tmp_path / "idx"),
        "--size", 16, "--width", 2, "--batch", 4, "--attn-at", "none", "-q",
        "--log-every", 1, "--loss", "relativistic", "--d-lr", 0.02, "--g-lr", 1e-3,
    )  # fmt: skip
    adaptive = ("--augment", "color,translation,cutout", "--ada-images", 40)
    ok(*common, *adaptive, "--ada", 0.05, "--steps", 12, "--out", "whole", cwd=tmp_path)
    ok(*common, *adaptive, "--ada", 0.05, "--steps", 5, "--out", "parts", cwd=tmp_path)
    ok(*common, *adaptive, "--ada", 0.05, "--steps", 12, "--out", "parts", cwd=tmp_path)
    ok(*common, *adaptive, "--ada", 1.0, "--steps", 12, "--out", "never", cwd=tmp_path)
    ok(*common, "--steps", 12, "--out", "none", cwd=tmp_path)

    def digests(run: str) -> Any:
        return json.loads((tmp_path / run / "checkpoints/00000012/checkpoint.json").read_text())["sha256"]

    def logged(run: str) -> list[float]:
        lines = map(json.loads, (tmp_path / run / "metrics.jsonl").read_text().splitlines())
        return [line["augment_p"] for line in lines]

    assert digests("whole") == digests("parts")
    assert logged("whole") == logged("parts")
    assert max(logged("whole")) >= 0.2
    assert set(logged("never")) == {0.0}
    model = "model.safetensors"
    assert digests("never")[model] == digests("none")[model] != digests("whole")[model]


def test_there_must_be_something_to_adapt(tmp_path: Path) -> None:
    assert "--augment color,translation,cutout" in fails(2, "train", "--ada", 0.6, "--out", "r", cwd=tmp_path)
    assert not (tmp_path / "r").exists()
