"""`--format web` in a real browser: the pictures of `sagan sample`, the controls, attention under the pointer."""

from __future__ import annotations

import base64
import functools
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import browser
from support.cli import TINY, ok
from support.idx_files import idx_folder
from support.tiny_generators import Plain, tiny, trained

from sagan_cli.contracts import ModelSpec
from sagan_cli.engine import sample
from sagan_cli.engine.attention_maps import record_maps
from sagan_cli.engine.runtime import Runtime
from sagan_cli.errors import SaganError
from sagan_cli.export import web_runtime
from sagan_cli.export.trained_model import Check, TrainedModel, open_trained_model
from sagan_cli.export.web import write_web

for module in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(module, reason=f"{module} is not installed: pip install 'sagan-cli[onnx]'")

pytestmark = pytest.mark.browser
CPU = Runtime(torch.device("cpu"), "fp32")
ORT = "ONNXRUNTIME_WEB"
"""The variable that names an unpacked onnxruntime-web package, to be used instead of asking npm."""


@pytest.fixture(scope="module")
def ort() -> Path:
    """A folder with onnxruntime-web's files."""
    if named := os.environ.get(ORT):
        return Path(named)
    try:
        web_runtime.find_runtime(None, lambda _: None)
    except SaganError as e:
        pytest.skip(f"needs the files of onnxruntime-web: set {ORT} to an unpacked package ({e})")
    return web_runtime.cache_dir() / "runtimes" / f"{web_runtime.PACKAGE}-{web_runtime.VERSION}"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A folder at an address of its own, by the plainest of servers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser.chrome(tmp_path_factory.mktemp("chrome"), width=1280, height=1000) as driver:
        yield driver


class Page:
    """A driver on an exported page, and the model that is in it."""

    def __init__(self, driver: Any, address: str, made: TrainedModel) -> None:
        self.driver, self.address, self.made = driver, address, made

    def open(self, link: str = "") -> None:
        """Load it afresh, and wait until it has drawn."""
        self.driver.get("about:blank")  # a change of the hash alone loads nothing
        self.driver.get(self.address + link)
        wait(lambda: self.run("return document.body.dataset.state"))
        assert self.run("return document.body.dataset.state") == "ready", self.run("return document.body.innerText")
        self.idle()

    def run(self, script: str, *args: Any) -> Any:
        return self.driver.execute_script(script, *args)

    def wait(self, script: str, *args: Any) -> Any:
        """The value of an asynchronous function's body."""
        return self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            f"(async () => {{ {script} }})().then(done, e => done(`${{e}}`))",
            *args,
        )

    def idle(self) -> None:
        self.wait("await sagan.idle(); await new Promise(requestAnimationFrame)")

    def find(self, id_: str) -> Any:
        return self.driver.find_element("id", id_)

    def click(self, id_: str) -> None:
        self.find(id_).click()
        self.idle()

    def put(self, id_: str, value: object) -> None:
        """Move a slider or choose an option, as a hand would."""
        self.run(
            "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
            "for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind, { bubbles: true }))",
            id_, value,
        )  # fmt: skip
        self.idle()

    def pixels(self, query: str = "#picture") -> np.ndarray:
        """uint8 (H, W, 4) of a canvas."""
        width, height, data = self.run(
            "const c = document.querySelector(arguments[0]), copy = new OffscreenCanvas(c.width, c.height);"
            "const context = copy.getContext('2d', { willReadFrequently: true });"
            "context.drawImage(c, 0, 0); const i = context.getImageData(0, 0, c.width, c.height);"
            "return [i.width, i.height, btoa(Array.from(i.data, b => String.fromCharCode(b)).join(''))]",
            query,
        )
        return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)

    def z(self) -> np.ndarray:
        return np.array(self.run("return Array.from(sagan.shown.z)"), np.float32)

    def shows(self, picture: np.ndarray) -> bool:
        """Whether the canvas holds a picture (H, W, C), to 2 of 255."""
        return apart(self.pixels(), picture) <= 2


