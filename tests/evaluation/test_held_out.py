"""Held-out images, memorization against them, and the nearest pairs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.cli import TINY, fails, ok, process, sagan

from sagan_cli.data.batches import Batches
from sagan_cli.data.holdout import split
from sagan_cli.data.packing.pack import Pack
from sagan_cli.engine.runtime import pick_device
from sagan_cli.errors import DataError
from sagan_cli.evaluation import records
from sagan_cli.evaluation.metrics.memorization import memorization, nearest
from sagan_cli.quadrupeds import build

CLASSIFIER = ("--extractor", "classifier", "--device", "cpu")


def pack(*counts: int) -> Pack:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    images = np.arange(len(labels) * 12, dtype=np.int64).astype(np.uint8).reshape(len(labels), 2, 2, 3)
    return Pack(Path(), images, labels, tuple("abcdef"[: len(counts)]), "digest", (), len(labels), True)


@pytest.mark.parametrize(
    ("holdout", "expected"), [(0.1, [5, 3, 2]), (10, [5, 3, 2]), (11.0, [6, 3, 2]), (0.0, [0] * 3)]
)
def test_each_class_gives_its_share(holdout: float, expected: list[int]) -> None:
    data = pack(50, 30, 20)
    training, held_out = split(data, holdout)
    assert np.array_equal(np.sort(np.concatenate([training, held_out])), np.arange(100))
    assert np.bincount(data.labels[held_out], minlength=3).tolist() == expected
    assert all(np.array_equal(a, b) for a, b in zip(split(data, holdout), (training, held_out), strict=True))


def test_what_leaves_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(DataError, match="--holdout 100: the dataset has only 100 images"):
        split(pack(50, 50), 100)
    with pytest.raises(DataError, match=r"--holdout 0\.97: leaves no image of class 'b' to train on"):
        split(pack(98, 2), 0.97)


def test_batches_never_hold_a_held_out_image() -> None:
    data = pack(30, 20)
    training, held_out = split(data, 0.2)
    batches = Batches(data, batch=8, seed=0, flip=False, device=pick_device("cpu"), chosen=training)
    seen = np.concatenate([batches.indices(update) for update in range(10)])
    assert set(seen) == set(training)
    assert not set(seen) & set(held_out)
    everything = np.arange(50)
    plain, same = (
        Batches(data, batch=8, seed=0, flip=False, device=pick_device("cpu"), chosen=c) for c in (None, everything)
    )
    assert all(np.array_equal(plain.indices(u), same.indices(u)) for u in range(10))


def test_memorization_is_the_share_of_pairs_in_which_the_generated_image_is_nearer() -> None:
    rng = np.random.default_rng(0)
    fake, held, training = (rng.integers(0, 4, (n, 3)).astype(np.float32) for n in (40, 30, 20))
    distance = lambda rows: np.sqrt(((rows[:, None].astype(float) - training) ** 2).sum(-1)).min(1)  # noqa: E731
    d, h = distance(fake), distance(held)
    want = np.mean([(a < b) + 0.5 * (a == b) for a in d for b in h])
    found = memorization(fake, held, training)
    assert found.value == pytest.approx(want, abs=1e-12)
    assert found.interval is not None
    assert found.interval[0] < want < found.interval[1]
    distances, indices = nearest(fake, training)
    np.testing.assert_allclose(distances, d, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(fake - training[indices], axis=1), d, atol=1e-6)


def test_copies_are_near_1_and_other_images_near_a_half() -> None:
    rng = np.random.default_rng(1)
    training, held, other = (rng.normal(size=(400, 8)).astype(np.float32) for _ in range(3))
    assert memorization(training + 1e-3, held, training).value > 0.99
    fair = memorization(other, held, training)
    assert fair.interval is not None
    assert fair.interval[0] < 0.5 < fair.interval[1]
    assert fair.interval[1] - fair.interval[0] < 0.1


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on class folders of drawn animals, a quarter of them held out, and folders of copies and of others."""
    home = tmp_path_factory.mktemp("home")
    animals = build(Path(), split="train", height=16, width=16)
    for i in range(160):
        image, label = animals.read(i)
        folder = home / ("data" if i < 120 else "others") / animals.class_names[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:03d}.png")
    flags = ("--size", 16, *TINY, "--steps", 3, "--holdout", 0.25, "--log-every", 1)
    ok("train", "--data", home / "data", *flags, "--out", "run", "--eval-every", 2, "--eval-n", 20,
       "--eval-metrics", "fid,memorization", cwd=home)  # fmt: skip
    return home


def score(home: Path, *args: object) -> Any:
    return json.loads(ok("eval-fid", *args, *CLASSIFIER, "--json", "-q", cwd=home))


