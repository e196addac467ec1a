"""The embedded data set: pictures are pure functions of (seed, index), and the leg counter tells 4 from 3 and 5."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sagan_cli.contracts import Dataset
from sagan_cli.errors import UsageError
from sagan_cli.quadrupeds import CLASS_NAMES, Quadrupeds, build, count_legs, count_legs_batch, draw, scenery
from sagan_cli.quadrupeds.shapes import Dice, canvas

SEED = 4_242


def pictures(size: int, legs: int, count: int, seed: int = SEED) -> np.ndarray:
    return np.stack([draw(seed, i, size, size, legs) for i in range(count)])


def opened(split: str = "train", height: int = 32, width: int = 32) -> Quadrupeds:
    return build(Path("nowhere"), split=split, height=height, width=width)


# The data set


def test_keeps_the_contract_and_survives_pickling():
    data = opened()
    assert isinstance(data, Dataset)
    again = pickle.loads(pickle.dumps(data))
    assert again.fingerprint() == data.fingerprint()
    assert np.array_equal(again.read(7)[0], data.read(7)[0])


def test_draws_the_asked_size_whatever_its_shape():
    for height, width in ((32, 32), (64, 256), (256, 64), (96, 128), (33, 47), (1, 1)):
        picture, label = opened(height=height, width=width).read(3)
        assert picture.shape == (height, width, 3)
        assert picture.dtype == np.uint8
        assert label == 3


def test_labels_are_balanced_and_named():
    data = opened()
    labels = [data.read(i)[1] for i in range(2 * len(CLASS_NAMES))]
    assert sorted(labels) == sorted(2 * list(range(len(CLASS_NAMES))))
    assert len(set(data.class_names)) == len(CLASS_NAMES) >= 6


def test_splits_share_no_picture():
    train, test = opened("train"), opened("test")
    assert (len(train), len(test)) == (20_000, 10_000)
    assert train.fingerprint() != test.fingerprint()
    seen = {train.read(i)[0].tobytes() for i in range(120)}
    assert len(seen) == 120
    assert not seen & {test.read(i)[0].tobytes() for i in range(120)}


def test_fingerprint_tells_sizes_seeds_and_counts_apart():
    series = ((32, 32), (32, 64), (64, 32), (32, 32, 1), (32, 32, 0, 9))
    assert len({Quadrupeds(*arguments).fingerprint() for arguments in series}) == len(series)


def test_bad_requests_are_named():
    with pytest.raises(UsageError, match=r"--split valid: .* train and test"):
        opened("valid")
    with pytest.raises(IndexError, match="image 20000 of 20000"):
        opened().read(20_000)
    for seed, index in ((-1, 0), (0, -1), (1 << 64, 0)):
        with pytest.raises(ValueError, match="between 0 and"):
            draw(seed, index, 32, 32)
    with pytest.raises(ValueError, match="legs must be 3, 4 or 5"):
        draw(0, 0, 32, 32, legs=6)


# The pictures


def test_a_fresh_process_draws_the_same_bytes():
    code = (
        "import hashlib; from sagan_cli.quadrupeds import draw;"
        "print(hashlib.sha256(b''.join(draw(5, i, 48, 32).tobytes() for i in (11, 3))).hexdigest())"
    )
    # This process draws them in another order, after other pictures, so hidden state would show.
    drawn = {i: draw(5, i, 48, 32).tobytes() for i in (0, 3, 11)}
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert hashlib.sha256(drawn[11] + drawn[3]).hexdigest() == there


def test_drawing_imports_neither_torch_nor_pillow():
    code = "import sys, sagan_cli.quadrupeds; print(sorted({'torch', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_one_picture_looks_alike_at_every_size():
    large = pictures(128, 4, 12).astype(float).reshape(12, 32, 4, 32, 4, 3).mean(axis=(2, 4))
    assert np.abs(large - pictures(32, 4, 12)).mean() < 4


def test_another_number_of_legs_changes_nothing_but_legs():
    whole = pictures(64, 4, 60).astype(int)
    for legs in (3, 5):
        changed = np.abs(pictures(64, legs, 60).astype(int) - whole).max(axis=3) > 0
        share = changed.mean(axis=(1, 2))
        assert share.min() > 0.005
        assert share.max() < 0.06
        assert not changed[:, :22].any(), "back, neck and head stay as they are"


def test_animals_are_warm_and_scenes_cool():
    # The leg counter stands on this.
    for index in range(120):
        red, green, blue = scenery.paint(canvas(64, 64), Dice(SEED, index))
        assert (red - 0.5 * (green + blue)).max() < 0.02
    # In the middle of a picture there is always animal.
    x = pictures(64, 4, 120).astype(float)
    warmth = x[..., 0] - 0.5 * (x[..., 1] + x[..., 2])
    assert np.median(warmth[:, 34:42, 28:36], axis=(1, 2)).min() > 20


def test_animals_stay_inside_the_frame():
    x = pictures(32, 4, 600).astype(float)
    warmth = x[..., 0] - 0.5 * (x[..., 1] + x[..., 2])
    border = np.concatenate([warmth[:, 0], warmth[:, -1], warmth[:, :, 0], warmth[:, :, -1]], axis=1)
    assert np.mean((border > 15).any(axis=1)) < 0.02


def test_both_directions_and_all_scenes_occur():
    x = pictures(32, 4, 120).astype(float)
    skies, warmth = x[:, 0].mean(axis=1), x[..., 0] - 0.5 * (x[..., 1] + x[..., 2])
    assert np.ptp(skies, axis=0).min() > 60
    # The fox's head is on the side where its upper rows are warm: pointed ears on one, tail on the other.
    foxes = warmth[CLASS_NAMES.index("fox") :: len(CLASS_NAMES), 6:13]
    lean = (foxes[:, :, 16:] > 20).sum(axis=(1, 2)) - (foxes[:, :, :16] > 20).sum(axis=(1, 2))
    assert (lean > 0).any()
    assert (lean < 0).any()


# The leg counter


@pytest.mark.parametrize("size", [32, 64, 128])
def test_counts_four_legs_and_notices_one_fewer_or_more(size: int):
    count = 300 if size < 128 else 120
    assert np.mean(count_legs_batch(pictures(size, 4, count)) == 4) >= 0.99
    assert np.mean(count_legs_batch(pictures(size, 3, count)) != 4) >= 0.98
    assert np.mean(count_legs_batch(pictures(size, 5, count)) != 4) >= 0.98


def test_counts_through_the_noise_and_blur_of_a_sample():
    x = pictures(32, 4, 240).astype(np.float32) / 255
    noisy = x + np.random.default_rng(0).normal(0, 0.04, x.shape).astype(np.float32)
    assert np.mean(count_legs_batch(np.clip(noisy, 0, 1)) == 4) >= 0.97
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    around = padded[:, 2:, 1:-1] + padded[:, :-2, 1:-1] + padded[:, 1:-1, 2:] + padded[:, 1:-1, :-2]
    assert np.mean(count_legs_batch(0.5 * x + 0.125 * around) == 4) >= 0.97


def test_no_animal_has_no_four_legs():
    source = np.random.default_rng(0)
    for size in (32, 64):
        noise = source.random((200, size, size, 3))
        blocks = source.random((200, 8, 8, 3)).repeat(size // 8, axis=1).repeat(size // 8, axis=2)
        assert np.mean(count_legs_batch(noise) == 4) <= 0.02
        assert np.mean(count_legs_batch(blocks) == 4) <= 0.06
        for value in (0.0, 0.5, 1.0):
            assert count_legs(np.full((size, size, 3), value)) == 0


def test_a_scene_without_its_animal_counts_zero():
    # The upper left and right edges of a picture are scene alone: stretched to a full picture they show no animal.
    for picture in pictures(64, 4, 30):
        assert count_legs(np.repeat(picture[:, :1], 64, axis=1)) == 0


def test_legs_hovering_below_no_body_do_not_count():
    picture = np.full((32, 32, 3), (90, 150, 200), np.uint8)
    for x in (6, 11, 17, 22):
        picture[20:30, x : x + 3] = (150, 90, 50)
    assert count_legs(picture) == 0
    picture[10:20, 5:26] = (150, 90, 50)
    assert count_legs(picture) == 4
    picture[10:24, 5:10] = (90, 150, 200)
    assert count_legs(picture) == 3, "the leg below the hole hangs on nothing"


def test_bytes_and_fractions_single_and_batch_agree():
    x = pictures(32, 4, 24)
    answers = count_legs_batch(x)
    assert answers.dtype == np.int64
    assert np.array_equal(answers, count_legs_batch(x.astype(np.float64) / 255))
    assert [count_legs(picture) for picture in x] == answers.tolist()
    assert count_legs_batch(x[:0]).shape == (0,)
    with pytest.raises(ValueError, match=r"shape \(H, W, 3\), not \(32, 32\)"):
        count_legs(x[0, :, :, 0])


def test_mirrored_pictures_count_alike():
    x = pictures(32, 4, 240)
    assert np.mean(count_legs_batch(x[:, :, ::-1]) == 4) >= 0.99


def test_counts_in_frames_of_other_shapes():
    for height, width in ((64, 128), (128, 64), (96, 64)):
        x = np.stack([draw(SEED, i, height, width) for i in range(60)])
        assert np.mean(count_legs_batch(x) == 4) >= 0.98


@pytest.mark.slow
@pytest.mark.parametrize(("size", "goal"), [(32, 0.995), (64, 0.999), (128, 0.999)])
def test_counter_reaches_its_goals_on_ten_thousand(size: int, goal: float):
    shares = {}
    for legs in (4, 3, 5):
        answers = np.concatenate(
            [
                count_legs_batch(np.stack([draw(SEED, i, size, size, legs) for i in range(first, first + 500)]))
                for first in range(0, 10_000, 500)
            ]
        )
        shares[legs] = float(np.mean(answers == 4))
    assert shares[4] >= goal
    assert shares[3] <= 0.02
    assert shares[5] <= 0.02
