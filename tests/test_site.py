"""The documentation site in a real headless Chromium: every page quiet, within its window, and readable by everybody.

``make site`` builds it and runs this; it wants Debian's packages chromium and chromium-driver. Screenshots go to
``build/screenshots``.
"""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support.browsers import ROOT, accessible, chromium, kept, opened, requests, weak_contrasts

pytestmark = pytest.mark.site
SITE = ROOT / "build" / "site"
PAGES = sorted(str(p.relative_to(SITE)) for p in SITE.rglob("*.html") if p.name != "404.html") or ["the site is not built"]
PICTURED = ("index.html", "getting-started.html", "api.html", "cli.html", "decide.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def home() -> Iterator[str]:
    """Where the site is served."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    assert (SITE / "index.html").is_file(), "make docs"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(SITE))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_on_a_phone_and_in_both_schemes(browser: Any, home: str, page: str) -> None:
    grounds = []
    for width, scheme in ((390, "light"), (1280, "light"), (1280, "dark")):
        opened(browser, home + page, width=width, scheme=scheme)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        broken = "return [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"
        assert browser.execute_script(broken) == []
        weak, ground = weak_contrasts(browser)
        assert weak == [], (width, scheme)
        grounds.append(ground)
        if page in PICTURED:
            kept(browser, f"site-{page.removesuffix('.html')}-{width}-{scheme}", width, most=1600)
        asked = requests(browser)
        assert asked and not [url for url in asked if not url.startswith((home, "data:", "blob:"))]
        assert browser.get_log("browser") == []
    assert grounds[1] != grounds[2]


@pytest.mark.parametrize("page", PAGES)
def test_a_screen_reader_finds_its_way(browser: Any, home: str, page: str) -> None:
    opened(browser, home + page)
    told = accessible(browser)
    assert {"main", "navigation", "banner", "contentinfo", "heading"} <= {role for role, _ in told}
    assert [name for role, name in told if role in ("link", "button", "image", "img", "searchbox") and not name.strip()] == []
    assert browser.execute_script("return document.querySelectorAll('h1').length") == 1
    assert browser.execute_script("return document.documentElement.lang") == "en"
