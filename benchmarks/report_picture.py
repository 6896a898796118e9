"""Takes a picture of a report's page: light beside dark, as docs/reports.md shows it.

    python benchmarks/report_picture.py runs/r20/report.html docs/report.png

It wants selenium (``pip install -e '.[browser]'``) and Debian's chromium and chromium-driver.
"""

from __future__ import annotations

import argparse
import base64
import io
import shutil
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

WIDTH, HEIGHT = 1120, 1420
COLOURS = 96  # a drawing needs no more, and the file stays small


def pictures(page: Path, height: int) -> list[Image.Image]:
    """The top of the page in both schemes."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    try:
        taken = []
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            sizes = {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sizes)
            browser.get(page.resolve().as_uri())
            png = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
            taken.append(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))
        return taken
    finally:
        browser.quit()


def side_by_side(light: Image.Image, dark: Image.Image) -> Image.Image:
    """Light above the diagonal from the lower left to the upper right, dark below it."""
    mask = Image.new("L", light.size, 0)
    width, height = light.size
    edge = [(int(width * (0.5 + 0.16 * (0.5 - y / height))), y) for y in range(height)]
    for x, y in edge:
        mask.paste(255, (x, y, width, y + 1))
    joined = light.copy()
    joined.paste(dark, mask=mask)
    return joined


def main() -> None:
    """One picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--height", type=int, default=HEIGHT)
    wanted = parser.parse_args()
    joined = side_by_side(*pictures(wanted.page, wanted.height))
    small = joined.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    small.save(wanted.picture, optimize=True)
    print(f"{wanted.picture}: {wanted.picture.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
