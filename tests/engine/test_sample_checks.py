"""The checks of the sample grid on images whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sagan_cli.data.packing.pack import Pack
from sagan_cli.engine import sample_checks
from sagan_cli.engine.sample_checks import SampleChecks
from sagan_cli.quadrupeds import build


def images(first: int, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    dataset = build(Path(), split="train", height=32, width=32)
    read = [dataset.read(i) for i in range(first, first + count)]
    return np.stack([image for image, _ in read]), np.array([label for _, label in read])


@pytest.fixture(scope="module")
def checks() -> SampleChecks:
    x, y = images(0, 600)
    return SampleChecks(Pack(Path(), x, y, ("a",) * 6, "", (), 600, True), np.arange(600))


def test_other_images_of_the_data_are_as_varied_and_no_copies(checks: SampleChecks) -> None:
    x, y = images(1000, 60)
    found = checks.measure(x, y.tolist())
    assert found["variety"] == pytest.approx(1, abs=0.1)
    assert found["copies"] < 0.1


def test_one_image_in_other_colours_has_no_variety(checks: SampleChecks) -> None:
    x, y = images(1000, 60)
    rng = np.random.default_rng(0)
    same = np.stack([x[np.flatnonzero(y == label)[0]] for label in y]).astype(float)
    tinted = same * rng.uniform(0.5, 1, (60, 1, 1, 3)) + rng.uniform(0, 60, (60, 1, 1, 3))
    found = checks.measure(tinted.clip(0, 255).astype(np.uint8), y.tolist())
    assert found["variety"] < 0.35


def test_training_images_with_noise_are_copies(checks: SampleChecks) -> None:
    x, y = images(30, 60)
    noisy = x + np.random.default_rng(0).normal(0, 6, x.shape)
    found = checks.measure(noisy.clip(0, 255).astype(np.uint8), y.tolist())
    assert found["copies"] > 0.9


def test_large_images_are_read_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = images(0, 40)
    data = Pack(Path(), x, y, ("a",) * 6, "", (), 40, True)
    whole = SampleChecks(data, np.arange(40))
    monkeypatch.setattr(sample_checks, "CHUNK", 7)
    chunked = SampleChecks(data, np.arange(40))
    assert chunked.edges.equal(whole.edges)
    assert chunked.coarse.equal(whole.coarse)


def test_without_classes_and_with_few_images(checks: SampleChecks) -> None:
    x, _ = images(1000, 8)
    assert set(checks.measure(x, None)) == {"variety", "copies"}
    assert checks.measure(x[:3], [0, 1, 2]) == {"copies": 0.0}
    gray = np.zeros((1, 8, 8, 1), np.uint8)
    alone = SampleChecks(Pack(Path(), gray, np.zeros(1, np.int64), (), "", (), 1, True), np.arange(1))
    assert alone.measure(gray, None) == {"copies": 0.0}
