"""The README's picture is drawn from the committed results."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def drawn() -> Any:
    sys.path.insert(0, str(ROOT))
    from benchmarks import equal_time_picture

    sys.path.remove(str(ROOT))
    return equal_time_picture


def test_the_picture_is_that_of_the_results(drawn: Any) -> None:
    results = json.loads(drawn.RESULTS.read_text())
    text = drawn.PICTURE.read_text()
    assert text == drawn.picture(results)
    assert len(ElementTree.fromstring(text).findall("{*}circle")) == len(results["against"]) + 1  # and the legend


def test_the_readme_says_what_the_picture_shows(drawn: Any) -> None:
    shown = re.findall(r'font-weight="600">(\d+\.\d)<', drawn.PICTURE.read_text())
    (told,) = re.findall(r"!\[(.*?)\]\(docs/equal-time\.svg\)", (ROOT / "README.md").read_text())
    assert re.findall(r"\d+\.\d", told) == shown and len(shown) == 8
