"""The page in a real headless Chromium: drawn, quiet, alone, and readable by everybody.

``make browser`` runs it; it wants Debian's packages chromium and chromium-driver. Screenshots go to ``build/screenshots``.
"""

from __future__ import annotations

import base64
import http.server
import itertools
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.browsers import SHOTS, accessible, chromium, kept, opened, requests, weak_contrasts
from support.pages import SPEEDS, comparison
from support.reports import SAMPLE

from compress.report import html, store
from compress.report.candidates import FrontLatency, FrontPoint
from compress.report.model import Report, Width

pytestmark = pytest.mark.browser
EVIL = '"><script>document.title="owned"</script><img src="http://127.0.0.1:9/x" onerror=\'document.title="owned"\'>'


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with everything that a page can show, hostile names among it."""
    folder = tmp_path_factory.mktemp("run")
    layers = tuple(
        Width(f"stage{i // 4}.{i % 4}.conv", 64, 64 - 8 * (i % 5), "", "conv", 10**7, 10**6 * (i + 1), 999, 500)
        for i in range(30)
    )
    clocked = FrontLatency(
        "ort-cpu",
        1,
        1,
        99,
        tuple(FrontPoint(i, 0.2 * i + 0.1, 0.2, 0.3 * i + 0.2, 0.2, 0.9) for i in range(3)),
        0.9,
        1.0,
        ((0, 1),),
    )
    names = tuple(replace(w, layer=EVIL, note=EVIL) for w in layers[:1])
    report = replace(SAMPLE, widths=(*names, *layers), front_latency=clocked, name=EVIL, command=EVIL, image=(3, 32, 32))
    points = [{"macs_share": 0.2 * i, "params_share": 0.2 * i, "error": 0.5 - 0.1 * i} for i in range(1, 4)]
    timed = [{"name": n, "seconds": 1e-3, "binds": "memory", "why": EVIL} for n in ("stage0.1.conv", "(ReorderInput)", "norm")]
    beside = {
        "latency.json": [comparison().to_json(), comparison(SPEEDS, batch=8).to_json()],
        "front.json": {"points": points, "chosen": 2, "knee": 1},
        "profile.json": {"base": {"layers": timed}, "pruned": {"layers": timed[:1]}, "summary": [EVIL]},
    }
    for name, content in beside.items():
        (folder / name).write_text(json.dumps(content))
    store.write_report(report, folder)
    return folder / store.HTML


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (390, "light"), (360, "dark")])
def test_it_is_drawn_without_a_word_on_the_console_and_asks_for_nothing(
    browser: Any, page: Path, width: int, scheme: str
) -> None:
    opened(browser, page, width=width, scheme=scheme)
    assert browser.get_log("browser") == []
    asked = {url for url in requests(browser) if not url.startswith("data:")}
    assert asked == {page.as_uri()}
    assert browser.title.startswith('"><script>')
    seen = "[s.id, s.getBoundingClientRect().width, s.querySelectorAll('path').length]"
    drawn = browser.execute_script(f"return [...document.querySelectorAll('svg.plot')].map(s => {seen})")
    assert len(drawn) == 10 and all(w > 200 and paths > 3 for _, w, paths in drawn), drawn
    assert browser.execute_script("return document.documentElement.scrollWidth") == width  # nothing sticks out
    kept(browser, f"report-{width}-{scheme}", width)


_OUT_OF_SIGHT = """
const width = document.documentElement.clientWidth;
return [...document.querySelectorAll('td, tbody th, caption, dd, figcaption, svg.plot, .flags li')]
  .filter(e => e.getBoundingClientRect().right > width + 1 || e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0)
  .map(e => e.tagName + ' ' + e.textContent.slice(0, 60));
"""


@pytest.mark.parametrize(("width", "media"), [(390, ""), (688, "print")])
def test_no_column_is_out_of_sight_on_a_phone_and_on_paper(browser: Any, page: Path, width: int, media: str) -> None:
    """688 pixels are what the margins leave of a sheet of A4."""
    opened(browser, page, width=width, media=media)
    assert browser.execute_script(_OUT_OF_SIGHT) == []
    shown = (
        "return [...document.querySelectorAll('section > *, section li, td')].filter(e => !e.getClientRects().length).length"
    )
    hidden = len(browser.find_elements("css selector", ".downloads li")) + 1 if media else 0
    assert browser.execute_script(shown) == hidden


def test_dark_and_light_differ_and_both_can_be_read(browser: Any, page: Path) -> None:
    """WCAG's contrast of 4.5 for every element that holds text, in both schemes."""
    grounds = []
    for scheme in ("light", "dark"):
        opened(browser, page, scheme=scheme)
        weak, ground = weak_contrasts(browser)
        assert weak == [], (scheme, weak)
        grounds.append(ground)
    assert grounds[0] != grounds[1]


