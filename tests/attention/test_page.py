"""The interactive page: what it holds, and, in a real browser, that it shows the right map of the right position."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.browser import chrome, complaints, emulate, requests, screen

from sagan_cli.attention import page_data
from sagan_cli.attention.attention_data import AttentionData, LayerAttention
from sagan_cli.attention.page import BUDGET, page
from sagan_cli.errors import SaganError

STEPS = (100, 900, 2500)
SIZE = (32, 48)
GRIDS = {"G 16": ((8, 12), (4, 6)), "G 24": ((16, 24), (8, 12)), "D 12": ((8, 12), (8, 12))}
"""Queries and keys: pooled, finer and pooled, not pooled. None is square, so that no axis can be taken for another."""
TITLE = "Run 7 </title><script>alert(1)</script> & more"
CAPTIONS = ("seed 0, fox", "</script><b id=bad>bold</b>", "<!-- & \" ' -->", "seed 3, {{script}}")


def rows(rng: np.random.Generator, b: int, n: int, m: int, sharp: float = 3.0) -> NDArray[np.float32]:
    """Attention of b pictures: softmax over m keys for each of n positions."""
    p = np.exp(rng.normal(size=(b, n, m)) * sharp)
    return (p / p.sum(-1, keepdims=True)).astype(np.float32)


def layer(key: str, maps: NDArray[np.float32], queries: Any, keys: Any, strength: float = 0.2) -> LayerAttention:
    """A layer whose numbers are those of its maps, from their definitions."""
    p = maps.astype(np.float64)
    entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(-1) / np.log(p.shape[-1])
    shape = np.array(queries) / max(queries)  # the picture, in its longer side
    q, k = ((np.indices(grid).reshape(2, -1).T + 0.5) / grid * shape for grid in (queries, keys))
    apart = np.sqrt(((q[:, None] - k) ** 2).sum(-1))
    b = len(maps)
    network, name = key.split()
    return LayerAttention(network, name, maps, queries, keys, -0.25, np.full(b, strength, np.float32),
                 entropy.astype(np.float32), (p * apart).sum(-1).astype(np.float32))  # fmt: skip


def make_checkpoints() -> list[AttentionData]:
    rng = np.random.default_rng(7)
    found = []
    for step in STEPS:
        layers = []
        for key, (queries, keys) in GRIDS.items():
            sharp = 0.3 if key == "D 12" else 3.0
            maps = rows(rng, len(CAPTIONS), int(np.prod(queries)), int(np.prod(keys)), sharp)
            layers.append(layer(key, maps, queries, keys, 0.004 if key == "D 12" else step / 10_000))
        pictures = rng.integers(0, 256, (len(CAPTIONS), *SIZE, 3), dtype=np.uint8)
        found.append(AttentionData(step, pictures, CAPTIONS, tuple(layers)))
    return found


@pytest.fixture(scope="module")
def checkpoints() -> list[AttentionData]:
    return make_checkpoints()


@pytest.fixture(scope="module")
def html(checkpoints: list[AttentionData]) -> bytes:
    return page(checkpoints, title=TITLE)


def content(html: bytes) -> Any:
    """What the page's script will read, as a browser would find it."""
    text = html.decode("utf-8")
    begin = text.index('<script id="data" type="application/json">') + len('<script id="data" type="application/json">')
    return json.loads(text[begin : text.index("</script>", begin)])


