"""Crop, border, resize and channels, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from support import image_files as make

from sagan_cli.data.decode import fit, is_gray


def test_a_picture_of_the_right_size_is_not_touched() -> None:
    for channels in (1, 3, 4):
        pixels = make.noise(1, 24, 16, channels)
        for how in ("crop", "pad", "stretch"):
            got = fit(pixels, 24, 16, channels, how)
            np.testing.assert_array_equal(got, pixels.reshape(24, 16, channels))


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 32), (32, 16), (12, 16)])
def test_crop_takes_the_largest_centred_part(height: int, width: int) -> None:
    # Each pixel of the source holds its own column and row; a linear ramp survives any symmetric filter.
    rows, columns = np.mgrid[0:96, 0:120]
    ramp = np.stack([columns * 2, rows * 2, np.zeros_like(rows)], -1).astype(np.uint8)
    got = fit(ramp, height, width, 3, "crop").astype(float)
    scale = min(96 / height, 120 / width)
    x = (120 - width * scale) / 2 + (np.arange(width) + 0.5) * scale - 0.5
    y = (96 - height * scale) / 2 + (np.arange(height) + 0.5) * scale - 0.5
    inner = slice(2, -2)  # at the very edge the filter is cut off
    assert np.abs(got[inner, inner, 0] - 2 * x[None, inner]).max() <= 1.5
    assert np.abs(got[inner, inner, 1] - 2 * y[inner, None]).max() <= 1.5


def test_shrinking_does_not_alias() -> None:
    stripes = np.zeros((128, 128), np.uint8)
    stripes[:, ::2] = 255  # finer than the target can show: all that is left is their mean
    got = fit(stripes, 16, 16, 1, "crop")
    assert np.abs(got[:, 1:-1].astype(int) - 127).max() <= 2
    assert np.abs(got.astype(int) - 127).max() <= 8  # the filter is cut off at the edge


def test_stretch_gives_up_the_aspect() -> None:
    halves = np.zeros((40, 80, 3), np.uint8)
    halves[:, 40:] = 200
    got = fit(halves, 16, 16, 3, "stretch")
    assert got[:, :7].max() <= 12
    assert got[:, 9:].min() >= 188


def test_pad_frames_a_slightly_smaller_picture_in_black_and_keeps_its_pixels() -> None:
    digit = make.noise(2, 28, 28, 1)
    got = fit(digit, 32, 32, 1, "pad")
    np.testing.assert_array_equal(got[2:30, 2:30, 0], digit)
    assert got.sum() == digit.sum()
    three = fit(digit, 32, 32, 3, "pad")
    np.testing.assert_array_equal(three, got.repeat(3, 2))
    four = fit(digit, 32, 32, 4, "pad")
    assert four[0, 0].tolist() == [0, 0, 0, 0]
    assert four[2, 2, 3] == 255


def test_pad_scales_a_picture_of_another_size_into_the_frame() -> None:
    wide = np.full((50, 100, 3), 90, np.uint8)
    got = fit(wide, 32, 32, 3, "pad")
    assert (got[8:24] == 90).all()
    assert got[:8].max() == got[24:].max() == 0
    tiny = np.full((4, 8), 90, np.uint8)
    assert (fit(tiny, 64, 64, 1, "pad")[16:48] == 90).all()


def test_the_border_is_at_most_eight_pixels_a_side() -> None:
    block = np.full((48, 48), 9, np.uint8)
    assert fit(block, 64, 64, 1, "pad").sum() == block.sum()
    smaller = np.full((46, 46), 9, np.uint8)
    assert (fit(smaller, 64, 64, 1, "pad") == 9).all()


def test_channels_are_made_from_any_others() -> None:
    gray, colour = make.noise(3, 16, 16, 1), make.noise(4, 16, 16, 3)
    np.testing.assert_array_equal(fit(gray[..., None], 16, 16, 3, "crop"), gray[..., None].repeat(3, 2))
    np.testing.assert_array_equal(
        fit(colour, 16, 16, 1, "crop")[..., 0], np.asarray(Image.fromarray(colour).convert("L"))
    )
    four = fit(colour, 16, 16, 4, "crop")
    np.testing.assert_array_equal(four[..., :3], colour)
    assert (four[..., 3] == 255).all()


def test_transparency_lies_on_white_or_is_kept() -> None:
    red = np.zeros((16, 16, 4), np.uint8)
    red[..., 0] = 255
    red[:, 8:, 3] = 255
    red[:, 4:8, 3] = 128
    on_white = fit(red, 16, 16, 3, "crop")
    assert on_white[0, 0].tolist() == [255, 255, 255]
    assert on_white[0, 12].tolist() == [255, 0, 0]
    assert on_white[0, 5].tolist() == [255, 127, 127]
    assert fit(red, 16, 16, 1, "crop")[0, 0, 0] == 255
    np.testing.assert_array_equal(fit(red, 16, 16, 4, "crop"), red)


def test_hidden_colours_do_not_bleed_when_alpha_is_resized() -> None:
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[:, :32] = (0, 255, 0, 0)  # invisible green
    picture[:, 32:] = (200, 0, 0, 255)
    got = fit(picture, 16, 16, 4, "crop")
    visible = got[got[..., 3] > 8]
    assert visible[:, 1].max() <= 8


@pytest.mark.parametrize(("height", "width"), [(1, 500), (500, 1), (1, 1), (2, 3)])
@pytest.mark.parametrize("how", ["crop", "pad", "stretch"])
def test_extreme_shapes_still_fit(height: int, width: int, how: str) -> None:
    got = fit(np.full((height, width, 3), 77, np.uint8), 32, 64, 3, how)
    assert got.shape == (32, 64, 3)
    assert 77 in got


def test_gray_is_a_matter_of_values() -> None:
    gray = make.noise(5, channels=1)
    assert is_gray(gray)
    assert is_gray(gray[..., None])
    assert is_gray(np.stack([gray] * 3, -1))
    assert not is_gray(make.noise(5))
    assert is_gray(Image.fromarray(gray))
    nearly = np.stack([gray] * 3, -1)
    nearly[3, 3, 1] ^= 1
    assert not is_gray(nearly)
