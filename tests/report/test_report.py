"""Reports: one object, several renderings, nothing lost on the way to a file and back."""

from __future__ import annotations

import copy
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.reports import SAMPLE, reports

from compress.core.accuracy import Measured
from compress.errors import CompressError, ConfigError
from compress.report import formatting, store
from compress.report.markdown import report_markdown
from compress.report.model import Report
from compress.report.schema import schema, validate


@given(reports)
def test_a_report_survives_json(report: Report) -> None:
    assert validate(json.loads(json.dumps(report.to_json()))) == report


@given(reports)
def test_every_report_fits_the_schema(report: Report) -> None:
    jsonschema.Draft202012Validator(schema()).validate(json.loads(store.report_text(report)))


@given(report=reports, data=st.data())
def test_an_entry_that_the_schema_does_not_know_is_refused_by_name(report: Report, data: st.DataObject) -> None:
    told = json.loads(store.report_text(report))
    places: list[tuple[str, dict[str, object]]] = []

    def walk(value: object, path: str) -> None:
        if isinstance(value, dict):
            places.append((path, value))
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, below in items:
            walk(below, f"{path}{key}.")

    walk(told, "")
    path, place = data.draw(st.sampled_from(places))
    place["colour"] = data.draw(st.sampled_from([1, None, "red", {}, []]))
    if jsonschema.Draft202012Validator(schema()).is_valid(told):
        return  # a mapping of any names
    with pytest.raises(ConfigError) as caught:
        validate(told)
    assert f"{path}colour" in str(caught.value)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("verdict", None),
        ("scores", [{"when": "base"}]),
        ("before", {"macs": "many", "params": 1, "onnx_bytes": 0}),
        ("new", 1),
    ],
)
def test_what_is_no_report_is_refused(where: str, value: object) -> None:
    data = json.loads(store.report_text(SAMPLE)) | {where: value}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, schema())
    if where != "new":  # a reader passes over what it does not know
        with pytest.raises(ConfigError, match=where):
            validate(data)


@given(st.sampled_from(sorted(SAMPLE.to_json())))
def test_no_entry_may_be_missing(name: str) -> None:
    data = json.loads(store.report_text(SAMPLE))
    del data[name]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, schema())


def test_write_and_read(tmp_path: Path) -> None:
    store.write_report(SAMPLE, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "model-card.md",
        "report.html",
        "report.json",
        "report.md",
        "report.schema.json",
    ]
    assert store.read_report(tmp_path) == store.read_report(tmp_path / "report.json") == SAMPLE
    jsonschema.validate(
        json.loads((tmp_path / "report.json").read_text()), json.loads((tmp_path / "report.schema.json").read_text())
    )
    assert (tmp_path / "report.md").read_text() == report_markdown(SAMPLE)


def test_what_json_lacks_becomes_null(tmp_path: Path) -> None:
    store.write_report(replace(SAMPLE, parity={"error": math.nan, "more": [math.inf, 1.0]}), tmp_path)
    assert store.read_report(tmp_path).parity == {"error": None, "more": [None, 1.0]}


def test_a_failed_write_keeps_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write_report(SAMPLE, tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(CompressError, match="No space left"):
        store.write_report(replace(SAMPLE, name="other"), tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"schema": "compress-report-0"}', '{"schema": "compress-report-1"}', "[" * 100_000]
)
def test_damaged_reports_are_refused_in_words(tmp_path: Path, content: str) -> None:
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(ConfigError) as error:
        store.read_report(tmp_path)
    assert "report.json" in error.value.message
    assert error.value.hint


def test_no_report(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no report\.json"):
        store.read_report(tmp_path)


# ---- Markdown --------------------------------------------------------------------------------------------------------


@given(reports)
def test_tables_hold_whatever_the_names_are(report: Report) -> None:
    """Every row of a table has as many cells as its head: no name breaks out of its cell."""
    inside, head = False, 0
    for line in report_markdown(report).splitlines():
        cells = len(re.split(r"(?<!\\)\|", line))
        if line.startswith("|"):
            head = head if inside else cells
            assert cells == head, line
        inside = line.startswith("|")


def test_markdown_says_the_worst_first() -> None:
    text = report_markdown(SAMPLE)
    places = [
        text.index(s)
        for s in (SAMPLE.verdict, SAMPLE.warnings[0], "÷ 2.27 (44.0 %)", "97.21 % (94.9 to 98.5)", "4da6c6cfa67e1ade")
    ]
    assert places == sorted(places)
    assert "some \\| processor" in text


def test_markdown_says_what_was_not_measured() -> None:
    bare = report_markdown(replace(SAMPLE, scores=(), latency=()))
    assert bare.count("Not measured.") == 2


# ---- figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (999.7, "1.00 k"),
        (1000, "1.00 k"),
        (116_602, "117 k"),
        (2_960_000, "2.96 M"),
        (4.1e9, "4.10 G"),
        (math.nan, "–"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert formatting.number(value) == text


@given(st.floats(1, 1e12))
def test_numbers_keep_three_digits(value: float) -> None:
    text = formatting.number(value)
    digits, _, unit = text.partition(" ")
    assert float(digits) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[unit] == pytest.approx(value, rel=0.005, abs=0.5)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (48.9e-6, "48.9 µs"),
        (0.0031, "3.10 ms"),
        (12.3, "12.3 s"),
        (245, "4 min 05 s"),
        (3599.9, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert formatting.duration(seconds) == text


def test_ratio_is_told_both_ways() -> None:
    assert formatting.ratio(200, 100) == "÷ 2.00 (50.0 %)"
    assert formatting.ratio(200, 0) == formatting.NONE


def test_the_final_test_figure_stands_beside_the_last_state() -> None:
    rows = formatting.scores(SAMPLE)
    assert [r[0] for r in rows] == ["base", "cut", "fine-tuned"]
    assert rows[-1][2].startswith("97.21 %")
    assert rows[1][2] == formatting.NONE


@given(reports)
def test_no_accuracy_is_lost(report: Report) -> None:
    """Whatever was measured last of a state and split is in the table."""
    shown = [cell for row in formatting.scores(report) for cell in row[1:]]
    last: dict[tuple[str, str], Measured] = {(a.when, a.split): a for a in report.scores}
    for measured in last.values():
        assert formatting.score_text(measured) in shown


def test_expectation_stands_beside_measurement() -> None:
    assert formatting.expected(SAMPLE) == "MACs promise 2.00×; ort-cpu measured 1.13× (1.12 to 1.14) (batch 1)"
    assert "not measured" in formatting.expected(replace(SAMPLE, latency=()))


def test_the_sample_is_not_changed_by_rendering() -> None:
    before = copy.deepcopy(SAMPLE)
    report_markdown(SAMPLE)
    formatting.scores(SAMPLE)
    assert before == SAMPLE


@pytest.mark.parametrize("last", ["trained by stages", "kernels zeroed", "fine-tuned"])
def test_the_final_test_figure_stands_on_the_last_state(last: str) -> None:
    """Whatever a run passes through, what was exported last carries the test images' figure."""
    steps = ["base", "cut", "trained by stages", "kernels zeroed", "fine-tuned"]
    steps = steps[: steps.index(last) + 1]
    seen = [Measured(s, "validation", 0.5, 0.4, 0.6, 100) for s in reversed(steps)]
    seen += [Measured("base", "test", 0.9, 0.8, 1.0, 100), Measured("final", "test", 0.7, 0.6, 0.8, 100)]
    rows = formatting.scores(replace(SAMPLE, scores=tuple(seen)))
    assert [r[0] for r in rows] == steps
    assert "70.00 %" in rows[-1][2]
