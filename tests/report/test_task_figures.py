"""Reports of other tasks than classification: their figures, in their words; and reports of the first version."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.reports import SAMPLE

from compress.core import Certificate, Difference, Figure, Measured
from compress.errors import ConfigError
from compress.report import formatting, side_by_side, store, verdict
from compress.report.markdown import report_markdown
from compress.report.model import Report

MAE = Figure("MAE", "px", higher=False)
OTHERS = [
    (Figure("mIoU", share=True), 0.967, 0.958, "mIoU", "-0.90 points"),
    (MAE, 0.331, 0.402, "MAE", "+0.0710 px"),
    (Figure("PSNR", "dB"), 31.2, 30.9, "PSNR", "-0.300 dB"),
]


def of_task(figure: Figure, base: float, final: float, certificate: Certificate | None = None) -> Report:
    def measured(when: str, split: str, value: float) -> Measured:
        return Measured(when=when, split=split, value=value, low=value * 0.9, high=value * 1.1, images=100)

    scores = (measured("base", "validation", base), measured("base", "test", base), measured("final", "test", final))
    report = replace(SAMPLE, task="other", figure=figure, scores=scores, certificate=certificate, change=None, warnings=())
    return replace(report, verdict=verdict.verdict_of(report))


@pytest.mark.parametrize(("figure", "base", "final", "word", "change"), OTHERS)
def test_other_tasks_are_told_in_their_own_words(
    figure: Figure, base: float, final: float, word: str, change: str, tmp_path: Path
) -> None:
    report = of_task(figure, base, final)
    store.write_report(report, tmp_path)
    assert store.read_report(tmp_path) == report
    assert f"test {word} " in report.verdict and change in report.verdict
    for name in ("report.md", "report.html", "report.json"):
        text = (tmp_path / name).read_text()
        assert word in text and not re.search(r"top-?1|accurac", text.partition("base64")[0].lower()), name
    assert side_by_side.runs_table({"a": report}).rows[0][5].text == change
    assert not verdict.flags(verdict.Scoring("other", figure), report.scores, ())


@pytest.mark.parametrize(("figure", "base", "final"), [(OTHERS[0][0], 0.9, 0.44), (MAE, 0.3, 0.7), (OTHERS[2][0], 30.0, 26.0)])
def test_what_is_of_no_use_is_red(figure: Figure, base: float, final: float) -> None:
    report = of_task(figure, base, final)
    (flag,) = verdict.flags(verdict.Scoring("other", figure), report.scores, ())
    assert "of no use" in flag and figure.text(base, 1 if figure.share else 2) in flag


@pytest.mark.parametrize(("allowed", "flagged"), [(0.07, True), (0.08, False)])
def test_a_rise_beyond_what_was_allowed_is_red(allowed: float, flagged: bool) -> None:
    report = of_task(MAE, 0.331, 0.402)
    found = verdict.missed_drop(allowed, MAE, report.scores, None)
    assert found == ([f"the test MAE rose by 0.0710 px, {allowed:g} were allowed"] if flagged else [])


def test_nothing_is_certified_of_another_figure() -> None:
    """Pixels that stay bound the pixel accuracy, never the mIoU."""
    pixels, figure = Figure("pixel accuracy", share=True), Figure("mIoU", share=True)
    found = Certificate(images=100, disagree=None, bound=0.01, figure=pixels, change=0.004)
    (said,) = verdict.missed_drop(0.05, figure, (), found)
    assert said == "nothing certifies that the mIoU dropped by at most 5 points: the pixel accuracy alone is bounded"
    told = verdict.verdict_sentence((), (), 2.0, found, figure)
    assert told.endswith(
        "mIoU not measured, pixel accuracy certified to have dropped by 1.00 points at most with 95 % confidence"
    )
    assert formatting.certified(found).startswith("pixel accuracy dropped by at most 1.00 points (95 % confidence")


def test_what_a_certificate_bounds_was_not_only_compared() -> None:
    """A red flag beside the bound said that nothing but a comparison was known."""
    pixels, figure = Figure("pixel accuracy", share=True), Figure("mIoU", share=True)
    for bounded, said in ((figure, "has dropped is bounded"), (pixels, "only compared"), (None, "only compared")):
        (flag,) = verdict.flags(verdict.Scoring("other", figure, "no targets", bounded=bounded), (), ())
        assert flag.startswith("mIoU was not measured: no targets; ") and said in flag


def test_what_nothing_scores_is_told() -> None:
    report = replace(SAMPLE, task="outputs", figure=None, scores=(), certificate=None)
    text = report_markdown(replace(report, verdict=verdict.verdict_of(report)))
    assert "nothing scored" in text and "## Outputs" in text and "top-1" not in text.lower()
    (flag,) = verdict.flags(verdict.Scoring("outputs", None), (), ())
    assert "nothing was scored" in flag and "--task" in flag


def test_a_report_of_the_first_version_is_read(tmp_path: Path) -> None:
    """Every field of it: what it could say is said now, in the same words."""
    old = json.loads(store.report_text(SAMPLE))
    for name in ("task", "figure"):
        del old[name]
    old["accuracy"] = [{("top1" if k == "value" else k): v for k, v in row.items()} for row in old.pop("scores")]
    for name in ("figure", "change"):
        del old["certificate"][name]
    old["schema"] = "compress-report-1"
    (tmp_path / "report.json").write_text(json.dumps(old))
    assert store.read_report(tmp_path) == SAMPLE
    (tmp_path / "report.json").write_text(json.dumps(old | {"more": 1}))
    with pytest.raises(ConfigError, match="more"):
        store.read_report(tmp_path)


def test_rounding_is_no_difference() -> None:
    for size, said in ((1e-9, "no difference that can be told"), (1e-2, "better")):
        change = Difference(mean=size, low=size / 2, high=2 * size, images=160, seeds=1)
        assert verdict.told_change(Figure("PSNR", "dB"), 27.0, 27.0 + size, change).endswith(said)


@pytest.mark.parametrize(
    ("low", "high", "said", "shared"),
    [
        (27.16, 27.22, "27.16 to 27.22", "27.16 to 27.22"),
        (2.62, 3.11, "2.62 to 3.11", "2.6 to 3.1"),
        (7.0, 7.0, "7.00 to 7.00", "7.0 to 7.0"),
    ],
)
def test_an_interval_is_seen_to_be_one(low: float, high: float, said: str, shared: str) -> None:
    assert Figure("PSNR", "dB").range(low, high) == said
    assert Figure("mAP50", share=True).range(low / 100, high / 100) == shared
