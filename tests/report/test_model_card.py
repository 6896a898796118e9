"""The card beside the model, and what notebooks show: read as hubs and browsers read them, whatever the names are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from support.nets import traced
from support.pages import Page
from support.reports import SAMPLE, reports

from compress.core import Cut, Plan, printable
from compress.pipeline.conclusion import Result
from compress.report import store
from compress.report.model import Report
from compress.report.model_card import card_text

EVIL = '"]\n---\nlicense: mit\n# x <script>alert(1)</script> {{ 7*7 }} \x1b[2J: - | '

UNKNOWN = {0xFFFE: "\ufffd", 0xFFFF: "\ufffd"}
"""Signs that YAML does not take."""


@given(reports)
def test_any_report_has_a_card_that_hubs_read(report: Report) -> None:
    front, _, body = card_text(report).removeprefix("---\n").partition("\n---\n")
    told = yaml.safe_load(front)
    assert told["library_name"] == "smaller-convnets"
    assert told["tags"][3:] == [str(printable(t)).translate(UNKNOWN) for t in (report.architecture, report.method)]
    assert "license" not in told and body.count("\n## ") == 4
    final = report.measured("final", "test")
    if final is None:
        assert "metrics" not in told and "model-index" not in told
    else:
        (result,) = told["model-index"][0]["results"]
        assert result["metrics"][0]["value"] == pytest.approx(final.value, rel=1e-5, abs=1e-9)


def test_the_hubs_own_reader_finds_the_figures(tmp_path: Path) -> None:
    store.write_report(SAMPLE, tmp_path)
    card = ModelCard.load(tmp_path / store.CARD)
    assert card.data.pipeline_tag == "image-classification" and card.data.metrics == ["accuracy"]
    (result,) = card.data.eval_results or ()
    assert (result.metric_type, result.metric_value, result.dataset_split) == ("accuracy", 0.9721, "test")
    for said in (SAMPLE.verdict.split(",")[0], "97.21 % (94.9 to 98.5)", "-4.02 to -0.45", "left out beside shortcuts: stage2"):
        assert said in card.text


def test_no_name_ends_the_front_matter_and_nothing_of_the_machine_is_told() -> None:
    hostile = replace(SAMPLE, name=EVIL, data=EVIL, architecture=EVIL, method=EVIL, command="/home/me/net.pt", verdict=EVIL)
    card = ModelCard(card_text(hostile))
    assert card.data.to_dict().get("license") is None and card.data.model_name == EVIL.replace("\x1b", "\\x1b")
    assert "<script" not in card.text and "\x1b" not in card_text(hostile)
    assert "/home/me" not in card_text(hostile) and "some | processor" not in card_text(hostile).replace("\\", "")


@given(st.sampled_from(["residual", "concat", "depthwise"]), st.booleans())
def test_notebooks_show_text_only_and_little_of_it(name: str, hostile: bool) -> None:
    _, topology = traced(name)
    plan = Plan({topology.groups[0].id: Cut(keep=(0, 1))}, branches=tuple(b.name for b in topology.branches))
    report = replace(SAMPLE, name=EVIL, verdict=EVIL, warnings=(EVIL,)) if hostile else SAMPLE
    result = Result(SimpleNamespace(), plan, report, Path("runs/x"), Path("runs/x/model.onnx"), 0)  # type: ignore[arg-type]
    for shown in (result, plan, topology):
        page = Page(shown._repr_html_())
        assert {tag for tag, _ in page.elements} <= {"p", "b", "ul", "li", "table", "caption", "tr", "th", "td"}
        assert not any(attributes for _, attributes in page.elements)
    assert len(repr(plan)) < 120 and len(repr(topology)) < 120 and plan.digest in repr(plan)
    assert all(g.id in topology._repr_html_() for g in topology.groups)
    assert str(plan.branches[0]) in plan._repr_html_() if plan.branches else True
    assert report.verdict in repr(result) and "runs/x" in repr(result)


def test_of_a_long_plan_the_rest_is_counted() -> None:
    plan = Plan({f"layer{i:03}": Cut(keep=(0,)) for i in range(100)})  # type: ignore[misc]
    assert "and 60 more" in plan._repr_html_() and plan._repr_html_().count("<tr>") == 42
    assert repr(plan).startswith("<Plan: 100 groups cut, 0 branches left out")
