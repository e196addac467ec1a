"""Whether mirrored images are told from the originals, on data whose answer is known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from sagan_cli.contracts import Tick
from sagan_cli.data.mirror import check_mirror, mirror_of
from sagan_cli.data.sources.opening import open_source

NONE = torch.zeros(400, dtype=torch.long)


def letters(text: str, count: int = 400, *, mirror: bool = False) -> tuple[Tensor, Tensor]:
    """Images of letters at random positions, with the letter as class; half of them mirrored."""
    rng = np.random.default_rng(0)
    images, labels = [], []
    for i in range(count):
        canvas = Image.new("RGB", (32, 32), tuple(rng.integers(0, 80, 3).tolist()))
        place = tuple(rng.integers(2, 12, 2).tolist())
        ImageDraw.Draw(canvas).text(place, text[i % len(text)], fill="white", font_size=16)
        image = np.asarray(canvas).astype(np.float64) / 127.5 - 1
        images.append(image[:, ::-1] if mirror and rng.random() < 0.5 else image)
        labels.append(i % len(text))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.tensor(labels)


def test_letters_are_recognised_and_their_mixture_with_mirrored_ones_is_not() -> None:
    found = mirror_of(*letters("FR"))
    assert found.recognised > 0.9
    assert not found.allowed
    mixed = mirror_of(*letters("FR", mirror=True))
    assert abs(mixed.recognised - 0.5) < 0.1
    assert mixed.allowed


def test_classes_that_differ_by_their_direction_are_recognised() -> None:
    # Without the classes the set is symmetric: it holds as many b as d.
    images, labels = letters("bd")
    symmetric = torch.cat([images, images.flip(3)])
    classes = torch.cat([labels, 1 - labels])
    assert not mirror_of(symmetric, classes).allowed
    assert mirror_of(symmetric, torch.zeros_like(classes)).recognised < 0.6


def test_few_images_prove_nothing() -> None:
    images, labels = letters("O", 40)
    assert not mirror_of(images, labels).allowed
    assert not mirror_of(images[:3], labels[:3]).allowed
    blank = mirror_of(torch.zeros(400, 3, 32, 32).double(), NONE)
    assert blank.recognised == 0.5


@contextmanager
def progress(label: str, total: int) -> Iterator[Tick]:
    yield lambda done, total=None: None


def test_the_embedded_animals_may_be_mirrored() -> None:
    animals = open_source("quadrupeds", data_root=Path("data"), split="train", height=32, width=32, unconditional=False)
    found = check_mirror(animals, progress)
    assert found.allowed
    assert found.images == 400
    assert "mirrored images recognised" in str(found)
