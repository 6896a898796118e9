"""What a report says of a search: its names, and what several searches add up to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from compress.core.latency_table import PredictionError
from compress.core.plan import Plan
from compress.pipeline.search_summary import (
    Found,
    LatencyTrial,
    LatencyTrials,
    RequestCount,
    SearchEffort,
    SearchSummary,
    added,
)
from compress.search import Origin

EARLIER = Path(__file__).parent / "data" / "finished" / "report.json"
counts = st.builds(RequestCount, *[st.integers(0, 99)] * 3)
efforts = st.builds(
    SearchEffort,
    budget=st.integers(0, 9999),
    image_forwards=st.integers(0, 9999).map(float),
    requests=st.dictionaries(st.sampled_from(["stage", "tail", "full"]), counts),
    metric=st.sampled_from(["accuracy", "agreement", "output"]),
    judged_images=st.integers(0, 99),
    figures=st.dictionaries(st.sampled_from(["lower_evaluations", "clusters"]), st.integers(0, 9)),
    notes=st.lists(st.text(max_size=5), max_size=2).map(tuple),
)


@given(efforts, st.integers(1, 9), st.text(max_size=9))
def test_names_are_those_that_reports_have_had(effort: SearchEffort, points: int, why: str) -> None:
    found = SearchSummary(points=points, chosen=why, fallback="", effort=effort).to_json()
    earlier = json.loads(EARLIER.read_text())["search"]
    assert [name for name in found if name not in effort.figures] == list(earlier)
    assert {name: found[name] for name in effort.figures} == effort.figures
    assert {name: type(v) for name, v in found.items() if name in earlier} == {k: type(v) for k, v in earlier.items()}
    for row in found["requests"].values():
        assert list(row) == list(earlier["requests"]["full"])
    assert json.loads(json.dumps(found)) == found


@given(efforts, st.lists(st.text(max_size=5), max_size=2).map(tuple), st.sampled_from(Origin))
def test_who_found_the_plan_and_why_the_search_ended_are_said_behind_its_notes(
    effort: SearchEffort, ended: tuple[str, ...], by: Origin
) -> None:
    found = SearchSummary(points=1, chosen="", fallback="", effort=replace(effort, ended=ended), found=Found(by, 12.0))
    assert found.notes[: len(effort.notes)] == effort.notes
    said = f"the plan was found by {by}, after 12 of {effort.budget:,} image-forwards"
    assert found.notes[len(effort.notes) :] == (said, *(f"the search {why}" for why in ended))
    told = json.loads(json.dumps(found.to_json()))
    assert told["found_by"] == by and told["found_after"] == 12 and told.get("ended", []) == list(ended)
    assert added([replace(effort, ended=ended)] * 2).ended == (*ended, *ended)


def test_what_was_clocked_stands_last() -> None:
    trials = tuple(LatencyTrial(plan=Plan(), asked=0.5, predicted=p, measured=m) for p, m in ((0.5, 0.6), (0.42, 0.51)))
    error = PredictionError(networks=4, median=0.02, worst=0.05)
    latency = LatencyTrials(trials, error)
    found = SearchSummary(points=1, chosen="", fallback="", latency=latency).to_json()
    assert list(found) == ["points", "chosen", "fallback", "shots", "table_error"] and latency.best is trials[-1]
    assert found["shots"] == [
        {"asked": 0.5, "predicted": 0.5, "measured": 0.6},
        {"asked": 0.5, "predicted": 0.42, "measured": 0.51},
    ]
    assert found["table_error"]["median"] == 0.02


@given(st.lists(efforts, min_size=1, max_size=4), st.lists(efforts, min_size=1, max_size=4))
def test_efforts_add_up_in_any_grouping(first: list[SearchEffort], second: list[SearchEffort]) -> None:
    whole = added([*first, *second])
    assert added([added(first), added(second)]) == whole
    assert whole.budget == sum(e.budget for e in (*first, *second))
    for fidelity, row in whole.requests.items():
        parts = [e.requests[fidelity] for e in (*first, *second) if fidelity in e.requests]
        assert row.plans == sum(p.plans for p in parts) and row.evaluated == sum(p.evaluated for p in parts)
    assert (whole.metric, whole.judged_images) == (second[-1].metric, second[-1].judged_images)
