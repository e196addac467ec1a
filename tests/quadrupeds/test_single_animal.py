"""One animal anywhere in a wide picture: drawn where it should, counted from the picture alone, and what it is for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from sagan_cli.contracts import ModelSpec
from sagan_cli.errors import UsageError
from sagan_cli.model import sagan
from sagan_cli.plugins import registry
from sagan_cli.quadrupeds.animal_counter import count_animals, horizontal_positions
from sagan_cli.quadrupeds.single_animal import build, draw_alone
from sagan_cli.testing import check_dataset

SEED = 4_243


def pictures(height: int, width: int, count: int, animals: Literal[0, 1, 2] = 1) -> np.ndarray:
    return np.stack([draw_alone(SEED, i, height, width, animals) for i in range(count)])


def test_keeps_the_contract(tmp_path: Path):
    check_dataset(registry.load("datasets", "quadrupeds-alone"), tmp_path, height=16, width=64)


def test_draws_any_wide_size_and_labels_the_species():
    for height, width in ((16, 64), (32, 64), (32, 96), (33, 70)):
        data = build(Path("nowhere"), split="test", height=height, width=width)
        picture, label = data.read(8)
        assert (picture.shape, picture.dtype, label) == ((height, width, 3), np.uint8, 2)
        assert data.class_names[label] == "fox"


def test_bad_requests_are_named():
    with pytest.raises(UsageError, match=r"--size 32x63: .*: 32x64, or wider"):
        build(Path("nowhere"), split="train", height=32, width=63)
    with pytest.raises(UsageError, match=r"--split valid: .* train and test"):
        build(Path("nowhere"), split="valid", height=32, width=64)
    data = build(Path("nowhere"), split="test", height=32, width=64)
    with pytest.raises(IndexError, match="image 10000 of 10000"):
        data.read(10_000)
    with pytest.raises(ValueError, match="1 animals at 32x63: 0, 1 or 2, in at least two squares"):
        draw_alone(0, 0, 32, 63)
    with pytest.raises(ValueError, match=r"cannot stand 3\.5 heights apart at 16x64: 0 to 3"):
        draw_alone(0, 0, 16, 64, 2, 3.5)
    for seed, index in ((-1, 0), (0, 1 << 64)):
        with pytest.raises(ValueError, match="between 0 and"):
            draw_alone(seed, index, 32, 64)


def test_the_animal_stands_anywhere_and_whole():
    x = pictures(16, 64, 400).astype(float)
    warmth = x[..., 0] - x[..., 1:].mean(axis=3)
    middles = (np.clip(warmth, 0, None).sum(axis=1) * np.arange(64)).sum(axis=1) / np.clip(warmth, 0, None).sum((1, 2))
    assert np.abs(16 * horizontal_positions(x.astype(np.uint8)) - middles).mean() < 1.5
    assert np.isnan(horizontal_positions(pictures(16, 64, 1, 0))).all()
    assert middles.min() < 12
    assert middles.max() > 52
    assert np.histogram(middles, bins=4, range=(8, 56))[0].min() > 60
    assert np.mean((warmth[:, :, [0, -1]] > 15).any(axis=(1, 2))) < 0.05


@pytest.mark.parametrize("size", [(16, 64), (32, 128), (64, 256)])
@pytest.mark.parametrize("animals", [0, 1, 2])
def test_counts_none_one_and_two(size: tuple[int, int], animals: Literal[0, 1, 2]):
    count = 300 if size[0] < 64 else 60
    assert np.mean(count_animals(pictures(*size, count, animals)) == animals) >= 0.99


def test_two_stand_as_far_apart_as_said():
    for apart in (1.5, 2.5):
        x = np.stack([draw_alone(SEED, i, 16, 64, 2, apart) for i in range(60)]).astype(float)
        run = ((x[..., 0] - x[..., 1:].mean(axis=3)) > 15).any(axis=1)
        outer = (run * np.arange(64)).max(axis=1) - np.where(run, np.arange(64), 64).min(axis=1)
        assert np.abs(outer - 16 * (apart + 0.7)).mean() < 3
        assert np.mean(count_animals(x.astype(np.uint8)) == 2) >= 0.97


def test_counts_through_noise_in_mirrors_and_in_fractions():
    x = pictures(16, 64, 300)
    counts = count_animals(x)
    assert counts.dtype == np.int64
    assert np.array_equal(counts, count_animals(x[:, :, ::-1]))
    assert np.array_equal(counts, count_animals(x.astype(np.float64) / 255))
    noisy = x / 255 + np.random.default_rng(0).normal(0, 0.04, x.shape)
    assert np.mean(count_animals(np.clip(noisy, 0, 1)) == 1) >= 0.98


def test_counts_runs_of_columns():
    scene = np.full((16, 64, 3), (90, 150, 200), np.uint8)

    def count(*boxes: tuple[int, int, int, int]) -> int:
        picture = scene.copy()
        for top, bottom, left, right in boxes:
            picture[top:bottom, left:right] = (150, 90, 50)
        return int(count_animals(picture[None])[0])

    assert count() == 0
    assert count((6, 14, 4, 16)) == 1
    assert count((6, 14, 4, 16), (6, 14, 17, 29)) == 2, "a gap of one column parts them"
    assert count((6, 14, 4, 28)) == 2, "too long for one"
    assert count((6, 14, 4, 16), (8, 10, 40, 43)) == 1, "a crumb is no animal"
    assert count(*((6, 14, left, left + 12) for left in (0, 16, 32, 52))) == 4
    assert count((0, 16, 0, 64)) == 3, "a picture that is warm all over"


def test_other_shapes_are_refused_and_no_pictures_have_no_counts():
    assert count_animals(np.zeros((0, 16, 64, 3), np.uint8)).shape == (0,)
    with pytest.raises(ValueError, match=r"shape \(H, W, 3\), not \(16, 64\)"):
        count_animals(np.zeros((4, 16, 64)))


def test_a_convolutional_discriminator_adds_up_what_it_sees():
    # What the data set is for. With the same scenery everywhere between, none + both = left + right holds to the last
    # digit, so such a network cannot give one animal a higher score than none and than two. Attention need not add up.
    both = draw_alone(SEED, 0, 16, 64, 2).astype(np.float64)
    none = draw_alone(SEED, 0, 16, 64, 0).astype(np.float64)
    both[:, 16:48] = none[:, 16:48]
    left, right = np.hstack([both[:, :32], none[:, 32:]]), np.hstack([none[:, :32], both[:, 32:]])
    x = torch.from_numpy(np.stack([none, both, left, right])).permute(0, 3, 1, 2) / 127.5 - 1

    def surplus(attn_at: tuple[int, ...]) -> float:
        torch.manual_seed(0)
        _, discriminator = sagan.build(ModelSpec(16, 64, base_width=8, attn_at=attn_at))
        for name, weight in discriminator.named_parameters():
            if name.endswith("gamma"):
                weight.data.fill_(1.0)
        with torch.no_grad():
            score = discriminator.double().eval()(x, None)
        assert score.std() > 1e-3
        return abs(float(score[0] + score[1] - score[2] - score[3])) / float(score.std())

    assert surplus(()) < 1e-12
    assert surplus((32,)) > 1e-4
