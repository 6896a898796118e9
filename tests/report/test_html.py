"""The page: whatever the names are, one file, every figure in it, the worst first."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support.pages import SPEEDS, Page, comparison
from support.reports import SAMPLE, reports

from compress.core import TOP1
from compress.export.precision import Precision, Precisions
from compress.export.precision import PrecisionLatency as Beside
from compress.report import charts, formatting, html, layer_charts, plots, red_flags, run_files, store, tables, timm_csv
from compress.report.model import Report, Width
from compress.report.run_files import RawComparison, RunFiles, Timed
from compress.report.schema import validate
from compress.report.svg import drawing, inline, svg_of

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)> $x_{$ \x00\x1b & {{ 7*7 }} {% raw %}'
FRONT = {
    "points": [
        {"macs_share": 0.2, "params_share": 0.2, "error": 0.4},
        {"macs_share": 0.49, "params_share": 0.4, "error": 0.05},
    ],
    "chosen": 1,
    "knee": 0,
}


@pytest.fixture(scope="module")
def full() -> Page:
    found = RunFiles((RawComparison(comparison()),), FRONT)
    return Page(html.html_page(SAMPLE, found, [html.Download("report.json", "Report", b"{}")]))


def everywhere(value: object, text: str) -> object:
    """Every text of a report replaced."""
    if isinstance(value, str):
        return text
    if isinstance(value, dict):
        return {text if k == "names" else k: everywhere(v, text) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(everywhere(v, text) for v in value)
    return value


# ---- nothing of it runs, nothing of it leaves ------------------------------------------------------------------------


def test_names_are_text_wherever_they_stand() -> None:
    data = SAMPLE.to_json() | {"parity": {EVIL: EVIL}, "seconds": {EVIL: 1.0}, "digests": {EVIL: EVIL}, "job": {EVIL: [EVIL]}}
    hostile = validate({**everywhere(data, EVIL), "schema": SAMPLE.schema})  # type: ignore[dict-item]
    clocked = comparison({**SPEEDS, EVIL: 60e-6})
    for page in (
        Page(html.html_page(hostile, RunFiles((RawComparison(clocked, EVIL),), FRONT, damaged=(EVIL,)))),
        Page(html.runs_page({EVIL: hostile, f"{EVIL} again": hostile})),
    ):
        assert len(page.all("script")) == 1
        assert not page.all("img") and not [a for _, a in page.elements if any(name.startswith("on") for name in a)]
        assert "<script>alert(1)</script>" in page.text and "{{ 7*7 }} {% raw %}" in page.text


@settings(max_examples=3, phases=[Phase.explicit, Phase.generate])  # a page takes too long to look for a smaller one
@given(reports)
def test_any_report_has_a_page(report: Report) -> None:
    source = html.html_page(report, RunFiles())
    page = Page(source)
    assert len(page.ids) == len(set(page.ids))
    text = " ".join(page.text.split())
    for flag in report.warnings:
        assert " ".join(flag.replace("\0", "\ufffd").split()) in text or not flag.isprintable()


def test_the_page_needs_nothing_else(full: Page) -> None:
    for name in ("src", "srcset", "action", "poster", "data", "background"):
        assert not [a for _, a in full.elements if name in a]
    links = [a.get("href") or a.get("xlink:href") for _, a in full.elements if "href" in a or "xlink:href" in a]
    assert links and all(link.startswith(("#", "data:")) for link in links if link)
    assert not re.search(r"@import|url\((?!#)", full.source)


def test_its_policy_admits_its_own_script_and_no_other(full: Page) -> None:
    policy = next(a["content"] for a in full.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    script = re.search(r"<script>(.*?)</script>", full.source, re.S)
    assert policy and script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy


def test_every_reference_has_its_target(full: Page) -> None:
    known = set(full.ids)
    assert len(known) == len(full.ids)
    for _, a in full.elements:
        told = [*(a.get("aria-labelledby") or "").split(), *re.findall(r"^#(.+)", a.get("href") or "")]
        told += re.findall(r"url\(#([^)]+)\)", " ".join(v or "" for v in a.values()))
        assert set(told) <= known


# ---- everything is there ---------------------------------------------------------------------------------------------


def test_sections_plots_and_tables(full: Page) -> None:
    assert {"scores", "latency", "layers", "front", "proof", "run", "main"} <= set(full.ids)
    plots = {a["id"] for a in full.all("svg")}
    assert plots == {f"plot-{n}" for n in ("scores", "dumbbells", "samples-0", "rounds-0", "network", "sensitivity", "front")}
    for a in full.all("svg"):
        assert a["role"] == "img" and "viewbox" in a and "width" not in a
    assert len(full.all("table")) == len(full.all("caption")) >= 5
    assert all(a.get("scope") in ("col", "row") for a in full.all("th"))


def test_what_was_not_measured_is_said() -> None:
    page = Page(html.html_page(replace(SAMPLE, scores=(), latency=(), certificate=None), RunFiles()))
    assert page.text.count("Not measured.") == 2
    assert "front" not in page.ids and "Latency not measured" in page.text


def test_red_flags_come_first_and_the_worst_of_them_before_the_others() -> None:
    warnings = (
        "ort-cpu: noisy: the base against itself may be off by 2.7%",
        "accuracy was not measured: no data was given",
        "ort-cpu: not measurably faster (1.00x, same)",
        "ort-cuda: fallback: cuda was asked for",
        "something else",
        "the pruned network is of no use as it is: 99.4 % -> 14.5 % (test images, chance is 10 %)",
        "ONNX parity is inconclusive: no spread",
    )
    told = red_flags.flags_of(replace(SAMPLE, warnings=warnings))
    labels = ["Parity inconclusive", "Score lost", "Fallback", "Not faster", "Score", "Noisy", "Warning"]
    assert [flag.label for flag in told] == labels and sorted(f.text for f in told) == sorted(warnings)
    assert red_flags.status(replace(SAMPLE, warnings=warnings)) == ("Accuracy lost", False)
    source = html.html_page(replace(SAMPLE, warnings=warnings), RunFiles())
    places = [source.index(t) for t in ("Parity inconclusive</span>", "Not faster</span>", 'class="sentence"', 'id="scores"')]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("low", "high", "verdict", "word"),
    [
        (1.1, 1.2, "different", "Faster"),
        (0.8, 0.9, "different", "Slower"),
        (0.99, 1.01, "same", "Not measurably faster"),
        (0.9, 1.2, "inconclusive", "Not measurably faster"),
        (1.01, 1.2, "inconclusive", "Not measurably faster"),
    ],
)
def test_only_what_is_certainly_faster_is_called_so(low: float, high: float, verdict: str, word: str) -> None:
    found = replace(SAMPLE.latency[0], low=low, high=high, speedup=(low + high) / 2, verdict=verdict)
    said, good = red_flags.status(replace(SAMPLE, latency=(found,)))
    assert said == word and good == (word == "Faster")
    assert ("good-text" in tables.tone(SAMPLE, found)) == good


def test_a_damaged_neighbour_costs_its_part_only(tmp_path: Path) -> None:
    (tmp_path / "latency.json").write_text("[{}]")
    (tmp_path / "front.json").write_text("{")
    found = run_files.read(tmp_path)
    assert not found.latency and found.front is None and len(found.damaged) == 2
    assert "front.json cannot be read" in Page(store.page_of(SAMPLE, tmp_path)).text


def test_raw_samples_come_back_out_of_the_page(tmp_path: Path) -> None:
    raw = json.dumps([comparison().to_json()])
    (tmp_path / "latency.json").write_text(raw)
    page = Page(store.page_of(SAMPLE, tmp_path))
    files = {a["download"]: a["href"] for a in page.all("a") if "download" in a}
    assert base64.b64decode((files["latency.json"] or "").partition("base64,")[2]).decode() == raw
    assert formatting.duration(comparison().arm("pruned").latency.p95) in page.text


def test_several_runs_stand_beside_each_other() -> None:
    other = replace(
        SAMPLE, digests={"network": "other"}, latency=(replace(SAMPLE.latency[0], speedup=0.9, low=0.8, high=0.95),)
    )
    page = Page(html.runs_page({"a": SAMPLE, "b": other}))
    assert {a["id"] for a in page.all("svg")} == {"plot-dumbbells", "plot-runs"}
    assert "different unpruned networks" in page.text and "Slower" in page.text


# ---- figures ---------------------------------------------------------------------------------------------------------


@given(st.floats(1.02, 50), st.floats(0.1, 50))
def test_efficiency_is_the_share_of_the_promise_that_arrived(promised: float, measured: float) -> None:
    share = formatting.efficiency(promised, measured)
    assert share is not None
    assert 1 + share * (promised - 1) == pytest.approx(measured)
    assert formatting.efficiency(promised, promised) == pytest.approx(1) and formatting.efficiency(promised, 1.0) == 0
    assert formatting.efficiency(1.0, measured) is None


@given(st.integers(1, 4096))
def test_alignment_divides_and_the_next_one_does_not(channels: int) -> None:
    found = tables.alignment(channels)
    assert channels % found == 0 and (found == 32 or channels % (2 * found))


def test_layers_sort_by_numbers_not_by_text() -> None:
    made = tables.layer_table([Width("a", 64, 8, "", "conv", 10**6, 10**5, 10, 5)], [Timed("a", 2e-3, 1e-3, "memory")])
    cells = dict(zip([c.name for c in made.head], made.rows[0], strict=True))
    assert cells["channels"].text == "64 → 8" and cells["channels"].sort == 8
    assert cells["MACs"].sort == 10**5 and cells["time"].bars == (1.0, 0.5)
    assert cells["what binds it"].text == "memory"


def test_other_batches_and_precisions_have_their_grids() -> None:
    assert tables.grid_table(SAMPLE) is None
    twice = replace(SAMPLE, latency=(SAMPLE.latency[0], replace(SAMPLE.latency[0], batch=8, speedup=0.9, low=0.8, high=0.95)))
    made = tables.grid_table(twice)
    assert made is not None and [c.name for c in made.head] == ["runtime", "batch 1", "batch 8"]
    assert [c.tone for c in made.rows[0]] == ["", "good-text", "bad-text"]
    rows = tuple(
        Beside("ort-cpu", b, 1, 1e-4, 2e-4, s, s - 0.1, s + 0.1, "different", "cpu", 99) for b, s in ((1, 2.0), (8, 0.5))
    )
    int8 = Precision(
        "int8", "m.onnx", 1000, verdict="pass", message="agrees", agreement=0.99, score=0.9, drop=0.01, latency=rows
    )
    made = tables.precision_table(Precisions("model.onnx", "x", 4000, (int8, Precision("fp16", verdict="warn"))))
    first, second = made.rows
    assert [c.text for c in first[4:]] == ["faster: 2.00× (1.90 to 2.10)", "slower: 0.50× (0.40 to 0.60)"]
    assert first[2].text == "90.00 % (-1.00 points)" and {c.text for c in second[1:]} == {formatting.NONE}


@settings(max_examples=25)
@given(reports, st.text(max_size=8))
def test_timms_columns_hold_every_run(report: Report, name: str) -> None:
    text = timm_csv.to_timm_csv({name: report})
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(rows) == 2 * max(1, len(report.latency))
    assert set(timm_csv.COLUMNS) < set(rows[0])
    assert not rows[0]["model"].startswith(("=", "+", "-", "@"))


def test_timms_units() -> None:
    base, pruned = csv.DictReader(io.StringIO(timm_csv.to_timm_csv({"r": replace(SAMPLE, image=(1, 8, 8))})))
    assert (base["param_count"], base["infer_gmacs"], base["img_size"]) == ("0.12", "0.00296", "8")
    assert pruned["infer_step_time"] == "0.0429" and float(pruned["infer_samples_per_sec"]) == pytest.approx(
        1 / 42.9e-6, rel=1e-4
    )
    assert pruned["top1"] == "97.210" and float(pruned["top1_err"]) == pytest.approx(2.79)
    assert base["infer_macts"] == "0.003136"


# ---- drawings --------------------------------------------------------------------------------------------------------


def test_drawings_are_text_in_the_pages_colours() -> None:
    svg = inline(svg_of(lambda: layer_charts.network(SAMPLE.widths)), "one", "Channels", "stem.0 16")
    assert "stem.0</text>" in svg and "<style" not in svg and "#0a00" not in svg
    assert "var(--pruned)" in svg and svg.startswith("<svg") and "stem.0 16</desc>" in svg
    again = inline(svg_of(lambda: layer_charts.network(SAMPLE.widths)), "one", "Channels", "stem.0 16")
    assert svg == again


def test_no_name_is_a_formula() -> None:
    named = [replace(w, layer="$x_{$") for w in SAMPLE.widths]
    assert "$x_{$</text>" in inline(svg_of(lambda: layer_charts.network(named)), "one", "", "")


@pytest.mark.parametrize("name", ["network", "scores"])
def test_laid_out_once_it_is_what_matplotlib_draws(name: str) -> None:
    def draw() -> Any:
        return layer_charts.network(SAMPLE.widths) if name == "network" else charts.scores(SAMPLE.scores, TOP1, {"fine-tuned"})

    plain = io.StringIO()
    with drawing():
        draw().savefig(plain, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    assert svg_of(draw) == plain.getvalue()


def test_the_front_is_drawn_once_for_its_file_and_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    honest = charts.front
    monkeypatch.setattr(charts, "front", lambda *given: made.append(given) or honest(*given))
    points = [{**p, "error": 0.3 + p["error"]} for p in FRONT["points"]]  # type: ignore[operator]
    file = plots.front_svg(points, 1, 0)
    page = html.html_page(SAMPLE, RunFiles(front={**FRONT, "points": points}))
    assert len(made) == 1 and 'id="plot-front"' in page
    root = ElementTree.fromstring(file)
    assert root.tag.endswith("svg") and "#1f5fe0" in file and "var(" not in file and "#0a00" not in file
    assert {"chosen", "knee"} <= {t.text for t in root.iter() if t.tag.endswith("text")}
    assert plots.front_svg(FRONT["points"], 1, 0) != file and len(made) == 2  # type: ignore[arg-type]
