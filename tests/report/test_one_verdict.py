"""A report says one thing: the change with its paired interval, the time of the clock that decided, no second speed-up."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from compress_cli.render import show
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support.pages import Page, comparison
from support.reports import SAMPLE

from compress.core import TOP1, Measured, difference, made_by
from compress.evaluation import JudgedTest, change_of
from compress.latency.result import LatencyResult
from compress.latency.statistics import percentiles
from compress.report import formatting, html, red_flags, tables
from compress.report.markdown import report_markdown
from compress.report.model import Report
from compress.report.run_files import RunFiles
from compress.report.verdict import Scoring, flags, latency_of, useful, verdict_of
from compress.tasks import Classification


def terminal(report: Report, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, color_system="standard", force_terminal=True)
    show(console, report)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def slow_wall(times: float) -> LatencyResult:
    """A comparison on a machine where runs wait for the processor: the wall says something else than the clock that decides."""
    found = comparison()
    walls = [tuple(times * x if a.name == "pruned" else x for x in a.wall) for a in found.arms]
    arms = (replace(a, wall=wall, latency=percentiles(wall)) for a, wall in zip(found.arms, walls, strict=True))
    return replace(found, arms=tuple(arms))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=400))
def test_the_verdict_says_the_paired_interval(answers: list[tuple[bool, bool]]) -> None:
    base, final = np.array(answers, dtype=np.float64).T
    rows = {"base": base[:, None], "final": final[:, None]}
    values = {when: float(r.mean()) for when, r in rows.items()}
    task = Classification()
    found = change_of(JudgedTest(TOP1, "the label", values, rows), task)
    assert found == difference([final == 1], [base == 1])
    assert change_of(JudgedTest(TOP1, "what the unpruned network says", values, rows), task) is None  # that change is certified
    scores = tuple(Measured(when, "test", values[when], 0, 1, len(base)) for when in rows)
    said = verdict_of(replace(SAMPLE, scores=scores, change=found))
    assert f"95 % interval {100 * found.low:+.2f} to {100 * found.high:+.2f} on the same {len(base)} images" in said
    assert ("no difference that can be told" in said) == (found.low <= 0 <= found.high)


def test_the_time_shown_is_the_deciding_clocks() -> None:
    found = latency_of(slow_wall(3.0))
    before, after = found.typical
    assert before / after == pytest.approx(found.speedup, rel=0.02) and found.base_p50 / found.pruned_p50 < 0.6
    report = replace(SAMPLE, latency=(found,))
    for said in (terminal(report), report_markdown(report), Page(html.html_page(report, RunFiles())).text):
        assert formatting.duration(before) in said and formatting.duration(after) in said
        assert "CPU time" in said


@pytest.mark.parametrize(("low", "high", "lost"), [(0.08, 0.14, True), (0.11, 0.19, False)])
def test_a_network_at_chance_gets_no_green_word(low: float, high: float, lost: bool) -> None:
    """The base was there already, so that nothing was lost by pruning, and a speed-up is worth nothing all the same."""
    middle = (low + high) / 2
    scores = tuple(Measured(when, "test", middle, low, high, 500) for when in ("base", "final"))
    quiet = replace(SAMPLE.latency[0], flags=())
    warnings = tuple(flags(Scoring("classification", TOP1, chance=0.1), scores, (quiet,)))
    report = replace(SAMPLE, scores=scores, warnings=warnings, latency=(quiet,))
    assert useful(warnings) != lost
    assert red_flags.status(report) == (("At chance", False) if lost else ("Faster", True))
    page = html.html_page(report, RunFiles()).partition("</style>")[2]
    assert any("good" in names for names in re.findall(r'class="([^"]*)"', page)) != lost
    assert tables.tone(report, quiet) == ("" if lost else "good-text")
    assert ("\x1b[32m" in terminal(report)) != lost


def test_a_report_says_who_made_it_and_when() -> None:
    made = made_by()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", made.date)
    report = replace(SAMPLE, made_by=replace(made, version="1.2.3", commit="0123456789ab"))
    for said in (report_markdown(report), Page(html.html_page(report, RunFiles())).text):
        assert f"compress 1.2.3, commit 0123456789ab, {made.date} UTC" in said
