"""The static figure: its colours, queries, panels, text and files."""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image as Pillow

from sagan_cli.attention import attention_data, plotting
from sagan_cli.attention.attention_data import AttentionData, LayerAttention
from sagan_cli.attention.cells import centre_of
from sagan_cli.attention.figure import (
    Row,
    Style,
    coloured,
    describe,
    figure,
    legend,
    on_white,
    percent,
    rows_by_step,
    rows_of,
)
from sagan_cli.attention.plotting import Plot, animation, encode
from sagan_cli.attention.query_points import random_points, representative, representative_points, scattered

SVG = "{http://www.w3.org/2000/svg}"


def example(
    count: int = 2, *, step: int = 100, strength: float = 0.1, flat: bool = False, channels: int = 3
) -> AttentionData:
    """Images 16x16; the left half of the 8x8 queries attends to one key of 4x4, the right half to another."""
    rng = np.random.default_rng(step)
    maps = np.full((count, 64, 16), 0.5 / 16, np.float32)
    right = np.arange(64) % 8 >= 4
    maps[:, ~right, 5] += 0.5
    maps[:, right, 10] += 0.5
    if flat:
        maps = np.float32(1 / 16) + (maps - np.float32(1 / 16)) / 100
    layers = tuple(
        LayerAttention(
            network, "8", maps, (8, 8), (4, 4), 0.25, np.full(count, strength, np.float32),
            np.full((count, 64), 0.5, np.float32), np.full((count, 64), 0.4, np.float32),
        )
        for network in "GD"
    )  # fmt: skip
    pictures = rng.integers(0, 256, (count, 16, 16, channels), np.uint8)
    return AttentionData(step, pictures, tuple(f"seed {i}" for i in range(count)), layers)


G, D = ("G", "8"), ("D", "8")


def drawn(own: AttentionData | None = None, *, style: Style = Style()) -> Plot:  # noqa: B008 - frozen
    own = own or example()
    return figure(rows_of(own, [G], representative_points(own, G, 3)), title="a run", lines=["facts"], style=style)


def texts(plot: Plot) -> list[str]:
    """The text outside of the panels."""
    return [text.get_text() for text in plot.figure.texts]


def box(plot: Plot, n: int) -> list[float]:
    """Left, top, width and height of panel n in pixels."""
    width, height = plot.figure.bbox.size
    left, bottom, across, up = plot.figure.axes[n].get_position().bounds
    return [left * width, (1 - bottom - up) * height, across * width, up * height]


def queries(plot: Plot, n: int) -> list[tuple[str, str, float, float]]:
    """Number, colour and place of each marker of panel n, in pixels of its image."""
    axes = plot.figure.axes[n]
    return [
        (text.get_text(), line.get_color(), *line.get_xydata()[0])
        for line, text in zip(axes.lines, axes.texts, strict=True)
        if tuple(text.xy) == tuple(line.get_xydata()[0])
    ]


