"""The network drawn with its branches, and each layer's sensitivity: nothing of it is made up, no value without its head."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bilevel import space_of
from support.pages import Page, comparison
from support.reports import SAMPLE

from compress.core import Cut, Plan
from compress.pipeline.reporting import _branches, _sensitivity
from compress.report import html, layer_charts
from compress.report.model import BranchSpan, Sensitivity, Width
from compress.report.run_files import RawComparison, RunFiles
from compress.report.svg import inline, svg_of
from compress.search.obs import _losses

_SPAN = st.tuples(st.integers(0, 30), st.integers(0, 6)).map(lambda s: (s[0], s[0] + s[1]))


def test_the_sensitivity_is_what_the_search_stood_on() -> None:
    _, space, _ = space_of("residual")
    known = {g.id: _losses(space, g.id, "obs")[0] for g in space.topology.groups if g.id in space.statistics.curves}
    narrowed = Plan({g: Cut(keep=tuple(range(2))) for g in known if not g.startswith("stem")})
    rows = {row.layer: row for row in _sensitivity(space, narrowed)}
    assert list(rows) == [g.id for g in space.topology.groups if g.id in known] and len(rows) == 2
    for name, row in rows.items():
        size = len(known[name]) - 1
        assert row.halved == pytest.approx(known[name][size - size // 2]) and row.halved > 0
        assert row.chosen == pytest.approx(known[name][2] if name in narrowed.cuts else 0.0)
    branch = space.topology.branches[0]
    without = Plan(branches=(branch.name,))
    assert [row.chosen for row in _sensitivity(space, without)] == [None if name == "a.0" else 0.0 for name in rows]
    assert _branches(space.topology, without) == (BranchSpan(branch.name, ("a.0", "b.0"), left_out=True),)
    assert not _branches(space.topology, narrowed)[0].left_out


@given(st.lists(_SPAN, max_size=8).map(sorted))
def test_brackets_that_overlap_stand_beside_each_other(spans: list[tuple[int, int]]) -> None:
    lanes = layer_charts._lanes(spans)
    for (one, lane), (other, beside) in itertools.combinations(zip(spans, lanes, strict=True), 2):
        assert lane != beside or one[1] < other[0] or other[1] < one[0]


@pytest.mark.parametrize("count", [1, 12, 90])
def test_what_is_left_out_is_drawn_and_said(count: int) -> None:
    layers = [Width(f"block{i}.conv", 16, 8) for i in range(count)]
    out = BranchSpan("block0", ("block0.conv",), left_out=True)
    for gone in (False, True):
        branches = [replace(out, left_out=gone)]
        svg = inline(svg_of(lambda found=branches: layer_charts.network(layers, found)), "one", "", "")  # type: ignore[misc]
        assert ("var(--bad)" in svg) == ("left out</text>" in svg) == gone
        assert ("block0.conv</text>" in svg) == (count < 90)
    told = html.html_page(replace(SAMPLE, widths=tuple(layers), branches=(out,)), RunFiles())
    assert re.search(r'<desc id="plot-network-desc">[^<]*left out: block0</desc>', told)
    assert "1 of 1 branch beside shortcuts left out" in Page(told).text


def test_no_error_is_too_small_or_too_large_to_be_drawn() -> None:
    rows = [Sensitivity("a", 0.0, 0.0), Sensitivity("b", 7.0, None), Sensitivity("$x_{$", 1e-9, 0.5)]
    svg = inline(svg_of(lambda: layer_charts.sensitivity(rows)), "one", "", "")
    assert "$x_{$</text>" in svg and "100 %</text>" in svg and "mathdefault" not in svg


def test_every_value_of_a_table_carries_its_head() -> None:
    """On a phone a row becomes a card: the heads are told beside the values, and the roles of a table are kept."""
    page = Page(html.html_page(SAMPLE, RunFiles((RawComparison(comparison()),))))
    cells = [a for tag, a in page.elements if tag in ("td", "th") and a.get("role") in ("cell", "rowheader")]
    assert len(cells) > 40 and all(a.get("data-head") for a in cells)
    assert len(page.all("tr")) == sum(a.get("role") == "row" for a in page.all("tr"))
    assert all(a.get("role") == "table" for a in page.all("table"))


def test_whoever_found_the_plan_is_named() -> None:
    found = replace(SAMPLE, search={"found_by": "the evolution"})
    assert html._found_by(found).endswith("plan found by the evolution") and not html._found_by(SAMPLE)
