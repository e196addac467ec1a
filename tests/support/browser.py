"""A real browser for tests: headless Chromium, driven by Selenium, watched for errors and for use of the network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--hide-scrollbars", "--force-device-scale-factor=1", "--force-color-profile=srgb",
)  # fmt: skip


def _program(*names: str) -> str:
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"needs {names[0]}, which is not installed")
    return found


@contextmanager
def chrome(folder: Path, *, width: int = 1280, height: int = 860) -> Iterator[Any]:
    """A Selenium driver with a profile of its own under `folder`; skips the test where there is no browser."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium (dependency group browser)")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = _program("chromium", "chromium-browser", "google-chrome")
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(_program("chromedriver")))
    try:
        driver.set_script_timeout(30)
        driver.get("about:blank")  # instead of the browser's own first page, which asks for a lot
        for kind in ("browser", "performance"):
            driver.get_log(kind)
        yield driver
    finally:
        driver.quit()


def complaints(driver: Any) -> list[str]:
    """Everything that the page wrote to the console since the last call: nothing, for a page that works."""
    return [f"{entry['level']}: {entry['message']}" for entry in driver.get_log("browser")]


def requests(driver: Any) -> list[str]:
    """Addresses that pages asked for since the last call; not data and blobs, nor what the browser asks of itself."""
    found = []
    for entry in driver.get_log("performance"):
        event = json.loads(entry["message"])["message"]
        if event["method"] == "Network.requestWillBeSent":
            url = event["params"]["request"]["url"]
            if not url.startswith(("data:", "blob:", "chrome:")):
                found.append(url)
    return found


def emulate(driver: Any, *, scheme: str = "light", reduced_motion: bool = False) -> None:
    """What the page learns of the visitor's preferences."""
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce" if reduced_motion else "no-preference"},
    ]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def screen(driver: Any, width: int, height: int, *, scale: float = 1, mobile: bool = False) -> None:
    """A screen of so many CSS pixels, and for a phone its touch."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": mobile})