def oklab(srgb: np.ndarray) -> np.ndarray:
    """sRGB (..., 3) in [0, 1] -> OKLab (Ottosson 2020)."""
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_cone = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
               [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
    to_lab = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
              [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip
    return np.cbrt(linear @ np.array(to_cone).T) @ np.array(to_lab).T


def test_the_colour_map_is_even_and_rises_in_lightness() -> None:
    table = plotting.table()
    assert (table.shape, table.dtype) == ((256, 3), np.uint8)
    lab = oklab(table[::5] / 255)
    assert (np.diff(lab[:, 0]) > 0).all()
    steps = np.linalg.norm(np.diff(lab, axis=0), axis=1)[8:]
    assert steps.max() / steps.min() < 2, "but for the darkest shades, where OKLab counts black differently"
    found = plotting.colour_of(np.array([[-1.0, 0.0, 0.5, 1.0, 2.0]]))
    np.testing.assert_array_equal(found, table[[[0, 0, 128, 255, 255]]])


def test_query_colours_differ_for_all_kinds_of_eyes() -> None:
    # Vienot, Brettel and Mollon 1999: what is left of linear RGB without the long or the middle cones.
    blind = {
        "protan": [[0.1124, 0.8876, 0], [0.1124, 0.8876, 0], [0.0040, -0.0040, 1]],
        "deutan": [[0.2928, 0.7072, 0], [0.2928, 0.7072, 0], [-0.0223, 0.0223, 1]],
    }
    dots = np.array([to_rgb(c) for c in plotting.QUERY_COLOURS]) ** 2.2
    for matrix in (np.eye(3), *map(np.array, blind.values())):
        seen = np.clip(dots @ np.array(matrix).T, 0, 1) ** (1 / 2.2)
        apart = np.linalg.norm(seen[:5, None] - seen[None, :5], axis=-1) + np.eye(5)
        assert apart.min() > 0.14, "the five that a figure has by default"


def test_representative_points_are_far_apart_and_of_every_pattern() -> None:
    own = example(1)
    cells = representative(own.layers[0].maps[0], (8, 8), 4)
    assert cells == sorted(set(cells)) == representative(own.layers[0].maps[0].copy(), (8, 8), 4)
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
    assert {85, 86} & set(representative(maps, (16, 16), 2))
    # Faint differences count as much as strong ones: nothing else tells the positions of a flat layer apart.
    faint = np.full((256, 64), 1 / 64)
    faint[85:87, 3] += 1e-3
    faint[85:87] /= faint[85:87].sum(1, keepdims=True)
    assert {85, 86} & set(representative(faint, (16, 16), 2))


def test_points_of_tiny_even_and_huge_grids() -> None:
    assert representative(np.full((4, 4), 0.25), (2, 2), 7) == [0, 1, 2, 3]
    assert len(set(representative(np.full((64, 4), 0.25), (8, 8), 5))) == 5
    huge = representative(np.random.default_rng(0).dirichlet(np.ones(16), 96 * 128), (96, 128), 5)
    assert len(set(huge)) == 5
    assert max(huge) < 96 * 128


def test_random_points_follow_the_seed() -> None:
    own = example(2)
    a, b, c = (random_points(own, G, 5, seed) for seed in (0, 0, 1))
    assert a == b != c
    assert a[0] != a[1], "each picture has its own"
    assert all(len(set(points)) == 5 for points in a)


def test_the_figure_shows_maps_that_differ_by_point_and_lie_where_they_should() -> None:
    own = example(1)
    points = [(centre_of(9, (16, 16), (8, 8)), centre_of(14, (16, 16), (8, 8)))]
    plot = figure(rows_of(own, [G], points), title="t", lines=[], style=Style(plain=True, cells=True))
    picture, left, right, _bar = (axes.images[0].get_array() for axes in plot.figure.axes)
    assert [box(plot, n)[2:] for n in range(3)] == [pytest.approx([192, 192])] * 3, "12 times 16 pixels"
    np.testing.assert_array_equal(picture, own.images[0])
    brightest = plotting.table()[-1]
    for pixels, key in ((left, 5), (right, 10)):
        hot = (pixels == brightest).all(-1)
        i, j = divmod(key, 4)
        want = np.zeros((192, 192), bool)
        want[48 * i : 48 * (i + 1), 48 * j : 48 * (j + 1)] = True
        np.testing.assert_array_equal(hot, want)
    assert all(tuple(axes.images[0].get_extent()) == (0, 16, 16, 0) for axes in plot.figure.axes[:3])
    one, two = ("1", plotting.QUERY_COLOURS[0], 3, 3), ("2", plotting.QUERY_COLOURS[1], 13, 3)
    assert [queries(plot, n) for n in range(3)] == [[one, two], [one], [two]]
    for n in (0, 1):
        assert plot.figure.axes[n + 1].spines["left"].get_edgecolor()[:3] == to_rgb(plotting.QUERY_COLOURS[n])
    # Each region is one key's cell: 4 of the image's pixels, drawn a little inside.
    for outline, key, colour in zip(plot.figure.axes[0].patches, (5, 10), plotting.QUERY_COLOURS, strict=False):
        i, j = divmod(key, 4)
        corners = outline.get_xy()[:-1]
        np.testing.assert_allclose(corners.mean(axis=0), (4 * j + 2, 4 * i + 2))
        assert 3 < np.ptp(corners, axis=0).min() < 4
        assert outline.get_edgecolor()[:3] == to_rgb(colour)
    assert len(plot.figure.axes[0].patches) == 2
    assert texts(plot).count("max 53 %, even 6.2 %") == 2


def test_flat_maps_are_stretched_and_said_to_be() -> None:
    flat, sharp = example(1, flat=True), example(1)
    assert "6.22 to 6.72 %, even 6.25 %" in texts(drawn(flat))
    assert "minimum" in drawn(flat).description
    assert "minimum" not in drawn(sharp).description
    assert not drawn(flat).figure.axes[0].patches, "half of an even map is no region"
    assert "Outlines" not in drawn(flat).description
    assert "Outlines" in drawn(sharp).description
    for scale, contrast in (("zero", False), ("range", True)):
        row = rows_of(sharp, [G], [((1.0, 1.0),)])[0]
        assert row.contrasted(Style(scale=scale)) is contrast
    assert legend(Style(), {True, False}, True).count("minimum") == 1


def test_the_picture_shows_through_where_there_is_no_attention() -> None:
    attention = np.zeros((2, 2), np.float32)
    attention[0, 0] = 1
    white, black = (np.full((4, 4, 3), v, np.uint8) for v in (255, 0))
    light, dark = (coloured(attention, p, (8, 8), Style(cells=True), False) for p in (white, black))
    np.testing.assert_array_equal(light[:4, :4], dark[:4, :4])
    assert (light[4:, 4:] == round(255 * 0.42)).all()
    assert (dark[4:, 4:] == 0).all()
    assert (
        coloured(attention, white, (8, 8), Style(cells=True, plain=True), False)[4:, 4:] == plotting.table()[0]
    ).all()


def test_pictures_of_one_and_four_channels() -> None:
    assert on_white(np.full((2, 2, 1), 9, np.uint8)).tolist() == [[[9] * 3] * 2] * 2
    assert on_white(np.array([[[10, 20, 30, 0], [10, 20, 30, 255]]], np.uint8)).tolist() == [[[255] * 3, [10, 20, 30]]]
    for channels in (1, 4):
        encode(drawn(example(1, channels=channels)), "png", {})


def test_percentages() -> None:
    assert [percent(s) for s in (0.0156, 0.966, 0.125, 1.0, 0.9999, 0.0001)] == [
        "1.6 %", "97 %", "12 %", "100 %", "100 %", "0.01 %",
    ]  # fmt: skip
    assert percent(0.01562, 3) == "1.56 %"


def test_the_png_is_the_figure_and_repeats_to_the_byte() -> None:
    plot = drawn()
    data = encode(plot, "png", {"step": 100})
    assert data == encode(drawn(), "png", {"step": 100})
    with Pillow.open(io.BytesIO(data)) as image:
        assert image.size == tuple(plot.figure.bbox.size)
        assert json.loads(image.text["sagan"]) == {"step": 100}
        assert (image.text["Title"], image.text["Description"]) == (plot.title, plot.description)
        pixels = np.asarray(image.convert("RGB"))
    # The image's own pixels, each 12x12, where no mark lies on them: its last row of pixels.
    left, top, width, height = (round(v) for v in box(plot, 0))
    shown = pixels[top : top + height, left : left + width][-12:]
    np.testing.assert_array_equal(shown, plot.figure.axes[0].images[0].get_array()[-1:].repeat(12, 0).repeat(12, 1))
    # A map is shown whole: the frame lies outside it.
    left, top, width, height = (round(v) for v in box(plot, 1))
    corner = plot.figure.axes[1].images[0].get_array()[:20, :20]
    np.testing.assert_array_equal(pixels[top : top + 20, left : left + 20], corner)
    frame = [round(255 * c) for c in to_rgb(plotting.QUERY_COLOURS[0])]
    assert (pixels[top : top + height, left - 3 : left] == frame).all()
    assert len({tuple(p) for p in pixels.reshape(-1, 3)}) > 300


def test_the_svg_is_well_formed_and_holds_vectors_text_and_images() -> None:
    own = example(2)
    row = rows_of(own, [G], representative_points(own, G, 3))[0]
    odd = Row(own, row.layer, 0, row.points, 'a<b & "c" \x07 \N{CJK UNIFIED IDEOGRAPH-732B} $x$')
    plot = figure([row, odd], title="a & b", lines=["<x>"], style=Style())
    data = encode(plot, "svg", {})
    assert data == encode(figure([row, odd], title="a & b", lines=["<x>"], style=Style()), "svg", {})
    root = ET.fromstring(data)
    images = list(root.iter(f"{SVG}image"))
    assert len(images) == 2 * 4 + 1
    filled = [path.get("style", "") for path in root.iter(f"{SVG}path")]
    found = [sum(style.startswith(f"fill: {colour};") for style in filled) for colour in plotting.QUERY_COLOURS[:4]]
    assert found == [2 * 2 * 2] * 3 + [0], "two rings a query, on the image and on its map"
    found = ["".join(t.itertext()) for t in root.iter(f"{SVG}text")]
    assert "a & b" in found
    assert any(t.startswith('a<b & "c" \ufffd \u732b $x$') for t in found)
    assert root.find(f"{SVG}title").text == "a & b"
    assert b"'DejaVu Sans'" in data
    assert b"sans-serif" in data
    links = [value for e in root.iter() for key, value in e.attrib.items() if key.endswith("href")]
    assert links
    assert all(value.startswith(("#", "data:")) for value in links)
    import base64

    href = images[0].attrib["{http://www.w3.org/1999/xlink}href"]
    with Pillow.open(io.BytesIO(base64.b64decode(href.split(",", 1)[1]))) as image:
        pixels = np.asarray(image.convert("RGB"))
        if "scale(1 -1)" in images[0].attrib.get("transform", ""):
            pixels = pixels[::-1]
        np.testing.assert_array_equal(pixels, own.images[0])


def test_the_pdf_is_one_vector_page_with_truetype_text() -> None:
    plot = drawn(example(1))
    data = encode(plot, "pdf", {})
    assert data == encode(drawn(example(1)), "pdf", {})
    assert data.startswith(b"%PDF-")
    assert data.rstrip().endswith(b"%%EOF")
    assert len(re.findall(rb"/Type /Page\b(?!s)", data)) == 1
    width, height = plot.figure.bbox.size * plotting.POINT
    assert f"/MediaBox [ 0 0 {width:g} {height:g} ]".encode() in data
    assert b"/FontFile2" in data, "TrueType"
    assert b"/Type3" not in data
    assert b"/CreationDate" not in data
    # The image itself and its maps, none of them through JPEG.
    assert data.count(b"/Subtype /Image") == 1 + 3 + 1
    assert b"/Width 16 /Height 16" in data
    assert b"DCTDecode" not in data


def test_figures_neither_change_matplotlib_s_settings_nor_follow_the_user_s() -> None:
    import matplotlib

    plain = encode(drawn(), "png", {})
    with matplotlib.rc_context({"font.size": 30, "axes.linewidth": 9, "lines.linewidth": 9, "image.cmap": "gray"}):
        before = dict(matplotlib.rcParams)
        assert encode(drawn(), "png", {}) == plain
        assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_an_animation_has_a_frame_for_each_drawing(kind: str) -> None:
    plots = [drawn(example(1, step=step)) for step in (100, 200, 300)]
    with Pillow.open(io.BytesIO(animation(plots, kind))) as film:
        assert film.n_frames == 3
        frames = []
        for n in range(3):
            film.seek(n)
            frames.append(np.asarray(film.convert("RGB"), np.int16))
        film.load()
        assert film.info["duration"] == plotting.LAST_FRAME_MS
    assert np.abs(frames[0] - frames[1]).mean() > 1
    with Pillow.open(io.BytesIO(encode(plots[2], "png", {}))) as image:
        still = np.asarray(image.convert("RGB"), np.int16)
    assert np.abs(frames[2] - still).mean() < 4


def test_long_titles_are_wrapped_and_long_captions_cut() -> None:
    own = example(1)
    row = Row(own, own.layers[0], 0, ((1.0, 1.0),), "a very long file name " * 9)
    plot = figure([row], title="word " * 60 + "w" * 300, lines=[describe(own.layers[0]) * 3], style=Style())
    renderer = plot.figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in plot.figure.texts]
    width, height = plot.figure.bbox.size
    for text, where in zip(plot.figure.texts, boxes, strict=True):
        assert 0 < where.x0 < where.x1 <= width, text.get_text()
        assert 0 < where.y0 < where.y1 <= height, text.get_text()
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert sum(text.get_text().endswith("...") for text in plot.figure.texts) == 2


def test_seven_queries_and_both_networks_without_overlap() -> None:
    own = example(2)
    plot = figure(rows_of(own, [G, D], representative_points(own, G, 7)), title="t", lines=["a", "b"], style=Style())
    assert len(plot.figure.axes) == 4 * 8 + 1
    renderer = plot.figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in plot.figure.texts]
    boxes += [axes.get_window_extent(renderer) for axes in plot.figure.axes]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_a_strip_has_a_row_for_each_checkpoint() -> None:
    checkpoints = [example(2, step=step, strength=step / 1000) for step in (10, 20, 30)]
    rows = rows_by_step(checkpoints, [G], representative_points(checkpoints[-1], G, 2))
    assert [row.caption for row in rows[:3]] == [f"step {s}, adds {s / 10:.0f} %" for s in (10, 20, 30)]
    assert [row.index for row in rows] == [0, 0, 0, 1, 1, 1]
    assert len({row.points for row in rows[:3]}) == 1
    assert rows_by_step(checkpoints, [G, D], [((1.0, 1.0),)] * 2)[3].caption == "D 8: step 10, adds 1 %"


