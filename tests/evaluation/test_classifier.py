"""`--extractor classifier`: what it learns, that it is the same twice, and what becomes of damaged or foreign ones."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from sagan_cli.errors import DataError, SaganError
from sagan_cli.evaluation.extractors import classifier
from sagan_cli.evaluation.extractors.classifier import (
    DIMENSIONS,
    Classifier,
    input_size,
    known_images,
    open_classifier,
)
from sagan_cli.evaluation.extractors.extractor import Extractor, three_channels
from sagan_cli.evaluation.features import moments_of_array
from sagan_cli.evaluation.metrics.fid import distance

CPU = torch.device("cpu")
Images = NDArray[np.uint8]


def striped(count: int, size: int = 16, channels: int = 1, seed: int = 0) -> tuple[Images, NDArray[np.int64]]:
    """Noisy stripes, lying (class 0) or standing (class 1), of random phase and width."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    waves = np.sin(np.arange(size) * rng.uniform(0.6, 1.2, (count, 1)) + rng.uniform(0, 6.3, (count, 1)))
    flat = np.where(labels[:, None, None] == 1, waves[:, None, :], waves[:, :, None]) * np.ones((1, size, size))
    noisy = 128 + 80 * flat[..., None] + rng.normal(0, 25, (count, size, size, channels))
    return noisy.clip(0, 255).astype(np.uint8), labels.astype(np.int64)


