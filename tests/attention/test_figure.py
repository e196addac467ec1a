"""The still figure: its colours, which points it asks, what it shows, and its files."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image as Pillow

from sagan_cli.attention import colour, numbers, raster
from sagan_cli.attention.cells import centre_of
from sagan_cli.attention.drawing import Dot, Drawing, Image, Outline, Text
from sagan_cli.attention.figure import describe, figure, legend
from sagan_cli.attention.panels import Row, Style, coloured, on_white, percent
from sagan_cli.attention.queries import scattered, telling
from sagan_cli.attention.rows import random_points, rows_of, strip, telling_points
from sagan_cli.attention.scene import Layer, Scene
from sagan_cli.attention.svg import svg

SVG = "{http://www.w3.org/2000/svg}"


def scene(count: int = 2, *, step: int = 100, strength: float = 0.1, flat: bool = False, channels: int = 3) -> Scene:
    """Pictures 16x16; the left half of the 8x8 positions looks at one key of 4x4, the right half at another."""
    rng = np.random.default_rng(step)
    maps = np.full((count, 64, 16), 0.5 / 16, np.float32)
    right = np.arange(64) % 8 >= 4
    maps[:, ~right, 5] += 0.5
    maps[:, right, 10] += 0.5
    if flat:
        maps = np.float32(1 / 16) + (maps - np.float32(1 / 16)) / 100
    layers = tuple(
        Layer(
            network, "8", maps, (8, 8), (4, 4), 0.25, np.full(count, strength, np.float32),
            np.full((count, 64), 0.5, np.float32), np.full((count, 64), 0.4, np.float32),
        )
        for network in "GD"
    )  # fmt: skip
    pictures = rng.integers(0, 256, (count, 16, 16, channels), np.uint8)
    return Scene(step, pictures, tuple(f"seed {i}" for i in range(count)), layers)


G, D = ("G", "8"), ("D", "8")


def drawn(own: Scene | None = None, *, style: Style = Style()) -> Drawing:  # noqa: B008 - frozen
    own = own or scene()
    return figure(rows_of(own, [G], telling_points(own, G, 3)), title="a run", lines=["facts"], style=style)


def test_the_scale_is_even_in_oklab_rises_in_lightness_and_fits_a_screen() -> None:
    steps = np.linalg.norm(np.diff(colour.curve(), axis=0), axis=1)
    assert steps.max() / steps.min() < 1.01
    assert (np.diff(colour.curve()[:, 0]) > 0).all()
    assert colour.srgb(colour.curve()).min() > -0.005
    assert colour.srgb(colour.curve()).max() < 1.005
    table = colour.scale()
    assert table.shape == (256, 3)
    np.testing.assert_array_equal(colour.tint(np.array([[-1.0, 0.0, 0.5, 1.0, 2.0]])), table[[[0, 0, 128, 255, 255]]])


def test_oklab_of_white_black_and_red() -> None:
    lab = np.array([[1.0, 0, 0], [0, 0, 0], [0.6279554, 0.2248631, 0.1258463]])  # red as Ottosson's page has it
    np.testing.assert_allclose(colour.srgb(lab), [[1, 1, 1], [0, 0, 0], [1, 0, 0]], atol=2e-3)


def test_the_dots_differ_for_all_kinds_of_eyes() -> None:
    # Vienot, Brettel and Mollon 1999: what is left of linear RGB without the long or the middle cones.
    blind = {
        "protan": [[0.1124, 0.8876, 0], [0.1124, 0.8876, 0], [0.0040, -0.0040, 1]],
        "deutan": [[0.2928, 0.7072, 0], [0.2928, 0.7072, 0], [-0.0223, 0.0223, 1]],
    }
    dots = (np.array(colour.DOTS) / 255) ** 2.2
    for matrix in (np.eye(3), *map(np.array, blind.values())):
        seen = np.clip(dots @ np.array(matrix).T, 0, 1) ** (1 / 2.2)
        apart = np.linalg.norm(seen[:5, None] - seen[None, :5], axis=-1) + np.eye(5)
        assert apart.min() > 0.14, "the five that a figure has by default"


def test_telling_points_are_far_apart_and_of_every_pattern() -> None:
    own = scene(1)
    cells = telling(own.layers[0].maps[0], (8, 8), 4)
    assert cells == sorted(set(cells)) == telling(own.layers[0].maps[0].copy(), (8, 8), 4)
    assert {cell % 8 >= 4 for cell in cells} == {False, True}
    place = np.stack(np.divmod(cells, 8), 1)
    apart = np.linalg.norm(place[:, None] - place[None], axis=-1) + 99 * np.eye(4)
    random = [
        (np.linalg.norm(p[:, None] - p[None], axis=-1) + 99 * np.eye(4)).min()
        for p in (np.stack(np.divmod(scattered((8, 8), 4, seed), 8), 1) for seed in range(50))
    ]
    assert apart.min() > np.quantile(random, 0.95)
    assert apart.min() >= 3


def test_a_rare_pattern_gets_its_point() -> None:
    maps = np.full((256, 64), 1 / 64)
    maps[17 * 5 : 17 * 5 + 2] = np.eye(64)[3]
    assert {85, 86} & set(telling(maps, (16, 16), 2))
    # Faint differences count as much as strong ones: nothing else tells the positions of a flat layer apart.
    faint = np.full((256, 64), 1 / 64)
    faint[85:87, 3] += 1e-3
    faint[85:87] /= faint[85:87].sum(1, keepdims=True)
    assert {85, 86} & set(telling(faint, (16, 16), 2))


def test_points_of_tiny_even_and_huge_grids() -> None:
    assert telling(np.full((4, 4), 0.25), (2, 2), 7) == [0, 1, 2, 3]
    assert len(set(telling(np.full((64, 4), 0.25), (8, 8), 5))) == 5
    huge = telling(np.random.default_rng(0).dirichlet(np.ones(16), 96 * 128), (96, 128), 5)
    assert len(set(huge)) == 5
    assert max(huge) < 96 * 128


def test_random_points_follow_the_seed() -> None:
    own = scene(2)
    a, b, c = (random_points(own, G, 5, seed) for seed in (0, 0, 1))
    assert a == b != c
    assert a[0] != a[1], "each picture has its own"
    assert all(len(set(points)) == 5 for points in a)


def test_the_figure_shows_maps_that_differ_by_point_and_lie_where_they_should() -> None:
    own = scene(1)
    points = [(centre_of(9, (16, 16), (8, 8)), centre_of(14, (16, 16), (8, 8)))]
    drawing = figure(rows_of(own, [G], points), title="t", lines=[], style=Style(plain=True, cells=True))
    picture, left, right, _bar = [m for m in drawing.marks if isinstance(m, Image)]
    assert picture.width == 192, "12 times 16 pixels"
    np.testing.assert_array_equal(picture.pixels, own.pictures[0])
    brightest = colour.scale()[-1]
    for image, key in ((left, 5), (right, 10)):
        hot = (image.pixels == brightest).all(-1)
        i, j = divmod(key, 4)
        want = np.zeros((192, 192), bool)
        want[48 * i : 48 * (i + 1), 48 * j : 48 * (j + 1)] = True
        np.testing.assert_array_equal(hot, want)
    dots = [m for m in drawing.marks if isinstance(m, Dot)]
    assert [(d.x - picture.left, d.y - picture.top, d.label) for d in dots[:2]] == [(36, 36, "1"), (156, 36, "2")]
    assert (dots[2].x - left.left, dots[3].x - right.left) == (36, 156)
    # Each region is one key's cell: 48 pixels, drawn a little inside.
    a, b = [m for m in drawing.marks if isinstance(m, Outline)]
    for outline, key, colour_ in ((a, 5, colour.DOTS[0]), (b, 10, colour.DOTS[1])):
        i, j = divmod(key, 4)
        middle = np.mean(outline.points, axis=0) - (picture.left, picture.top)
        np.testing.assert_allclose(middle, (48 * j + 24, 48 * i + 24))
        assert outline.colour == colour_
    words = [m.words for m in drawing.marks if isinstance(m, Text)]
    assert words.count("max 53 %, even 6.2 %") == 2


def test_flat_maps_are_stretched_and_said_to_be() -> None:
    flat, sharp = scene(1, flat=True), scene(1)
    assert any(m.words == "6.22 to 6.72 %, even 6.25 %" for m in drawn(flat).marks if isinstance(m, Text))
    assert "least" in drawn(flat).about
    assert "least" not in drawn(sharp).about
    assert not any(isinstance(m, Outline) for m in drawn(flat).marks), "half of an even map is no region"
    assert "Outlines" not in drawn(flat).about
    assert "Outlines" in drawn(sharp).about
    for scale, contrast in (("zero", False), ("range", True)):
        row = rows_of(sharp, [G], [((1.0, 1.0),)])[0]
        assert row.contrasted(Style(scale=scale)) is contrast
    assert legend(Style(), {True, False}, True).count("least") == 1


def test_the_picture_shows_through_where_there_is_no_attention() -> None:
    attention = np.zeros((2, 2), np.float32)
    attention[0, 0] = 1
    white, black = (np.full((4, 4, 3), v, np.uint8) for v in (255, 0))
    light, dark = (coloured(attention, p, (8, 8), Style(cells=True), False) for p in (white, black))
    np.testing.assert_array_equal(light[:4, :4], dark[:4, :4])
    assert (light[4:, 4:] == round(255 * 0.42)).all()
    assert (dark[4:, 4:] == 0).all()
    assert (coloured(attention, white, (8, 8), Style(cells=True, plain=True), False)[4:, 4:] == colour.scale()[0]).all()


def test_pictures_of_one_and_four_channels() -> None:
    assert on_white(np.full((2, 2, 1), 9, np.uint8)).tolist() == [[[9] * 3] * 2] * 2
    assert on_white(np.array([[[10, 20, 30, 0], [10, 20, 30, 255]]], np.uint8)).tolist() == [[[255] * 3, [10, 20, 30]]]
    for channels in (1, 4):
        raster.paint(drawn(scene(1, channels=channels)))


def test_percentages() -> None:
    assert [percent(s) for s in (0.0156, 0.966, 0.125, 1.0, 0.9999, 0.0001)] == [
        "1.6 %", "97 %", "12 %", "100 %", "100 %", "0.01 %",
    ]  # fmt: skip
    assert percent(0.01562, 3) == "1.56 %"


def test_the_png_is_the_drawing_and_repeats_to_the_byte() -> None:
    drawing = drawn()
    data = raster.png(drawing, {"step": 100})
    assert data == raster.png(drawn(), {"step": 100})
    with Pillow.open(io.BytesIO(data)) as image:
        assert image.size == (round(drawing.width), round(drawing.height))
        assert json.loads(image.text["sagan"]) == {"step": 100}
        pixels = np.asarray(image.convert("RGB"))
    # The picture's own pixels, where no mark lies on them: its last corner.
    first = next(m for m in drawing.marks if isinstance(m, Image))
    x, y = round(first.left + first.width) - 1, round(first.top + first.height) - 1
    np.testing.assert_array_equal(pixels[y, x], first.pixels[-1, -1])
    assert len({tuple(p) for p in pixels.reshape(-1, 3)}) > 300


def test_the_svg_is_well_formed_and_holds_vectors_and_pictures() -> None:
    own = scene(2)
    row = rows_of(own, [G], telling_points(own, G, 3))[0]
    odd = Row(own, row.layer, 0, row.points, 'a<b & "c" \x07')
    drawing = figure([row, odd], title="a & b", lines=["<x>"], style=Style())
    root = ET.fromstring(svg(drawing))
    images = root.findall(f"{SVG}image")
    assert len(images) == 2 * 4 + 1
    assert len(root.findall(f"{SVG}circle")) == 2 * 2 * 6, "two rings a dot, each on the picture and on its map"
    assert len(root.findall(f"{SVG}path")) >= 4
    texts = ["".join(t.itertext()) for t in root.findall(f"{SVG}text")]
    assert "a & b" in texts
    assert any(t.startswith('a<b & "c"') for t in texts)
    assert root.find(f"{SVG}title").text == "a & b"
    assert not any("http" in value and key != "xmlns" for e in root.iter() for key, value in e.attrib.items())
    import base64

    data = base64.b64decode(images[0].attrib["href"].split(",", 1)[1])
    np.testing.assert_array_equal(np.asarray(Pillow.open(io.BytesIO(data))), own.pictures[0])


def test_the_pdf_is_one_page_at_print_resolution() -> None:
    drawing = drawn(scene(1))
    data = raster.pdf(drawing)
    assert data == raster.pdf(drawing)
    assert data.startswith(b"%PDF-")
    assert data.rstrip().endswith(b"%%EOF")
    assert data.count(b"/Type /Page\n") == 1
    width, height = round(drawing.width * raster.PRINT), round(drawing.height * raster.PRINT)
    assert f"/Width {width}".encode() in data
    assert f"/Height {height}".encode() in data
    with Pillow.open(io.BytesIO(data[data.index(b"\xff\xd8\xff") :])) as jpeg:
        assert jpeg.size == (width, height)


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_an_animation_has_a_frame_for_each_drawing(kind: str) -> None:
    drawings = [drawn(scene(1, step=step)) for step in (100, 200, 300)]
    with Pillow.open(io.BytesIO(raster.animation(drawings, kind))) as film:
        assert film.n_frames == 3
        frames = []
        for n in range(3):
            film.seek(n)
            frames.append(np.asarray(film.convert("RGB"), np.int16))
        film.load()
        assert film.info["duration"] == raster.LAST_FRAME_MS
    assert np.abs(frames[0] - frames[1]).mean() > 1
    still = np.asarray(raster.paint(drawings[2]), np.int16)
    assert np.abs(frames[2] - still).mean() < 4


def test_long_titles_are_wrapped_and_long_captions_cut() -> None:
    own = scene(1)
    row = Row(own, own.layers[0], 0, ((1.0, 1.0),), "a very long file name " * 9)
    drawing = figure([row], title="word " * 60, lines=[describe(own.layers[0]) * 3], style=Style())
    for mark in drawing.marks:
        if isinstance(mark, Text):
            assert mark.x + raster.width_of(mark.words, mark.size) <= drawing.width, mark.words


def test_a_strip_has_a_row_for_each_checkpoint() -> None:
    scenes = [scene(2, step=step, strength=step / 1000) for step in (10, 20, 30)]
    rows = strip(scenes, [G], telling_points(scenes[-1], G, 2))
    assert [row.caption for row in rows[:3]] == [f"step {s}, adds {s / 10:.0f} %" for s in (10, 20, 30)]
    assert [row.picture for row in rows] == [0, 0, 0, 1, 1, 1]
    assert len({row.points for row in rows[:3]}) == 1
    assert strip(scenes, [G, D], [((1.0, 1.0),)] * 2)[3].caption == "D 8: step 10, adds 1 %"


def test_numbers_of_one_and_of_several_scenes() -> None:
    own = scene(2)
    found = numbers.arrays([own])
    assert set(found) == {"pictures"} | {
        f"{n}8/{k}"
        for n in "GD"
        for k in ("maps", "query_grid", "key_grid", "gamma", "strength", "entropy", "distance")
    }
    with np.load(io.BytesIO(numbers.npz(found, {"step": 100})), allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["G8/maps"], own.layers[0].maps)
        assert archive["G8/key_grid"].tolist() == [4, 4]
        assert json.loads(str(archive["about"])) == {"step": 100}
    from safetensors.numpy import load

    back = load(numbers.safetensors(found, {"step": 100}))
    assert set(back) == set(found)
    np.testing.assert_array_equal(back["D8/maps"], own.layers[1].maps)
    assert back["G8/gamma"] == np.float32(0.25)
    several = numbers.arrays([scene(1, step=5), scene(1, step=10)])
    assert {k.split("/")[0] for k in several} == {"00000005", "00000010"}


def test_the_summary_says_what_is_idle() -> None:
    assert numbers.summary(scene(1).layers[0]) == {
        "network": "G", "layer": "8", "gamma": 0.25, "strength": pytest.approx(0.1), "entropy": 0.5,
        "distance": pytest.approx(0.4), "query_grid": [8, 8], "key_grid": [4, 4], "idle": False,
    }  # fmt: skip
    assert numbers.summary(scene(1, strength=0.009).layers[0])["idle"]
