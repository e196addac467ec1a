r"""Photographs an interactive attention page in headless Chromium, as docs/images/attention-page.png was made.

    sagan visualize-attn RUN --steps --layer all -n 16 --out attn.html
    python docs/make_screenshots.py attn.html docs/images/attention-page.png --sample 8 --checkpoint 3 \
        --pin 0.2,0.12 --pin 0.25,0.45 --pin 0.45,0.55 --pin 0.9,0.6 --at 0.66,0.26

RUN was trained by the `laptop` preset with --save-every 250 --keep 999. Places are x,y in shares of the picture's width
and height; the pointer pins the first ones and rests on --at. Needs Chromium, chromedriver and selenium.
"""

from __future__ import annotations

import argparse
import base64
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.browser import chrome, complaints, emulate, screen

Place = tuple[float, float]


def place(text: str) -> Place:
    """`x,y`."""
    x, y = (float(part) for part in text.split(","))
    return x, y


def photograph(driver: Any, page: Path, wanted: argparse.Namespace) -> bytes:
    """The page as PNG, after the pointer has been where it is wanted.

    Raises:
        RuntimeError: the page complained in its console.
    """
    from selenium.webdriver import ActionChains

    width, height = (int(side) for side in wanted.size.split("x"))
    screen(driver, width, height, scale=wanted.scale, mobile=wanted.phone)
    emulate(driver, scheme=wanted.scheme)
    driver.get(page.resolve().as_uri())
    driver.execute_async_script("const done = arguments[0]; sagan.ready.then(done, done)")
    driver.execute_script("document.querySelectorAll('#thumbs button')[arguments[0]].click()", wanted.sample)
    if wanted.layer:
        driver.execute_script("document.querySelectorAll('#layers input')[arguments[0]].click()", wanted.layer)
    if wanted.checkpoint is not None:
        driver.execute_script(
            "const step = document.querySelector('#step'); step.value = arguments[0];"
            "step.dispatchEvent(new Event('input'))",
            wanted.checkpoint,
        )
    driver.execute_async_script("setTimeout(arguments[0], 300)")
    picture = driver.find_element("id", "picture")
    box = picture.rect
    for (x, y), click in [*((p, True) for p in wanted.pin), *((p, False) for p in [wanted.at] if p)]:
        chain = ActionChains(driver, duration=0).move_to_element_with_offset(
            picture, round((x - 0.5) * box["width"]), round((y - 0.5) * box["height"])
        )
        (chain.click() if click else chain).perform()
    driver.execute_async_script("setTimeout(arguments[0], 600)")
    if said := complaints(driver):
        raise RuntimeError("; ".join(said))
    if not wanted.full:
        return bytes(driver.get_screenshot_as_png())
    return base64.b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})["data"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", default="1280x880", help="of the window, in CSS pixels")
    parser.add_argument("--scale", type=float, default=1, help="pixels of the file per CSS pixel")
    parser.add_argument("--scheme", default="light", choices=("light", "dark"))
    parser.add_argument("--phone", action="store_true", help="a screen with touch")
    parser.add_argument("--full", action="store_true", help="the whole page, not what the window shows")
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--layer", type=int, default=0, help="index of a layer to switch to; 0 leaves the page's own")
    parser.add_argument("--checkpoint", type=int, help="index on the slider; the last by default")
    parser.add_argument("--pin", type=place, action="append", default=[])
    parser.add_argument("--at", type=place)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sagan-screenshot-") as folder, chrome(Path(folder)) as driver:
        wanted.out.write_bytes(photograph(driver, wanted.page, wanted))


if __name__ == "__main__":
    main()