def test_it_can_be_used_without_a_mouse(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(browser, page)
    browser.switch_to.active_element.send_keys(Keys.TAB)
    focused = "return document.activeElement.textContent + ' ' + getComputedStyle(document.activeElement).outlineStyle"
    assert browser.execute_script(focused) == "Skip to the figures solid"
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert browser.execute_script("return location.hash") == "#main"
    # Every head sorts by key, numbers as numbers, and says so.
    browser.execute_script("document.querySelector('#layers table.sortable thead th:nth-child(3) button').focus()")
    orders = []
    for way in ("ascending", "descending"):
        browser.switch_to.active_element.send_keys(Keys.ENTER)
        head = "return document.querySelector('#layers th[aria-sort]').getAttribute('aria-sort')"
        assert browser.execute_script(head) == way
        cells = (
            "return [...document.querySelectorAll('#layers table.sortable tbody')][0].querySelectorAll('tr td:nth-child(3)')"
        )
        orders.append([int(c.text.split()[-1]) for c in browser.execute_script(cells)])
    assert orders[0] == sorted(orders[0]) and orders[1] == sorted(orders[1], reverse=True) and orders[0] != orders[1]


def test_a_screen_reader_finds_its_way(browser: Any, page: Path) -> None:
    opened(browser, page)
    named = accessible(browser)
    roles = {role for role, _ in named}
    assert {"main", "navigation", "banner", "contentinfo", "table", "columnheader", "rowheader"} <= roles
    images = [name for role, name in named if role in ("image", "img")]
    assert len(images) == 10 and all("," in name or " " in name for name in images)
    levels = browser.execute_script("return [...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert all(name for role, name in named if role in ("table", "region", "link", "button"))


def test_paper(browser: Any, page: Path) -> None:
    opened(browser, page, scheme="dark", media="print")
    style = "return [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector('nav')).display]"
    assert browser.execute_script(style) == ["rgb(255, 255, 255)", "none"]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    printed = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert printed.startswith(b"%PDF") and len(printed) > 20_000
    SHOTS.mkdir(parents=True, exist_ok=True)
    (SHOTS / "report.pdf").write_bytes(printed)


def test_without_scripts_everything_is_there(browser: Any, page: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        opened(browser, page)
        text = browser.execute_cdp_cmd("Runtime.evaluate", {"expression": "document.body.innerText"})["result"]["value"]
        assert "stage0.1.conv" in text and "Raw samples" in text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_script_in_the_page_would_not_run(browser: Any, page: Path, tmp_path: Path) -> None:
    """The policy is the second wall: markup that got past the first one is not executed and fetches nothing."""
    seen: list[str] = []

    class Ears(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Ears) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        evil = EVIL[2:].replace("127.0.0.1:9", f"127.0.0.1:{server.server_port}")
        broken = tmp_path / "broken.html"
        broken.write_text(page.read_text().replace("<main ", f"{evil}<main ", 1))
        opened(browser, broken)
        assert browser.title != "owned" and not seen
        refused = [entry["message"] for entry in browser.get_log("browser")]
        assert sum("Content Security Policy" in message for message in refused) >= 3  # the script, the image, its handler
        # The same page without the policy does all of it, so the test can see.
        broken.write_text(broken.read_text().replace("Content-Security-Policy", "nothing", 1))
        opened(browser, broken)
        assert browser.title == "owned" and seen == ["/x"]
        server.shutdown()


def test_several_runs(browser: Any, tmp_path: Path) -> None:
    slower = replace(SAMPLE.latency[0], speedup=0.9, low=0.85, high=0.95)
    found: dict[str, Report] = {"first": SAMPLE, EVIL: replace(SAMPLE, latency=(slower,))}
    path = tmp_path / "runs.html"
    path.write_text(html.runs_page(found))
    for width in (1200, 360):
        opened(browser, path, width=width)
        assert browser.get_log("browser") == []
        assert browser.execute_script("return document.querySelectorAll('svg.plot').length") == 2
        assert browser.execute_script("return document.documentElement.scrollWidth") == width
        kept(browser, f"runs-{width}", width)