def test_a_run_records_what_it_holds_out_and_scores_against_it(home: Path) -> None:
    record = json.loads((home / "run/run.json").read_text())
    assert (record["data"]["count"], record["data"]["held_out"]) == (120, 30)
    lines = [json.loads(line) for line in (home / "run/metrics.jsonl").read_text().splitlines()]
    assert 0 <= next(line["memorization"] for line in lines if line.get("kind") == "score") <= 1
    trained = score(home, "run", "-n", 24, "--n-real", "all", "--metrics", "fid,memorization")
    held = score(home, "run", "-n", 24, "--n-real", "all", "--metrics", "fid", "--split", "held-out")
    assert (trained["n_real"], held["n_real"]) == (90, 30)
    assert held["split"] == "held-out"
    assert trained["value"] != held["value"]
    both = score(
        home, "run", "-n", 24, "--n-real", "all", "--metrics", "fid,memorization", "--split", "held-out"
    )  # fmt: skip
    assert both["values"] == {"fid": held["value"], "memorization": trained["values"]["memorization"]}
    named = score(home, "run", "-n", 24, "--metrics", "memorization", "--held-out", home / "others")
    assert named["metric"] == "memorization"
    # Scores against other images, or other held-out images, are not ranked.
    assert records.difference(trained, held, "fid") is not None
    assert records.difference(trained, named, "memorization") is not None
    assert trained["dataset_digest"] == held["dataset_digest"] == record["data"]["digest"]
    assert named["value"] != trained["values"]["memorization"]
    said = fails(2, "train", "--data", home / "data", "--out", "run", "--holdout", 0.1, cwd=home)
    assert "--holdout 0.25, not 0.1" in said


def test_the_nearest_pairs_of_copies_are_pairs_of_equal_images(home: Path) -> None:
    copies = home / "copies"
    copies.mkdir()
    for n, file in enumerate(sorted((home / "data").glob("*/*.png"))[::6]):
        (copies / f"{n}.png").write_bytes(file.read_bytes())
    found = score(home, copies, "--data", home / "data", "--metrics", "fid", "--nearest", "pairs.png")
    assert len(found["nearest"]) == 16
    assert all(pair["distance"] < 1e-3 for pair in found["nearest"])
    sheet = np.asarray(Image.open(home / "pairs.png").convert("RGB"))
    pair = sheet[:16, :34]  # two images of 16 pixels with a gap of 2
    assert np.array_equal(pair[:, :16], pair[:, 18:])
    model = score(home, "run", "-n", 20, "--metrics", "fid", "--nearest", "model.png")
    distances = [pair["distance"] for pair in model["nearest"]]
    assert distances == sorted(distances)
    assert Image.open(io.BytesIO((home / "model.png").read_bytes())).format == "PNG"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("run", "--nearest", "-"), "--nearest -: the scores go to standard output"),
        (("run", "--nearest", "pairs.jpg"), "name a .png file"),
        (("run", "--nearest", "data/../run/run.json.png/x.png"), "there is no directory"),
        (("plain", "--metrics", "memorization", "-n", 20), "no images are held out: name some with --held-out"),
        (("plain", "--split", "held-out", "-n", 20), "no image is held out: train with --holdout"),
        (("data", "--data", "others", "--split", "held-out"), "is for a run that was trained with --holdout"),
        (("run", "--data", "others", "--split", "held-out"), "leave out --data"),
    ],
)
def test_refusals_name_the_way_out(args: tuple[object, ...], says: str, home: Path) -> None:
    if "plain" in args and not (home / "plain").exists():
        ok("train", "--data", home / "data", "--size", 16, *TINY, "--steps", 1, "--out", "plain", cwd=home)
    assert says in fails(2, "eval-fid", *args, *CLASSIFIER, cwd=home)
    assert not (home / "pairs.jpg").exists()


def test_too_few_images_are_left_to_train_on(home: Path) -> None:
    done = process("train", "--data", home / "data", "--size", 16, *TINY, "--holdout", 118, "--out", "x", cwd=home)
    assert done.returncode == 1
    assert b"--batch 4: there are only 2 images" in done.stderr or b"--holdout 118: leaves no image" in done.stderr
    assert not (home / "x").exists()
    assert b"120 images, 6 classes, 30 of them held out" in sagan(
        "train", "--resume", "run", "--steps", 4, cwd=home
    ).stderr  # fmt: skip


def test_nearest_images_are_those_of_all_pairs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows, training = rng.normal(size=(7, 4)).astype(np.float32), rng.normal(size=(11, 4)).astype(np.float32)
    training[9] = training[2]  # a tie: the first one counts
    pairs = np.linalg.norm(rows[:, None].astype(float) - training[None], axis=-1)
    monkeypatch.setattr("sagan_cli.evaluation.metrics.memorization.ROWS", 3)
    distances, indices = nearest(rows, training)
    np.testing.assert_allclose(distances, pairs.min(1), rtol=1e-12)
    np.testing.assert_array_equal(indices, pairs.argmin(1))
