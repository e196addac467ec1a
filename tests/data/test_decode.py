"""Every mode, depth and kind of damage that an image file comes in."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import image_files as make

from sagan_cli.data.decode import MAX_PIXELS, decode
from sagan_cli.data.sources.folders import is_image_name
from sagan_cli.errors import BadImage


def coded(image: Image.Image, kind: str, **options: object) -> io.BytesIO:
    out = io.BytesIO()
    image.save(out, kind, **options)
    out.seek(0)
    return out


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA", "WEBP", "GIF"])
def test_lossless_formats_give_their_pixels_back(kind: str) -> None:
    pixels = make.noise(1)
    options = {"lossless": True} if kind == "WEBP" else {}
    image = Image.fromarray(pixels)
    if kind == "GIF":  # 30 blocks of colour fit a palette exactly
        image = image.quantize(256)
        pixels = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode(coded(image, kind, **options)), pixels)


def test_jpeg_is_close() -> None:
    pixels = np.full((16, 24, 3), (200, 30, 90), np.uint8)
    got = decode(coded(Image.fromarray(pixels), "JPEG", quality=95))
    assert got.shape == pixels.shape
    assert np.abs(got.astype(int) - pixels).max() <= 4


def test_gray_stays_gray_and_bilevel_becomes_0_and_255() -> None:
    gray = make.noise(2, channels=1)
    np.testing.assert_array_equal(decode(coded(Image.fromarray(gray), "PNG")), gray)
    bilevel = decode(coded(Image.fromarray(gray > 127), "PNG"))
    np.testing.assert_array_equal(bilevel, np.where(gray > 127, 255, 0))


def test_a_palette_is_expanded() -> None:
    image = Image.fromarray(make.noise(3)).quantize(64)
    np.testing.assert_array_equal(decode(coded(image, "PNG")), np.asarray(image.convert("RGB")))


def test_a_transparent_palette_entry_gives_alpha() -> None:
    image = Image.new("P", (4, 2))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1, 0, 1, 0, 1, 0, 1])
    got = decode(coded(image, "PNG", transparency=0))
    assert got.shape == (2, 4, 4)
    assert got[0, 0, 3] == 0
    assert tuple(got[0, 1]) == (0, 255, 0, 255)


def test_a_transparent_gray_value_and_a_transparent_colour_give_alpha() -> None:
    gray = np.array([[10, 200]], np.uint8)
    assert decode(coded(Image.fromarray(gray), "PNG", transparency=10)).tolist() == [
        [[10] * 3 + [0], [200] * 3 + [255]]
    ]
    colour = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    assert decode(coded(Image.fromarray(colour), "PNG", transparency=(1, 2, 3)))[0, :, 3].tolist() == [0, 255]


def test_gray_with_alpha_and_colour_with_alpha_keep_it() -> None:
    both = np.array([[[50, 0], [60, 128]]], np.uint8)
    assert decode(coded(Image.fromarray(both, "LA"), "PNG")).tolist() == [[[50, 50, 50, 0], [60, 60, 60, 128]]]
    rgba = make.noise(4, channels=4)
    np.testing.assert_array_equal(decode(coded(Image.fromarray(rgba), "PNG")), rgba)


def test_cmyk_and_ycbcr_become_rgb() -> None:
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # no cyan, full magenta and yellow: red
    red = decode(coded(cmyk, "TIFF"))
    assert red.shape == (8, 8, 3)
    assert red[0, 0, 0] > 200
    assert red[0, 0, 1:].max() < 60
    jpeg = decode(coded(cmyk, "JPEG", quality=95))
    assert np.abs(jpeg.astype(int) - red).max() <= 6
    blue = Image.new("RGB", (8, 8), (0, 0, 255))
    assert np.abs(decode(coded(blue.convert("YCbCr"), "TIFF")).astype(int) - (0, 0, 255)).max() <= 2


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind: str) -> None:
    ramp = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    np.testing.assert_array_equal(decode(coded(Image.fromarray(ramp), kind)), np.arange(256).reshape(16, 16))


def test_sixteen_bits_round_to_the_nearest_value() -> None:
    values = np.array([[0, 128, 129, 385, 386, 65406, 65407, 65535]], np.uint16)
    assert decode(coded(Image.fromarray(values), "PNG")).tolist() == [[0, 0, 1, 1, 2, 254, 255, 255]]


def test_sixteen_bit_big_endian_and_pgm() -> None:
    ramp = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    pgm = io.BytesIO(b"P5 16 16 65535\n" + ramp.astype(">u2").tobytes())  # opens in mode I
    np.testing.assert_array_equal(decode(pgm), np.arange(256).reshape(16, 16))
    tiff = coded(Image.frombytes("I;16B", (16, 16), ramp.astype(">u2").tobytes()), "TIFF")
    np.testing.assert_array_equal(decode(tiff), np.arange(256).reshape(16, 16))


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_floats_are_scaled_by_the_range_they_use(white: float) -> None:
    ramp = (np.linspace(0, 1, 256, dtype=np.float32) * white).reshape(16, 16)
    got = decode(coded(Image.fromarray(ramp), "TIFF")).astype(int)
    assert np.abs(got - np.arange(256).reshape(16, 16)).max() == 0


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.array([[-1, 5]], np.int32), "neither 8 nor 16 bits"),
        (np.array([[0, 70000]], np.int32), "neither 8 nor 16 bits"),
        (np.array([[0, np.nan]], np.float32), "not finite"),
    ],
)
def test_values_of_unknown_range_are_refused(values: np.ndarray, says: str) -> None:
    with pytest.raises(BadImage, match=says):
        decode(coded(Image.fromarray(values), "TIFF"))


UPRIGHT = np.array([[1, 2, 3], [4, 5, 6]], np.uint8) * 40
STORED = {  # EXIF: how the rows and columns of the file lie for each orientation of the scene above
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.T,
    6: UPRIGHT[:, ::-1].T,
    7: UPRIGHT[::-1, ::-1].T,
    8: UPRIGHT[::-1].T,
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_exif_rotation_is_undone(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED[orientation]).repeat(16, 0).repeat(16, 1)
    options = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}, "JPEG": {"quality": 95}}[kind]
    got = decode(coded(Image.fromarray(stored), kind, exif=exif, **options))
    got = got if got.ndim == 2 else got[..., 0]
    assert np.abs(got[8::16, 8::16].astype(int) - UPRIGHT).max() <= 3


def test_exif_that_cannot_be_parsed_costs_the_rotation_only() -> None:
    pixels = make.noise(5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nor does Pillow's remark about it reach the user
        got = decode(coded(Image.fromarray(pixels), "PNG", exif=b"Exif\0\0MM\0\x2a\0\0\xff\xff"))
    np.testing.assert_array_equal(got, pixels)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    got = decode(coded(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert got[4, 4, :3].tolist() == [255, 0, 0]


def test_a_path_works_as_well_and_is_closed_again(tmp_path: Path) -> None:
    pixels = make.noise(6)
    np.testing.assert_array_equal(decode(make.save(tmp_path / "a.png", pixels)), pixels)


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header declares this size; its data are a few bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [9_460, 13_000, 60_000], ids=["just-over", "warning", "error"])
def test_bombs_are_refused_by_their_header(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert side * side > MAX_PIXELS
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded a bomb"))
    with pytest.raises(BadImage, match="too large"):
        decode(io.BytesIO(bomb(side, side)))


def test_bombs_are_refused_where_pillow_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(BadImage, match="too large: 60000x60000"):
        decode(io.BytesIO(bomb(60_000, 60_000)))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty file"),
        (b"hello, I am a text", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (bomb(100, 100), "truncated"),
    ],
    ids=["empty", "text", "eps", "short-png"],
)
def test_damage_has_a_reason_of_a_few_words(data: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(BadImage, match=says):
        decode(io.BytesIO(data))
    path = tmp_path / "x.png"
    path.write_bytes(data)
    with pytest.raises(BadImage, match=says) as caught:
        decode(path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)  # the caller names the file


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_a_file_cut_in_half_is_bad(kind: str) -> None:
    data = coded(Image.fromarray(make.noise(7, 64, 64)), kind).getvalue()
    with pytest.raises(BadImage):
        decode(io.BytesIO(data[: len(data) // 2]))


def test_a_missing_file_is_a_bad_image(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="no such file"):
        decode(tmp_path / "gone.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA"])
def test_random_damage_gives_pixels_or_bad_image_and_nothing_else(kind: str) -> None:
    whole = coded(Image.fromarray(make.noise(8, 32, 32)), kind).getvalue()
    rng = np.random.default_rng(9)
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(0, min(len(data), 200), 4):
            data[place] = rng.integers(256)
        with contextlib.suppress(BadImage):  # any other exception fails the test
            got = decode(io.BytesIO(bytes(data)))
            assert got.dtype == np.uint8
            assert got.ndim == 2 or got.shape[2] in (3, 4)


def test_names_of_pictures() -> None:
    assert all(map(is_image_name, ("a.png", "B.JPG", "c.Jpeg", "d.webp", "e.TIFF", "f.pgm")))
    assert not any(map(is_image_name, ("a.txt", "png", "a.eps", "a.svg", "a.png.part", "")))
