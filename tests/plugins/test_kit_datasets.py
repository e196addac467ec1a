"""The conformance kit against sound and spoilt data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sagan_cli.errors import BadImage, DataError, UsageError
from sagan_cli.testing import check_dataset


class Dots:
    """A sound data set, for the tests below to spoil one thing at a time."""

    class_names: object = ("a", "b")

    def __init__(self, seed: int = 0, side: int = 32) -> None:
        self.seed, self.side = seed, side

    def __len__(self) -> int:
        return 20

    def fingerprint(self) -> str:
        return f"dots {self.seed} {self.side}"

    def read(self, index: int):
        pixels = np.random.default_rng((self.seed, index)).integers(0, 255, (self.side, 8, 3), np.uint8)
        return pixels, index % 2


def opens(kind: type[Dots]):
    def factory(root: Path, *, split: str, height: int, width: int) -> Dots:
        if split not in ("train", "test"):
            raise UsageError(f"--split {split}")
        return kind(int(split == "test"), height)

    return factory


class Unlabelled(Dots):
    class_names = ()

    def read(self, index):
        if index == 0:
            raise BadImage("torn")
        return super().read(index)[0][..., 0], 0


@pytest.mark.parametrize("kind", [Dots, Unlabelled])
def test_sound_data_sets_pass(kind: type[Dots], tmp_path: Path):
    check_dataset(opens(kind), tmp_path)


class NoFingerprint:
    class_names = ()
    __len__ = Dots.__len__
    read = Dots.read

    def __init__(self, *_: int) -> None:
        self.seed, self.side = 0, 32


class Empty(Dots):
    def __len__(self):
        return 0


class Names(Dots):
    class_names = "ab"


class Twice(Dots):
    class_names = ("a", "a")


class Floats(Dots):
    def read(self, index):
        return super().read(index)[0] / 255, 0


class Planes(Dots):
    def read(self, index):
        return super().read(index)[0].transpose(2, 0, 1), 0


class Labels(Dots):
    def read(self, index):
        return super().read(index)[0], 2


class Texts(Dots):
    def read(self, index):
        return super().read(index)[0], "a"


class Restless(Dots):
    def read(self, index):
        return np.random.default_rng().integers(0, 255, (8, 8), np.uint8), 0


class Buffered(Dots):
    def read(self, index):
        self.count = getattr(self, "count", 0) + 1
        return np.full((8, 8), self.count, np.uint8), 0


class Torn(Dots):
    def read(self, index):
        raise BadImage("torn")


class Careless(Dots):
    def read(self, index):
        raise OSError("torn")


class OneName(Dots):
    def fingerprint(self):
        return "dots"


class BySplit(Dots):
    def fingerprint(self):
        return f"dots {self.side}"


class Anew(Dots):
    def fingerprint(self):
        return f"dots {id(self)}"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (NoFingerprint, "must return an object with class_names, __len__, fingerprint and read"),
        (Empty, "the split 'train' is empty"),
        (Names, "class_names is 'ab': a list or tuple"),
        (Twice, "holds a name twice"),
        (Floats, r"read\(0\) must return pixels as a uint8 array, and returned float64"),
        (Planes, r"read\(0\) has shape \(3, 32, 8\)"),
        (Labels, r"the label of read\(0\) is 2, outside 0\.\.1"),
        (Texts, r"the label of read\(0\) is 'a': an int"),
        (Restless, "read a second time, in reverse order differs"),
        (Buffered, "read a second time, in reverse order differs"),
        (Torn, "none of 12 images can be read"),
        (Careless, r"read\(0\) raised OSError: torn; bad images raise BadImage"),
        (OneName, "opened for 64x32 has other images and the same fingerprint"),
        (BySplit, "the split 'test' has other images and the same fingerprint"),
        (Anew, "the fingerprint changes"),
    ],
)
def test_the_kit_finds_what_is_wrong_with_a_data_set(kind, message: str, tmp_path: Path):
    with pytest.raises(AssertionError, match=message):
        check_dataset(opens(kind), tmp_path)


def test_the_kit_wants_unknown_splits_refused(tmp_path: Path):
    with pytest.raises(AssertionError, match="an unknown split must be refused"):
        check_dataset(lambda root, *, split, height, width: Dots(), tmp_path)


def test_the_kit_accepts_a_single_split(tmp_path: Path):
    def factory(root: Path, *, split: str, height: int, width: int) -> Dots:
        if split == "test":
            raise DataError("no test split here")
        return opens(Dots)(root, split=split, height=height, width=width)

    check_dataset(factory, tmp_path)