def read_map(text: str, levels: int, queries: Any, keys: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """An independent decoder, straight from the words of page_data.py: shares (n, m), entropy and distance (n,)."""
    data = zlib.decompress(base64.b64decode(text))
    (h, w), m = queries, keys[0] * keys[1]
    left = np.frombuffer(data, np.uint8, h * w * (m + 2)).reshape(h, w, m + 2)
    body = np.zeros((h, w, m + 2), int)
    for i in range(h):
        for j in range(w):
            if i and j:
                a, b, c = body[i, j - 1], body[i - 1, j], body[i - 1, j - 1]
                guess = np.where(c >= np.maximum(a, b), np.minimum(a, b),
                                 np.where(c <= np.minimum(a, b), np.maximum(a, b), a + b - c))  # fmt: skip
            else:
                guess = body[i, j - 1] if j else body[i - 1, j] if i else np.zeros(m + 2, int)
            body[i, j] = (left[i, j] + guess) % 256
    body = body.reshape(h * w, m + 2)
    top = m ** (np.frombuffer(data, "<u2", h * w, len(left.ravel())) / 65535.0 - 1)
    return top[:, None] * (body[:, :m] / levels) ** 2, body[:, m] / 255, body[:, m + 1] / 255 * 2**0.5


def within(shown: NDArray[Any], true: NDArray[Any], levels: int) -> bool:
    """Whether every share is as near as page_data.Detail promises, its row's largest kept in 16 bits."""
    return bool((np.abs(shown - true) <= 1.025 / levels * true.max(-1, keepdims=True)).all())


def test_maps_come_back_within_the_promised_error(checkpoints: list[AttentionData], html: bytes) -> None:
    told = content(html)
    assert told["levels"] == 255
    for s, data in enumerate(checkpoints):
        for i, true in enumerate(data.layers):
            about = told["layers"][i]
            assert (about["queries"], about["keys"]) == (list(true.query_grid), list(true.key_grid))
            for b in range(2):
                p, entropy, distance = read_map(
                    told["checkpoints"][s]["layers"][i]["maps"][b], 255, true.query_grid, true.key_grid
                )
                assert within(p, true.maps[b], 255)
                assert not within(p, true.maps[b - 1], 255)
                assert np.abs(entropy - true.entropy[b]).max() < 0.003
                assert np.abs(distance - true.distance[b]).max() < 0.004


@pytest.mark.parametrize("levels", [15, 31, 63, 255])
@pytest.mark.parametrize("sharp", [0.01, 1.0, 8.0])
def test_the_error_bound_holds_for_flat_and_for_sharp_maps(levels: int, sharp: float) -> None:
    queries, keys = (8, 8), (16, 16)
    maps = rows(np.random.default_rng(3), 1, 64, 256, sharp)
    maps[0, 0] = 0
    maps[0, 0, 5] = 1
    one = layer("G 8", maps, queries, keys)
    detail = page_data.Detail(levels, page_data.ANY, page_data.ANY)
    p, _, _ = read_map(next(page_data.texts(one, detail)), levels, queries, keys)
    assert within(p, maps[0], levels)


def test_coarse_maps_are_means_over_positions_and_sums_over_keys() -> None:
    queries, keys = (8, 16), (4, 8)
    maps = rows(np.random.default_rng(5), 1, 128, 32)
    detail = page_data.Detail(255, 8, 4)
    one = layer("G 16", maps, queries, keys)
    assert page_data.groups(one, detail) == (2, 2)
    text = next(page_data.texts(one, detail))
    p, entropy, _ = read_map(text, 255, (4, 8), (2, 4))
    true = np.zeros((4, 8, 2, 4))
    for i, j in np.ndindex(8, 16):
        for a, b in np.ndindex(4, 8):
            true[i // 2, j // 2, a // 2, b // 2] += maps[0].reshape(8, 16, 4, 8)[i, j, a, b] / 4
    assert within(p, true.reshape(32, 8), 255)
    assert abs(entropy[0] - one.entropy[0].reshape(8, 16)[:2, :2].mean()) < 0.003


def test_grids_that_do_not_halve_are_left_whole() -> None:
    one = layer("G 9", rows(np.random.default_rng(5), 1, 81, 9), (9, 9), (3, 3))
    assert page_data.groups(one, page_data.Detail(31, 4, 2)) == (1, 1)


def test_sixteen_large_pictures_stay_under_three_megabytes() -> None:
    """64 x 64 positions on 32 x 32 keys, G and D, three checkpoints: 1.6 GB of maps."""
    rng = np.random.default_rng(11)
    features = np.kron(rng.normal(size=(8, 16, 16)), np.ones((4, 4)))
    keys = features.reshape(8, 32, 2, 32, 2).mean((2, 4)).reshape(8, -1)
    scores = (features.reshape(8, -1).T @ keys).astype(np.float32)
    p = np.exp(scores - scores.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    # One map for all pictures: each is packed by itself, so that nothing is saved by their being alike.
    maps = np.broadcast_to(p, (16, *p.shape))
    flat = np.broadcast_to(np.float32(0.5), (16, 4096))
    layers = tuple(LayerAttention(n, "64", maps, (64, 64), (32, 32), 0.3, flat[:, 0], flat, flat) for n in "GD")
    pictures = rng.integers(0, 256, (16, 128, 128, 3), dtype=np.uint8)
    made = [AttentionData(step, pictures, tuple("abcdefghijklmnop"), layers) for step in STEPS]
    html = page(made, title="large")
    assert BUDGET == 3_000_000
    assert len(html) <= BUDGET
    about = content(html)["layers"][0]
    query_side, key_side = about["groups"]
    assert [n * query_side for n in about["queries"]] == [64, 64]
    assert [n * key_side for n in about["keys"]] == [32, 32]
    assert min(about["queries"]) >= 8
    assert min(about["keys"]) >= 8


def test_equal_input_gives_the_same_bytes(html: bytes) -> None:
    assert page(make_checkpoints(), title=TITLE) == html


def test_nothing_in_it_points_outside(html: bytes) -> None:
    text = re.sub(r"http://www\.w3\.org/2000/svg", "", html.decode("utf-8"))
    assert "http:" not in text
    assert "https:" not in text
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", text)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]


def test_words_from_outside_stay_words(html: bytes) -> None:
    text = html.decode("utf-8")
    assert text.count("<script") == 2
    assert "<b id=bad>" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert content(html)["captions"] == list(CAPTIONS)
    assert content(html)["title"] == TITLE


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_small_pictures_are_kept_to_the_bit(checkpoints: list[AttentionData], channels: int) -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (4, *SIZE, channels), dtype=np.uint8)
    told = content(page([dataclasses.replace(checkpoints[0], images=pictures)], title="t"))
    for place, picture in zip(told["checkpoints"][0]["images"], pictures, strict=True):
        data = base64.b64decode(told["images"][place].partition(",")[2])
        seen = np.asarray(Image.open(io.BytesIO(data)))
        assert np.array_equal(seen.reshape(picture.shape), picture)


def test_large_pictures_are_shrunk_and_pictures_that_stay_are_kept_once(checkpoints: list[AttentionData]) -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (4, 384, 576, 4), dtype=np.uint8)
    html = page([dataclasses.replace(s, images=pictures) for s in checkpoints], title="t")
    assert len(html) <= BUDGET
    told = content(html)
    assert len(told["images"]) == 4
    assert told["size"] == [384, 576]
    image = Image.open(io.BytesIO(base64.b64decode(told["images"][0].partition(",")[2])))
    assert image.format == "JPEG"
    assert abs(image.width / image.height - 1.5) < 0.02


def test_what_cannot_be_shown_is_said(checkpoints: list[AttentionData]) -> None:
    with pytest.raises(SaganError, match="no attention to show"):
        page([], title="t")
    with pytest.raises(SaganError, match="no attention to show"):
        page([dataclasses.replace(checkpoints[0], layers=())], title="t")
    broken = layer("G 16", rows(np.random.default_rng(1), 4, 96, 24), *GRIDS["G 16"])
    broken.maps[2, 3] = np.nan
    with pytest.raises(SaganError, match=r"G 16.*earlier checkpoint"):
        page([dataclasses.replace(checkpoints[0], layers=(broken,))], title="t")
    with pytest.raises(SaganError, match=r"4 images at 3 checkpoints do not fit.*fewer"):
        page(checkpoints, title="t", budget=60_000)
    with pytest.raises(ValueError, match="same layers"):
        page([checkpoints[0], dataclasses.replace(checkpoints[1], layers=checkpoints[1].layers[:2])], title="t")
    with pytest.raises(ValueError, match="same images"):
        page([checkpoints[0], dataclasses.replace(checkpoints[1], captions=("a", "b", "c", "d"))], title="t")


# --- in a browser ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chrome(tmp_path_factory.mktemp("chrome")) as driver:
        yield driver


class Shown:
    """The page in the browser, and hands to use it with."""

    def __init__(self, driver: Any, html: bytes, folder: Path) -> None:
        from selenium.webdriver import ActionChains, Keys

        self.driver, self.Keys, self._chains = driver, Keys, ActionChains
        self.file = folder / "attn.html"
        self.file.write_bytes(html)
        self.open()

    def open(self) -> None:
        self.driver.get(self.file.as_uri())
        told = self.driver.execute_async_script(
            "const done = arguments[0]; sagan.ready.then(() => done(null), (e) => done(String(e)))"
        )
        assert told is None

    def js(self, code: str, *args: Any) -> Any:
        return self.driver.execute_script(code, *args)

    def state(self) -> Any:
        """What is shown, once it is what was chosen."""
        self.driver.execute_async_script(
            "const done = arguments[0], wait = () => sagan.state().settled ? done() : setTimeout(wait, 5); wait()"
        )
        return self.js("return sagan.state()")

    def by(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        found: str = self.js("return document.querySelector(arguments[0]).textContent", selector)
        return found

    def pixels(self, canvas: str, places: list[tuple[float, float]]) -> list[list[int]]:
        """Red, green, blue and opacity of a canvas at places given in shares of its height and width."""
        found: list[list[int]] = self.js(
            """const from = document.querySelector(arguments[0]), copy = document.createElement("canvas");
            Object.assign(copy, { width: from.width, height: from.height });
            const context = copy.getContext("2d", { willReadFrequently: true });
            context.drawImage(from, 0, 0);
            return arguments[1].map(([y, x]) => Array.from(context.getImageData(
              Math.floor(x * from.width), Math.floor(y * from.height), 1, 1).data))""",
            canvas,
            places,
        )
        return found

    def pointer(self, cell: tuple[int, int], grid: tuple[int, int], *, click: bool = False) -> None:
        """The pointer onto a cell of the picture, a little off its centre."""
        box = self.by("#picture").rect
        x = ((cell[1] + 0.4) / grid[1] - 0.5) * box["width"]
        y = ((cell[0] + 0.6) / grid[0] - 0.5) * box["height"]
        chain = self._chains(self.driver, duration=0).move_to_element_with_offset(self.by("#picture"), int(x), int(y))
        (chain.click() if click else chain).perform()

    def keys(self, *keys: str) -> None:
        self._chains(self.driver, duration=0).send_keys(*keys).perform()

    def check_row(
        self, checkpoints: list[AttentionData], checkpoint: int, key: str, sample: int, cell: tuple[int, int]
    ) -> None:
        """That the row on the screen is the one of the checkpoints, in state and in numbers."""
        state = self.state()
        names = list(GRIDS)
        assert (state["checkpoint"], names[state["layer"]], state["sample"]) == (checkpoint, key, sample)
        assert tuple(state["query"]) == cell
        assert state["step"] == STEPS[checkpoint]
        assert f"{state['network']} {state['name']}" == key
        true = checkpoints[checkpoint].layers[names.index(key)]
        n = cell[0] * true.query_grid[1] + cell[1]
        row = np.array(self.js("return Array.from(sagan.map())"))
        assert within(row[None], true.maps[sample, n][None], 255)
        assert abs(float(self.text("#entropy")) - true.entropy[sample, n]) < 0.008
        assert abs(float(self.text("#distance")) - true.distance[sample, n]) < 0.009


@pytest.fixture
def shown(browser: Any, html: bytes, tmp_path: Path) -> Iterator[Shown]:
    screen(browser, 1280, 860)
    emulate(browser)
    complaints(browser)
    requests(browser)
    it = Shown(browser, html, tmp_path)
    yield it
    assert complaints(browser) == []
    assert set(requests(browser)) == {it.file.as_uri()}


@pytest.mark.browser
def test_the_map_follows_the_pointer(shown: Shown, checkpoints: list[AttentionData]) -> None:
    queries = GRIDS["G 24"][0]  # the generator's last layer at the last checkpoint is what a visitor finds
    rows_seen = []
    for cell in ((0, 0), (3, 17), (15, 23), (8, 1)):
        shown.pointer(cell, queries)
        shown.check_row(checkpoints, 2, "G 24", 0, cell)
        rows_seen.append(tuple(shown.js("return Array.from(sagan.map())")))
    assert len(set(rows_seen)) == 4


@pytest.mark.browser
def test_what_is_painted_is_the_map(shown: Shown, checkpoints: list[AttentionData]) -> None:
    """The map alone: the middle of each key's cell has that key's colour of the scale."""
    from sagan_cli.attention import plotting

    shown.pointer((4, 5), (16, 24))
    true = checkpoints[2].layers[1].maps[0, 4 * 24 + 5].reshape(8, 12)
    far = [(i, j) for i, j in np.ndindex(8, 12) if abs(i * 2 - 4) > 2 or abs(j * 2 - 5) > 2]  # clear of the outline
    painted = shown.pixels("#keys", [((i + 0.5) / 8, (j + 0.5) / 12) for i, j in far])
    scale = plotting.table().astype(int)
    for (i, j), seen in zip(far, painted, strict=True):
        near = np.abs(scale - seen[:3]).sum(1).argmin() / 255
        assert abs(near - true[i, j] / true.max()) < 0.012
        assert seen[3] == 255


@pytest.mark.browser
def test_clicks_pin_and_unpin(shown: Shown) -> None:
    queries = GRIDS["G 24"][0]
    shown.pointer((2, 3), queries, click=True)
    shown.pointer((12, 20), queries, click=True)
    pins = shown.state()["pins"]
    assert [tuple(p["cell"]) for p in pins] == [(2, 3), (12, 20)]
    assert pins[0]["colour"] != pins[1]["colour"]
    assert len(shown.driver.find_elements("css selector", "#pins li")) == 2
    shown.by("#pins li:first-child .pin").click()  # a pin's own picture brings its map back
    assert tuple(shown.state()["query"]) == (2, 3)
    shown.by("#thumbs button:nth-child(2)").click()  # pins belong to their picture
    assert shown.state()["pins"] == []
    shown.by("#thumbs button:nth-child(1)").click()
    shown.by("#layers input[value='0']").click()  # and stay where they are on it, on coarser grids as well
    assert [tuple(p["cell"]) for p in shown.state()["pins"]] == [(1, 1), (6, 10)]
    shown.pointer((1, 1), GRIDS["G 16"][0], click=True)
    assert [tuple(p["cell"]) for p in shown.state()["pins"]] == [(6, 10)]
    shown.by("#clear").click()
    assert shown.state()["pins"] == []


@pytest.mark.browser
def test_everything_works_from_the_keyboard(shown: Shown, checkpoints: list[AttentionData]) -> None:
    for _ in range(10):
        shown.keys(shown.Keys.TAB)
        if shown.js("return document.activeElement.id") == "picture":
            break
    assert shown.js("return document.activeElement.id") == "picture"
    assert shown.js("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    before = shown.state()["query"]
    shown.keys(shown.Keys.ARROW_DOWN, shown.Keys.ARROW_RIGHT, shown.Keys.ARROW_RIGHT)
    here = (before[0] + 1, before[1] + 2)
    shown.check_row(checkpoints, 2, "G 24", 0, here)
    shown.keys(shown.Keys.ENTER)
    assert [tuple(p["cell"]) for p in shown.state()["pins"]] == [here]
    shown.keys(*[shown.Keys.ARROW_LEFT] * 30, " ")  # stops at the edge
    assert [tuple(p["cell"]) for p in shown.state()["pins"]] == [here, (here[0], 0)]
    shown.keys(shown.Keys.ESCAPE)
    assert shown.state()["pins"] == []
    shown.keys("]", "]", "[")
    shown.check_row(checkpoints, 2, "G 24", 1, (here[0], 0))
    shown.keys(".", ",", ",")
    assert shown.state()["sample"] == 0
    shown.keys("l")
    shown.check_row(checkpoints, 2, "D 12", 0, (here[0] // 2, 0))
    shown.keys("L")
    assert shown.state()["layer"] == 0
    label = shown.by("#picture").get_attribute("aria-label")
    assert "Image 1 of 4, seed 0, fox" in label
    assert "generator, layer 16" in label


@pytest.mark.browser
def test_picture_layer_network_and_checkpoint_are_switched(shown: Shown, checkpoints: list[AttentionData]) -> None:
    shown.pointer((7, 9), GRIDS["G 24"][0])
    shown.by("#thumbs button:nth-child(3)").click()
    shown.check_row(checkpoints, 2, "G 24", 2, (7, 9))
    assert shown.text("#caption") == CAPTIONS[2]
    shown.by("#layers input[value='2']").click()
    shown.check_row(checkpoints, 2, "D 12", 2, (3, 4))
    assert "idle" in shown.text("#notice")
    assert shown.by("#badge").is_displayed()
    shown.by("#layers input[value='0']").click()
    shown.check_row(checkpoints, 2, "G 16", 2, (3, 4))
    assert not shown.by("#badge").is_displayed()
    assert shown.text("#strength") == "25 %"
    assert shown.text("#gamma") == "−0.250"
    slider = shown.by("#step")
    slider.send_keys(shown.Keys.ARROW_LEFT)
    shown.check_row(checkpoints, 1, "G 16", 2, (3, 4))
    assert shown.text("#stepname") == "step 900"
    assert shown.text("#strength") == "9.0 %"
    slider.send_keys(shown.Keys.HOME)
    shown.check_row(checkpoints, 0, "G 16", 2, (3, 4))
    image = shown.js("return document.querySelector('#image').src")
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(image.partition(",")[2]))))
    assert np.array_equal(seen, checkpoints[0].images[2])


@pytest.mark.browser
def test_the_checkpoints_play(shown: Shown) -> None:
    shown.by("#play").click()
    shown.driver.execute_async_script(
        "const done = arguments[0], wait = () => sagan.state().checkpoint === 1 ? done() : setTimeout(wait, 20); wait()"
    )
    shown.keys("p")
    assert not shown.state()["playing"]


@pytest.mark.browser
def test_the_overlay_lets_the_picture_through(shown: Shown) -> None:
    def opaque() -> int:
        return shown.pixels("#overlay", [(0.02, 0.02)])[0][3]

    shown.pointer((8, 12), GRIDS["G 24"][0])
    before = opaque()
    shown.js("const o = document.querySelector('#opacity'); o.value = 0; o.dispatchEvent(new Event('input'))")
    assert shown.state()["opacity"] == 0
    assert opaque() == 0 < before


@pytest.mark.browser
def test_full_contrast_starts_the_colours_at_the_least_share(shown: Shown, checkpoints: list[AttentionData]) -> None:
    from sagan_cli.attention import plotting

    shown.by("#layers input[value='2']").click()
    shown.pointer((6, 9), GRIDS["D 12"][0])
    true = checkpoints[2].layers[2].maps[0, 6 * 12 + 9].reshape(8, 12)
    least = np.unravel_index(true.argmin(), true.shape)
    place = ((least[0] + 0.5) / 8, (least[1] + 0.5) / 12)
    assert shown.text("#low") == "0"
    shown.keys("c")
    assert shown.state()["contrast"]
    assert shown.text("#low").endswith("%")
    assert np.abs(np.array(shown.pixels("#keys", [place])[0][:3]) - plotting.table()[0]).max() <= 12


@pytest.mark.browser
def test_words_from_outside_are_harmless_in_the_browser(shown: Shown) -> None:
    shown.by("#thumbs button:nth-child(2)").click()
    assert shown.text("#caption") == CAPTIONS[1]
    assert shown.text("h1") == TITLE
    assert shown.driver.title == TITLE
    assert shown.js("return document.querySelectorAll('#bad, h1 *').length") == 0


@pytest.mark.browser
def test_it_fits_a_phone_and_answers_taps(shown: Shown) -> None:
    screen(shown.driver, 390, 844, scale=2, mobile=True)
    shown.open()
    assert shown.js("return document.documentElement.scrollWidth <= innerWidth && innerWidth === 390")
    boxes = shown.js(
        "return ['picture', 'map'].map((id) => document.getElementById(id).getBoundingClientRect().toJSON())"
    )
    assert boxes[0]["width"] > 340
    assert boxes[1]["top"] > boxes[0]["bottom"]

    def tap(cell: tuple[int, int]) -> None:
        x = boxes[0]["left"] + (cell[1] + 0.5) / 24 * boxes[0]["width"]
        y = boxes[0]["top"] + (cell[0] + 0.5) / 16 * boxes[0]["height"]
        shown.driver.execute_cdp_cmd(
            "Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]}
        )
        shown.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    tap((3, 4))
    assert tuple(shown.state()["query"]) == (3, 4)
    assert shown.state()["pins"] == []
    tap((3, 4))
    assert [tuple(p["cell"]) for p in shown.state()["pins"]] == [(3, 4)]


@pytest.mark.browser
def test_light_and_dark_follow_the_visitor_and_the_button(shown: Shown) -> None:
    def lightness() -> float:
        colour = shown.js("return getComputedStyle(document.body).backgroundColor")
        return float(np.mean([float(v) for v in re.findall(r"[\d.]+", colour)[:3]]))

    assert lightness() > 200
    emulate(shown.driver, scheme="dark")
    assert lightness() < 50
    assert shown.state()["scheme"] == "dark"
    shown.by("#theme").click()
    assert lightness() > 200
    shown.by("#theme").click()
    assert lightness() < 50


@pytest.mark.browser
def test_coarse_maps_say_so(shown: Shown, checkpoints: list[AttentionData]) -> None:
    assert "255 levels" in shown.text("#kept")
    assert "groups" not in shown.text("#kept")
    shown.file.write_bytes(page(checkpoints, title="small", budget=150_000))
    shown.open()
    assert max(shown.state()["groups"]) > 1
    assert re.search(r"groups of (\d) × \1", shown.text("#kept"))
    about = shown.state()
    row = np.array(shown.js("return Array.from(sagan.map())"))
    assert len(row) == about["keys"][0] * about["keys"][1]
    assert abs(row.sum() - 1) < 0.15
