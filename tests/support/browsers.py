"""A real headless Chromium: pages opened at a size and in a scheme, kept as pictures, and what they asked for."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "build" / "screenshots"


@contextmanager
def chromium() -> Iterator[Any]:
    """Debian's Chromium, driven by Selenium."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    found, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert found and driver, "a browser is wanted: apt-get install chromium chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = found
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options, Service(driver))
    try:
        yield browser
    finally:
        browser.quit()


def opened(browser: Any, page: Path | str, *, width: int = 1200, scheme: str = "light", media: str = "") -> None:
    """Opens a file or an address; what was logged before is forgotten."""
    browser.get_log("browser"), browser.get_log("performance")
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    sizes = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sizes)
    browser.get(page if isinstance(page, str) else page.as_uri())


def kept(browser: Any, name: str, width: int, most: int = 20_000) -> None:
    """Keeps the page as a picture, of its first ``most`` pixels."""
    height = min(most, browser.execute_script("return document.documentElement.scrollHeight"))
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True, "clip": clip})
    SHOTS.mkdir(parents=True, exist_ok=True)
    (SHOTS / f"{name}.png").write_bytes(base64.b64decode(taken["data"]))


def requests(browser: Any) -> set[str]:
    """Addresses that the page asked for."""
    told = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    return {e["params"]["request"]["url"] for e in told if e["method"] == "Network.requestWillBeSent"}


def weak_contrasts(browser: Any) -> tuple[list[Any], str]:
    """Elements whose text has less than WCAG 2's AA contrast, and the page's own ground."""
    weak, ground = browser.execute_script((ROOT / "tests" / "browser" / "contrast.js").read_text())
    return weak, ground


def accessible(browser: Any) -> list[tuple[str, str]]:
    """(role, name) of everything that a screen reader is told of."""
    tree = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    return [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in tree if not n.get("ignored") and "role" in n]