@contextmanager
def silent(label: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """Progress that nobody sees."""
    yield lambda done, all_of_it: None


def untouched(label: str, total: int) -> AbstractContextManager[Callable[[int, int], None]]:
    """Progress that must not begin."""
    raise AssertionError(f"{label} {total}")


def opened(folder: Path, data: tuple[Images, NDArray[np.int64]], **changed: Any) -> Extractor:
    """`open_classifier` with what does not matter filled in."""
    given: dict[str, Any] = {
        "class_names": ("lying", "standing"), "data_digest": "0" * 64, "folder": folder, "device": CPU,
        "progress": silent, "notify": lambda line: None,
    }  # fmt: skip
    return open_classifier(*data, **(given | changed))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few steps of training, where what is learned is beside the point."""
    monkeypatch.setattr(classifier, "_FEWEST", 512)
    monkeypatch.setattr(classifier, "_PASSES", 1)
    monkeypatch.setattr(classifier, "_BATCH", 32)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Extractor, Path]:
    """One classifier by the whole recipe, on 200 pictures."""
    folder = tmp_path_factory.mktemp("classifiers")
    return opened(folder, striped(200), notify=pytest.fail), folder


def features(extractor: Extractor, images: Images) -> NDArray[np.float32]:
    return extractor(three_channels(images), ("features",))["features"].numpy()


def only(folder: Path) -> Path:
    """The one directory in a cache, after checking that there is nothing else."""
    (found,) = folder.iterdir()
    return found


def test_two_hundred_pictures_are_learned(trained: tuple[Extractor, Path]) -> None:
    extractor, folder = trained
    assert extractor.facts["accuracy"] >= 0.9
    assert (extractor.facts["classes"], extractor.facts["trained_on"]) == (2, 180)
    assert (extractor.name, extractor.published) == ("classifier", None)
    new, labels = striped(400, seed=1)
    found = extractor(three_channels(new), ("features", "logits"))
    assert found["features"].shape == (400, DIMENSIONS)
    assert found["logits"].shape == (400, 2)
    assert np.mean(found["logits"].argmax(1).numpy() == labels) >= 0.95
    about = json.loads((only(folder) / "classifier.json").read_text(encoding="utf-8"))
    assert about["accuracy"] == extractor.facts["accuracy"]
    assert about["class_names"] == ["lying", "standing"]
    assert about["sha256"] == hashlib.sha256((only(folder) / "model.safetensors").read_bytes()).hexdigest()


def test_features_are_standardised_over_the_training_pictures(trained: tuple[Extractor, Path]) -> None:
    found = features(trained[0], striped(200)[0])
    assert np.abs(found.mean(0)).max() < 0.3
    assert 0.5 < np.median(found.var(0)) < 2


def test_distances_order_as_eyes_would(trained: tuple[Extractor, Path]) -> None:
    extractor = trained[0]
    rng = np.random.default_rng(2)
    real, labels = striped(1200, seed=3)
    reference = moments_of_array(features(extractor, real[:600]))

    def far(images: Images) -> float:
        return distance(moments_of_array(features(extractor, images)), reference)

    salted = real[600:].copy()
    salted[rng.random(salted.shape) < 0.05] = 255
    same, salt, one_class = far(real[600:]), far(salted), far(real[600:][labels[600:] == 0])
    noise = far(rng.integers(0, 256, (600, 16, 16, 1), dtype=np.uint8))
    assert 2 * same < salt < noise
    assert 10 * same < one_class
    assert 10 * same < noise


def test_training_is_the_same_whatever_surrounds_it(tmp_path: Path, short: None) -> None:
    data = striped(60, size=8)
    plain = opened(tmp_path / "a", data)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        disturbed = opened(tmp_path / "b", data)
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")
    with torch.no_grad():
        third = opened(tmp_path / "c", data)
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before)
    assert plain.digest == disturbed.digest == third.digest
    assert np.array_equal(features(plain, data[0]), features(disturbed, data[0]))


def test_a_second_opening_trains_nothing(trained: tuple[Extractor, Path]) -> None:
    extractor, folder = trained
    data = striped(200)
    again = opened(folder, data, progress=untouched)
    assert again.digest == extractor.digest
    assert again.facts == extractor.facts
    assert np.array_equal(features(again, data[0]), features(extractor, data[0]))


def test_other_data_or_classes_are_another_classifier(tmp_path: Path, short: None) -> None:
    data = striped(60, size=8)
    opened(tmp_path, data)
    opened(tmp_path, data, data_digest="1" * 64)
    opened(tmp_path, data, class_names=("lying", "standing", "absent"))
    assert len(list(tmp_path.iterdir())) == 3


def flip_a_bit(path: Path) -> None:
    file = path / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def forget(key: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        file = path / "classifier.json"
        about = json.loads(file.read_text(encoding="utf-8"))
        del about[key]
        file.write_text(json.dumps(about), encoding="utf-8")

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        lambda path: (path / "model.safetensors").unlink(),
        lambda path: (path / "classifier.json").write_bytes(b'{"format": 1, '),
        lambda path: (path / "classifier.json").write_bytes(b"[]"),
        forget("known"),
        forget("sha256"),
    ],
    ids=["bit", "no-model", "cut", "list", "no-known", "no-sha256"],
)
def test_a_damaged_classifier_is_named_and_trained_again(
    damage: Callable[[Path], object], tmp_path: Path, short: None
) -> None:
    data = striped(40, size=8)
    first = opened(tmp_path, data)
    path = only(tmp_path)
    damage(path)
    said: list[str] = []
    again = opened(tmp_path, data, notify=said.append)
    (line,) = said
    assert str(path) in line
    assert "damaged" in line
    assert "\n" not in line
    assert again.digest == first.digest
    assert only(tmp_path) == path
    opened(tmp_path, data, progress=untouched)


def test_other_arithmetic_is_refused(tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    data = striped(40, size=8)
    opened(tmp_path, data)

    def careless(network: Classifier, pictures: torch.Tensor) -> torch.Tensor:
        return F.interpolate(pictures.float(), network.size, mode="bilinear").div(127.5).sub(1)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "normalised", careless)
        with pytest.raises(SaganError, match=r"features of known images differ.*delete this folder") as refusal:
            opened(tmp_path, data)
        assert str(only(tmp_path)) in str(refusal.value)
    file = only(tmp_path) / "classifier.json"
    about = json.loads(file.read_text(encoding="utf-8"))
    about["known"] = (np.array(about["known"]) * 1.002).tolist()
    file.write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(SaganError, match="features of known images differ"):
        opened(tmp_path, data)
    about["known"] = about["known"][:1]
    file.write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(SaganError, match="features of known images differ"):
        opened(tmp_path, data)


def test_an_interrupt_leaves_nothing(tmp_path: Path, short: None) -> None:
    @contextmanager
    def impatient(label: str, total: int) -> Iterator[Callable[[int, int], None]]:
        def tick(done: int, all_of_it: int) -> None:
            if done > total // 2:
                raise KeyboardInterrupt

        yield tick

    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path, striped(40, size=8), progress=impatient)
    assert list(tmp_path.iterdir()) == []


def test_what_another_process_wrote_meanwhile_is_used(tmp_path: Path, short: None) -> None:
    data = striped(40, size=8)
    opened(tmp_path / "other", data)
    theirs = only(tmp_path / "other")
    file = theirs / "classifier.json"
    about = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(about | {"accuracy": 0.987}), encoding="utf-8")

    @contextmanager
    def overtaken(label: str, total: int) -> Iterator[Callable[[int, int], None]]:
        yield lambda done, all_of_it: None
        shutil.move(theirs, tmp_path / "ours" / theirs.name)

    assert opened(tmp_path / "ours", data, progress=overtaken).facts["accuracy"] == 0.987


def test_what_killed_processes_left_is_removed(tmp_path: Path, short: None) -> None:
    for name, age in (("old", 7200), ("new", 10)):
        left = tmp_path / f".tmp-{name}"
        left.mkdir()
        when = left.stat().st_mtime - age
        os.utime(left, (when, when))
    opened(tmp_path, striped(40, size=8))
    assert not (tmp_path / ".tmp-old").exists()
    assert (tmp_path / ".tmp-new").exists()


@pytest.mark.parametrize("class_names", [(), ("all",)])
def test_pictures_without_classes_are_refused(class_names: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs images with classes; use another --extractor"):
        opened(tmp_path, striped(10), class_names=class_names, progress=untouched)


def test_a_cache_that_cannot_be_written_is_said_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SaganError, match="SAGAN_CACHE"):
        opened(tmp_path / "file" / "classifiers", striped(10), progress=untouched)


def test_classes_that_cannot_be_told_apart_are_said(tmp_path: Path, short: None) -> None:
    images = np.random.default_rng(0).integers(0, 256, (400, 8, 8, 1), dtype=np.uint8)
    labels = np.random.default_rng(1).integers(0, 2, 400)
    said: list[str] = []
    opened(tmp_path, (images, labels), notify=said.append)
    opened(tmp_path, (images, labels), notify=said.append)  # at every opening, not the first alone
    assert len(said) == 2
    assert "held-out images" in said[0]
    assert "another --extractor" in said[0]


@pytest.mark.parametrize(
    "labels", [[0, 1], [0] * 11 + [1], [1] * 5, list(range(12))], ids=["two", "rare", "one", "all"]
)
def test_hardly_any_pictures(labels: list[int], tmp_path: Path, short: None) -> None:
    images = striped(len(labels), size=8)[0]
    names = tuple(f"class {i}" for i in range(max(2, *[y + 1 for y in labels])))
    extractor = opened(tmp_path, (images, np.array(labels)), class_names=names)
    found = extractor(three_channels(images), ("features", "logits"))
    assert all(bool(value.isfinite().all()) for value in found.values())
    assert (extractor.facts["accuracy"] is None) == (len(labels) < 10)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_mapped_file_is_read_batch_by_batch(channels: int, tmp_path: Path, short: None) -> None:
    class Watched(np.memmap):  # type: ignore[type-arg]
        most = 0

        def __getitem__(self, places: Any) -> Any:
            found = super().__getitem__(places)
            Watched.most = max(Watched.most, len(found))
            return found

    images, labels = striped(1000, size=8, channels=channels)
    if channels == 4:
        images[..., 3] = 255
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r").view(Watched)
    extractor = opened(tmp_path / "cache", (mapped, labels))
    assert 0 < Watched.most <= 32
    assert extractor.facts["trained_on"] == 900
    if channels == 4:  # opaque: the same pictures as without the fourth channel
        same = opened(tmp_path / "cache", (images[..., :3], labels), data_digest="3")
        assert same.digest == extractor.digest


def test_pictures_of_any_size_and_batch(trained: tuple[Extractor, Path]) -> None:
    extractor = trained[0]
    images = three_channels(striped(9)[0])
    whole = extractor(images, ("features",))["features"]
    torch.testing.assert_close(extractor(images[4:5], ("features",))["features"], whole[4:5], rtol=1e-4, atol=1e-4)
    # Blocks of equal pixels are reduced to nearly what they were made of, by a filter that looks beyond its block.
    blocks = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    near = (extractor(blocks, ("features",))["features"] - whole).norm() / whole.norm()
    assert 0 < near < 0.5
    for height, width in ((1, 1), (5, 40), (97, 33)):
        odd = torch.full((2, 3, height, width), 77, dtype=torch.uint8)
        assert bool(extractor(odd, ("features",))["features"].isfinite().all())
    assert extractor.resize == "antialiased bilinear to 16x16, in float"


def test_the_own_size_is_not_touched_and_others_are_antialiased() -> None:
    network = Classifier((16, 24), 2, torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(1)
    own = torch.randint(256, (2, 3, 16, 24), generator=rng).to(torch.uint8)
    torch.testing.assert_close(network.normalised(own), own.float() / 127.5 - 1)
    board = (torch.arange(64)[:, None] + torch.arange(96)).remainder(2).mul(255).to(torch.uint8).expand(1, 3, 64, 96)
    # A chessboard of single pixels is plain grey from afar; without antialiasing it would stay black and white.
    assert network.normalised(board)[..., 2:-2, 2:-2].abs().max() < 0.05


@pytest.mark.parametrize(
    ("size", "reduced"),
    [((32, 32), (32, 32)), ((64, 64), (64, 64)), ((128, 128), (64, 64)), ((256, 64), (64, 16)), ((4, 512), (1, 64))],
)
def test_large_pictures_are_reduced(size: tuple[int, int], reduced: tuple[int, int]) -> None:
    assert input_size(*size) == reduced
    network = Classifier(reduced, 3, torch.Generator().manual_seed(0)).eval()
    with torch.inference_mode():
        values, logits = network(network.normalised(torch.zeros(1, 3, *size, dtype=torch.uint8)))
    assert values.shape == (1, DIMENSIONS)
    assert logits.shape == (1, 3)


def test_known_images_are_the_same_everywhere() -> None:
    pictures = known_images((8, 16))
    assert pictures.shape == (2, 3, 13, 25)
    assert 0.2 < (pictures[0] < 64).float().mean() < 0.3  # noise over the whole range
    found = hashlib.sha256(pictures.numpy().tobytes()).hexdigest()
    assert found == "b652ca59599a9a1758e74b060ddbc07224e818234515fe5dd9b34f367e647567"