def test_numbers_of_one_and_of_several_checkpoints() -> None:
    own = example(2)
    found = attention_data.arrays([own])
    assert set(found) == {"pictures"} | {
        f"{n}8/{k}"
        for n in "GD"
        for k in ("maps", "query_grid", "key_grid", "gamma", "strength", "entropy", "distance")
    }
    with np.load(io.BytesIO(attention_data.npz(found, {"step": 100})), allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["G8/maps"], own.layers[0].maps)
        assert archive["G8/key_grid"].tolist() == [4, 4]
        assert json.loads(str(archive["about"])) == {"step": 100}
    from safetensors.numpy import load

    back = load(attention_data.safetensors(found, {"step": 100}))
    assert set(back) == set(found)
    np.testing.assert_array_equal(back["D8/maps"], own.layers[1].maps)
    assert back["G8/gamma"] == np.float32(0.25)
    several = attention_data.arrays([example(1, step=5), example(1, step=10)])
    assert {k.split("/")[0] for k in several} == {"00000005", "00000010"}


def test_the_summary_says_what_is_idle() -> None:
    assert attention_data.summary(example(1).layers[0]) == {
        "network": "G", "layer": "8", "gamma": 0.25, "strength": pytest.approx(0.1), "entropy": 0.5,
        "distance": pytest.approx(0.4), "query_grid": [8, 8], "key_grid": [4, 4], "idle": False,
    }  # fmt: skip
    assert attention_data.summary(example(1, strength=0.009).layers[0])["idle"]