def wait(done: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def apart(canvas: np.ndarray, picture: np.ndarray) -> int:
    """Largest difference of a canvas and a picture of 1 or 3 channels."""
    assert (canvas[..., 3] == 255).all()
    assert canvas.shape[:2] == picture.shape[:2]
    return int(np.abs(canvas[..., :3].astype(int) - picture).max())


def drawn(made: TrainedModel, seed: int, label: int | None = None, truncation: float | None = None) -> np.ndarray:
    """The picture of a seed as `sagan sample` draws it."""
    ((pictures, _),) = sample.pictures(
        made.generator, made.spec, [sample.Request(seed, label)], CPU, truncation=truncation
    )
    return pictures[0]


def of_latent(made: TrainedModel, z: np.ndarray, label: int) -> np.ndarray:
    with torch.inference_mode():
        return sample.to_uint8(made.generator(torch.from_numpy(z)[None], torch.tensor([label])))[0]


def lively() -> TrainedModel:
    """Wide pictures, three classes, two attention layers that look at one place each."""
    made = tiny(32, 64, num_classes=3, attn_at=(16, 32))
    with torch.no_grad():
        for layer in made.generator.attention_layers().values():  # type: ignore[operator]
            layer.key.weight.mul_(20)
        made.generator.linear.weight[:, [17, 3, 11]] *= torch.tensor([4.0, 3.0, 2.0])  # type: ignore[index, operator]
    return made


@dataclass(frozen=True)
class Exported:
    folder: Path
    made: TrainedModel
    check: Check


@pytest.fixture(scope="module")
def exported(ort: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder, made = tmp_path_factory.mktemp("web") / "page", lively()
    return Exported(folder, made, write_web(made, folder, runtime=ort, notify=pytest.fail))


@pytest.fixture(scope="module")
def page(chrome: Any, exported: Exported) -> Iterator[Page]:
    with served(exported.folder) as address:
        yield Page(chrome, address, exported.made)


@pytest.fixture
def fresh(page: Page) -> Iterator[Page]:
    """The page; the test fails where the browser had something to say about it, or asked anybody else."""
    browser.complaints(page.driver)
    browser.requests(page.driver)
    if not page.driver.current_url.startswith(page.address):
        page.open()
    yield page
    assert browser.complaints(page.driver) == []
    strangers = [url for url in browser.requests(page.driver) if not url.startswith((page.address, "about:"))]
    assert strangers == []


def test_pictures_are_those_of_sagan_sample(chrome: Any, ort: Path, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    ok("train", "--data", idx_folder(tmp_path / "idx"), "--size", 16, *TINY, "--unconditional", "--steps", 8,
       "--set", "train.g_lr=0.01", cwd=tmp_path)  # fmt: skip
    ok("sample", "--seeds", "0,3,999999999999999999", "--out", "pictures.npz", cwd=tmp_path)
    ok("sample", "--seeds", "3", "--truncation", 0.7, "--out", "near.npz", cwd=tmp_path)
    (run,) = (tmp_path / "runs").iterdir()
    made = open_trained_model(max((run / "checkpoints").iterdir()), CPU)
    write_web(made, tmp_path / "page", runtime=ort, notify=pytest.fail)
    with np.load(tmp_path / "pictures.npz") as archive, np.load(tmp_path / "near.npz") as near:
        pictures, (truncated,) = archive["arr_0"], near["arr_0"]
    assert pictures.std(0).max() > 2  # not all the same
    with served(tmp_path / "page") as address:
        page = Page(chrome, address, made)
        page.open()
        assert page.shows(pictures[0])
        for index, seed in enumerate((0, 3, 999999999999999999)):
            page.find("seed").send_keys(Keys.CONTROL + "a" + Keys.NULL, str(seed))
            page.idle()
            assert page.shows(pictures[index])
        page.open("#seed=3&truncation=0.7")
        assert page.shows(truncated)
        assert not page.shows(pictures[1])
        assert page.find("class-group").is_displayed() is False


def test_the_random_numbers_are_those_of_torch(fresh: Page) -> None:
    for latent in (1, 2, 5, 15, 16, 17, 31, 48, 128):
        for seed, classes in (("0", 0), ("3", 6), ("123456789012345678", 1000)):
            spec = ModelSpec(16, 16, latent=latent, num_classes=classes)
            z, label, near = fresh.wait(
                "const { drawn } = await import('./random.js'); const { squeeze } = await import('./latent.js');"
                "const { z, label } = drawn(...arguments); return [[...z], label, [...squeeze(z, 0.05)]]",
                seed, latent, classes,
            )  # fmt: skip
            for truncation, found in ((None, z), (0.05, near)):
                want, labels = sample.latents([sample.Request(int(seed))], spec, truncation)
                np.testing.assert_allclose(found, want[0].numpy(), rtol=0, atol=3e-6)
                assert label == (None if labels is None else int(labels))


def test_truncation_far_out_and_close_in_is_that_of_torch(fresh: Page) -> None:
    points = torch.linspace(-6, 6, 241, dtype=torch.float64)
    for limit in (0.02, 1.0, 7.5):
        found = fresh.wait(
            "const { squeeze } = await import('./latent.js'); return squeeze(arguments[0], arguments[1])",
            points.tolist(), limit,
        )  # fmt: skip
        low, high = torch.special.ndtr(torch.tensor([-limit, limit], dtype=torch.float64))
        want = torch.special.ndtri(low + torch.special.ndtr(points) * (high - low))
        np.testing.assert_allclose(found, want.numpy(), rtol=0, atol=1e-6)


def test_classes_thumbnails_and_the_link(fresh: Page) -> None:
    fresh.open()
    made = fresh.made
    assert fresh.shows(drawn(made, 0))
    thumbs = fresh.driver.find_elements("css selector", "#seeds button")
    assert len(thumbs) == 16
    thumbs[5].click()
    fresh.idle()
    assert fresh.shows(drawn(made, 5))
    for label in (2, 0):
        fresh.put("class", label)
        assert fresh.shows(drawn(made, 5, label))
        assert fresh.find("caption").text == f"seed 5 · kind {label}"
        assert apart(fresh.pixels("#seeds button:nth-child(10) canvas"), drawn(made, 9, label)) <= 2
    fresh.put("truncation", 0.5)
    assert fresh.shows(drawn(made, 5, 0, 0.5))
    fresh.click("later")
    assert apart(fresh.pixels("#seeds button:nth-child(2) canvas"), drawn(made, 17, 0, 0.5)) <= 2
    link = "#seed=5&class=kind%200&truncation=0.5"
    wait(lambda: fresh.run("return location.hash") == link)
    fresh.open(link)
    assert fresh.shows(drawn(made, 5, 0, 0.5))
    fresh.run("location.hash = '#seed=6&class=99&truncation=-3&walk=0.5&z=900:1,x,1:99'")  # what makes no sense is left
    wait(lambda: fresh.run("return sagan.state.seed") == "6")
    fresh.idle()
    assert fresh.shows(drawn(made, 6))


def test_latents_move_the_picture_and_go_back(fresh: Page) -> None:
    fresh.open("#seed=4&class=1")
    before, own = fresh.z(), drawn(fresh.made, 4, 1)
    order = fresh.run("return sagan.facts.latent_order")
    assert sorted(order) == list(range(20))
    slider = fresh.driver.find_element("css selector", "#sliders input")
    fresh.run("arguments[0].value = 3; arguments[0].dispatchEvent(new Event('input'))", slider)
    fresh.idle()
    after = fresh.z()
    assert np.flatnonzero(before != after).tolist() == [order[0]]
    assert after[order[0]] == 3
    assert fresh.shows(of_latent(fresh.made, after, 1))
    assert not fresh.shows(own)
    wait(lambda: fresh.run("return location.hash") == f"#seed=4&class=kind%201&z={order[0]}:3")
    fresh.click("reset")
    assert fresh.shows(own)
    shown = len([e for e in fresh.driver.find_elements("css selector", "#sliders label") if e.is_displayed()])
    fresh.click("more")
    now = len([e for e in fresh.driver.find_elements("css selector", "#sliders label") if e.is_displayed()])
    assert (shown, now) == (12, 20)


def test_latents_that_change_most_come_first(fresh: Page) -> None:
    fresh.open()
    assert fresh.run("return sagan.facts.latent_order")[:3] == [17, 3, 11]
    labels = fresh.driver.find_elements("css selector", "#sliders label span")
    assert [label.text for label in labels[:3]] == ["17", "3", "11"]


def test_walking_between_two_seeds(fresh: Page) -> None:
    fresh.open("#seed=2&class=0&to=7&walk=0.25")
    ends = [sample.latents([sample.Request(seed)], fresh.made.spec, None)[0][0].double() for seed in (2, 7)]
    angle = torch.arccos(torch.nn.functional.cosine_similarity(*ends, dim=0))
    want = (torch.sin(0.75 * angle) * ends[0] + torch.sin(0.25 * angle) * ends[1]) / torch.sin(angle)
    np.testing.assert_allclose(fresh.z(), want.numpy(), atol=1e-5)
    assert fresh.shows(of_latent(fresh.made, want.float().numpy(), 0))
    fresh.put("walk", 1)
    assert fresh.shows(drawn(fresh.made, 7, 0))
    fresh.put("walk", 0)
    assert fresh.shows(drawn(fresh.made, 2, 0))
    fresh.find("play").click()
    seen = set()

    def moved() -> bool:
        seen.add(fresh.run("return sagan.shown.z[0]"))
        return len(seen) > 4

    wait(moved)
    assert fresh.find("play").text == "Stop"
    fresh.click("play")
    still = fresh.run("return sagan.state.walk")
    time.sleep(0.1)
    assert fresh.run("return sagan.state.walk") == still


def test_the_random_button_and_the_keys(fresh: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    fresh.open()
    body = fresh.driver.find_element("css selector", "body")
    seed = lambda: fresh.run("return sagan.state.seed")  # noqa: E731 - two words, used six times
    fresh.click("random")
    first = seed()
    assert first != "0"
    body.send_keys("r")
    fresh.idle()
    assert seed() not in ("0", first)
    assert fresh.shows(drawn(fresh.made, int(seed())))
    fresh.open("#seed=9")
    body = fresh.driver.find_element("css selector", "body")
    body.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    fresh.idle()
    assert seed() == "10"
    body.send_keys("s")
    assert fresh.run("return document.body.className") == "smooth"
    fresh.find("seed").send_keys("r")  # typed, not meant
    assert seed() == "10"


@pytest.mark.parametrize("index", [0, 1])
def test_the_pointer_shows_where_its_place_looks(index: int, fresh: Page) -> None:
    from selenium.webdriver import ActionChains

    fresh.open("#seed=1&class=2&smooth=0")
    fresh.put("layer", index)
    facts = fresh.run("return sagan.facts.attention")[index]
    z, y = sample.latents([sample.Request(1, 2)], fresh.made.spec, None)
    with record_maps(fresh.made.generator) as found, torch.inference_mode():
        fresh.made.generator(z, y)
    layer = found[facts["name"]]
    assert (tuple(facts["query_grid"]), tuple(facts["key_grid"])) == (layer.query_grid, layer.key_grid)
    frame, (rows, columns) = fresh.find("frame"), layer.query_grid
    width, height = frame.size["width"], frame.size["height"]
    assert width == pytest.approx(2 * height, abs=1)
    peaks = set()
    for row, column in ((0, 0), (rows - 1, 1), (rows // 2, columns - 1)):
        x, y_ = ((column + 0.5) / columns - 0.5) * width, ((row + 0.5) / rows - 0.5) * height
        ActionChains(fresh.driver, duration=0).move_to_element_with_offset(frame, int(x), int(y_)).perform()
        fresh.idle()
        query = row * columns + column
        assert fresh.run("return document.getElementById('overlay').dataset.query") == str(query)
        want = layer.maps[0, query].numpy()
        row_of = "const n = arguments[1]; return [...sagan.shown.map.subarray(arguments[0] * n).subarray(0, n)]"
        shown = fresh.run(row_of, query, len(want))
        np.testing.assert_allclose(shown, want, atol=1e-4)
        assert f"Row {row + 1}, column {column + 1} of {rows} × {columns}" in fresh.find("looking").text
        # The hottest spot of the overlay is the middle of the key that gets most.
        heat = fresh.pixels("#overlay")
        peak = int(want.argmax())
        peaks.add(peak)
        top, left = divmod(peak, layer.key_grid[1])
        at = [int((place + 0.5) / count * side) for place, count, side in
              zip((top, left), layer.key_grid, heat.shape, strict=False)]  # fmt: skip
        assert heat[at[0], at[1], 3] >= 0.85 * 255
        assert heat[at[0], at[1], 0] > 240
    assert len(peaks) > 1
    ActionChains(fresh.driver, duration=0).move_to_element(fresh.find("title")).perform()
    assert fresh.pixels("#overlay").max() == 0


def test_attention_by_keyboard_and_by_click(fresh: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    fresh.open()
    held = lambda: fresh.run("return document.getElementById('overlay').dataset.query ?? null")  # noqa: E731
    frame = fresh.find("frame")
    rows, columns = fresh.run("return sagan.facts.attention.at(-1).query_grid")
    frame.send_keys(Keys.ARROW_UP)
    assert held() == str(rows // 2 * columns + columns // 2)
    frame.send_keys(Keys.ARROW_UP, Keys.ARROW_RIGHT)
    assert held() == str((rows // 2 - 1) * columns + columns // 2 + 1)
    assert fresh.run("return sagan.state.seed") == "0"
    fresh.click("seed-up")  # held while the picture changes
    assert held() is not None
    frame.send_keys(Keys.ESCAPE)
    assert held() is None


def test_save_writes_the_picture(fresh: Page, tmp_path: Path) -> None:
    fresh.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    fresh.open("#seed=8&class=1")
    fresh.click("save")
    file = tmp_path / "seed000008-class001.png"
    wait(file.is_file)
    wait(lambda: file.stat().st_size > 0)
    with Image.open(file) as picture:
        assert np.abs(np.asarray(picture)[..., :3].astype(int) - drawn(fresh.made, 8, 1)).max() <= 2


def test_it_fits_a_phone_and_the_dark(fresh: Page) -> None:
    light = fresh.find("title").value_of_css_property("color")
    browser.emulate(fresh.driver, scheme="dark")
    assert fresh.find("title").value_of_css_property("color") != light
    browser.emulate(fresh.driver)
    try:
        for width in (320, 390, 800):
            browser.screen(fresh.driver, width, 800)
            assert fresh.run("return document.documentElement.scrollWidth") <= width
            assert fresh.find("picture").size["width"] >= 0.85 * width
    finally:
        fresh.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_opened_as_a_file_it_says_what_to_do(page: Page, tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "sagan_cli" / "export" / "web"
    page.driver.get((source / "index.html").as_uri())
    hint = page.find("boot-hint")
    wait(lambda: float(hint.value_of_css_property("opacity")) == 1)
    assert hint.is_displayed()
    assert "python3 -m http.server" in hint.text
    browser.complaints(page.driver)  # there the browser complains, and rightly


def test_a_model_that_came_short_is_named(page: Page, exported: Exported, tmp_path: Path) -> None:
    folder = shutil.copytree(exported.folder, tmp_path / "page")
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:-1])
    with served(folder) as address:
        page.driver.get(address)
        wait(lambda: page.run("return document.body.dataset.state"))
        assert page.run("return document.body.dataset.state") == "failed"
        assert "model.onnx" in page.find("boot").text
    browser.complaints(page.driver)


def test_transparent_pictures_of_a_plugin_without_attention(chrome: Any, ort: Path, tmp_path: Path) -> None:
    spec = ModelSpec(8, 12, channels=4, num_classes=2, latent=6, attn_at=())
    torch.manual_seed(1)
    made = trained(Plain(spec), spec, "plain")
    write_web(made, tmp_path / "page", runtime=ort, notify=pytest.fail)
    browser.complaints(chrome)
    with served(tmp_path / "page") as address:
        page = Page(chrome, address, made)
        page.open("#seed=1")
        want, have = drawn(made, 1).astype(float), page.pixels().astype(float)
        assert np.abs(have[..., 3] - want[..., 3]).max() <= 2
        shown = (want - have)[..., :3] * have[..., 3:] / 255  # a canvas keeps colours multiplied by their opacity
        assert np.abs(shown).max() <= 2
        assert page.run("return sagan.facts.attention") == []
        assert not page.find("layer-group").is_displayed()
    assert browser.complaints(chrome) == []


# ---------- without a browser ----------


def test_the_folder_is_whole_and_tells_nothing_of_the_machine(exported: Exported) -> None:
    folder, check = exported.folder, exported.check
    assert 0 < max(check.differences.values()) < 1e-4
    assert [p.name for p in folder.parent.iterdir()] == ["page"]
    assert folder.stat().st_mode & 0o777 == 0o777 & ~_umask()
    facts = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    assert facts["title"] == "sagan · pictures"
    assert facts["model"]["bytes"] == (folder / "model.onnx").stat().st_size
    assert "/home" not in json.dumps(facts)
    names = {p.name for p in folder.iterdir()}
    assert {facts["runtime"][part]["file"] for part in ("script", "wasm")} <= names
    assert "MIT License" in (folder / "onnxruntime-web.LICENSE.txt").read_text(encoding="utf-8")
    for name in names - {"onnxruntime-web.js", "onnxruntime-web.wasm", "model.onnx"}:
        assert "https://" not in (folder / name).read_text(encoding="utf-8"), name  # nothing from elsewhere


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_what_no_browser_can_show_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SaganError, match="1, 3 or 4 channels, and this model draws 2"):
        write_web(tiny(channels=2), tmp_path / "page", runtime=None, notify=pytest.fail)
    assert list(tmp_path.iterdir()) == []
