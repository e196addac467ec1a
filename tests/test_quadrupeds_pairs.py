"""Two animals in one wide picture: each as `quadrupeds` draws it, and a checker that tells one kind from two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sagan_cli import registry
from sagan_cli.contracts import ModelSpec
from sagan_cli.data.quadrupeds import count_legs_batch
from sagan_cli.data.quadrupeds.kinds import like, of_one_kind, traits
from sagan_cli.data.quadrupeds.pairs import build, draw_pair
from sagan_cli.errors import UsageError
from sagan_cli.model import sagan
from sagan_cli.testing import check_dataset

SEED = 4_243


def pictures(height: int, width: int, count: int, *, alike: bool = True) -> np.ndarray:
    return np.stack([draw_pair(SEED, i, height, width, alike=alike) for i in range(count)])


def test_keeps_the_contract(tmp_path: Path):
    check_dataset(registry.load("datasets", "quadrupeds-pairs"), tmp_path, height=32, width=128)


def test_has_no_labels_and_draws_any_wide_size():
    for height, width in ((32, 64), (32, 96), (16, 128), (33, 70)):
        data = build(Path("nowhere"), split="test", height=height, width=width)
        assert data.class_names == ()
        picture, label = data.read(5)
        assert (picture.shape, picture.dtype, label) == ((height, width, 3), np.uint8, 0)


def test_bad_requests_are_named():
    with pytest.raises(UsageError, match=r"--size 32x63: two animals need .*: 32x64, or wider"):
        build(Path("nowhere"), split="train", height=32, width=63)
    with pytest.raises(UsageError, match=r"--split valid: .* train and test"):
        build(Path("nowhere"), split="valid", height=32, width=64)
    data = build(Path("nowhere"), split="test", height=32, width=64)
    with pytest.raises(IndexError, match="picture 10000 of 10000"):
        data.read(10_000)
    with pytest.raises(ValueError, match="room for two squares, not 32x63"):
        draw_pair(0, 0, 32, 63)
    for seed, index in ((-1, 0), (0, 1 << 64)):
        with pytest.raises(ValueError, match="between 0 and"):
            draw_pair(seed, index, 32, 64)


def test_each_end_shows_a_whole_animal():
    x = pictures(32, 128, 120)
    for end in (x[:, :, :32], x[:, :, -32:]):
        assert np.mean(count_legs_batch(np.ascontiguousarray(end)) == 4) >= 0.98
    warmth = x.astype(float)[..., 0] - x.astype(float)[..., 1:].mean(axis=3)
    assert warmth[:, :, 40:88].max() < 20, "nothing but scenery between them"


def test_a_stranger_changes_one_end_only():
    x, other = pictures(32, 128, 60).astype(int), pictures(32, 128, 60, alike=False).astype(int)
    assert np.abs(x - other)[:, :, :80].max() <= 1, "but for the last trace of its shadow"
    assert (np.abs(x - other)[:, :, 96:].max(axis=(1, 2, 3)) > 30).all()


@pytest.mark.parametrize("size", [(32, 64), (32, 128), (64, 256)])
def test_tells_one_kind_from_two(size: tuple[int, int]):
    count = 400 if size[0] == 32 else 150
    assert np.mean(of_one_kind(pictures(*size, count))) >= 0.96
    assert np.mean(of_one_kind(pictures(*size, count, alike=False))) <= 0.06


def test_two_of_one_kind_are_alike_whichever_way_they_face_and_through_noise():
    x = pictures(32, 128, 400)
    assert np.array_equal(of_one_kind(x), of_one_kind(x[:, :, ::-1]))
    noisy = x / 255 + np.random.default_rng(0).normal(0, 0.04, x.shape)
    assert np.mean(of_one_kind(np.clip(noisy, 0, 1))) >= 0.95


def test_a_convolutional_discriminator_scores_the_ends_apart():
    # What the data set is for: exchanging the right ends of two pictures changes each score and not their sum.
    one, two = (picture.astype(np.float64) for picture in pictures(16, 64, 2))
    two[:, 16:48] = one[:, 16:48]  # the scenery between the squares is the same
    both = np.stack([one, two, np.hstack([one[:, :32], two[:, 32:]]), np.hstack([two[:, :32], one[:, 32:]])])
    x = torch.from_numpy(both).permute(0, 3, 1, 2) / 127.5 - 1

    def interaction(attn_at: tuple[int, ...]) -> float:
        torch.manual_seed(0)
        _, discriminator = sagan.build(ModelSpec(16, 64, base_width=8, attn_at=attn_at))
        for name, weight in discriminator.named_parameters():
            if name.endswith("gamma"):
                weight.data.fill_(1.0)
        with torch.no_grad():
            score = discriminator.double().eval()(x, None)
        assert score.std() > 1e-3
        return abs(float(score[0] + score[1] - score[2] - score[3])) / float(score.std())

    assert interaction(()) < 1e-12
    assert interaction((32,)) > 1e-4


def test_ends_dealt_out_anew_are_seldom_alike():
    x = pictures(32, 128, 600)
    dealt = np.random.default_rng(0).permutation(len(x))
    assert np.mean(like(traits(x, last=False), traits(x, last=True)[dealt])) <= 0.16


def test_no_pair_is_none():
    x = pictures(32, 128, 30)
    alone = np.concatenate([x[:, :, :32], np.repeat(x[:, :, 60:61], 96, axis=2)], axis=2)
    assert not of_one_kind(alone).any(), "one animal"
    assert not of_one_kind(np.repeat(x[:, :, 60:61], 128, axis=2)).any(), "no animal"
    assert not of_one_kind(x[:, :, :48]).any(), "no room for two"
    assert of_one_kind(x[:0]).shape == (0,)
    with pytest.raises(ValueError, match=r"\(H, W, 3\), not \(32, 32\)"):
        of_one_kind(np.zeros((4, 32, 32)))
