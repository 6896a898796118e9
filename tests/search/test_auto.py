"""The default method: a pure decision, and then exactly the method that it names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from compress.search.auto import Auto, Case
from compress.search.base import Search, Told
from compress.search.obs import Allocated
from compress.search.smoea import Smoea
from compress.search.space import Target
from compress.testing import SearcherContract, ToySpace

PAYS = Case(groups=28, budget=43_033, target="macs", value=0.5, metric="accuracy")
"""ResNet-56 of the accuracy grid."""
MEASURED_OTHERWISE = Case(groups=10, budget=133_165, target="macs", value=0.5, metric="accuracy")
"""ResNet-20 there: a larger budget, fewer groups, and no gain."""


class TestAuto(SearcherContract):
    leaves_branches_out = True

    def searcher(self) -> Auto:
        return Auto()


def test_it_does_what_was_measured() -> None:
    assert Auto().choose(PAYS).method == "smoea"
    assert Auto().choose(MEASURED_OTHERWISE).method == "obs"


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        ({"groups": 27}, "from 28 channel groups on, this network has 27"),
        ({"budget": 39_999}, "from 40,000 image-forwards on, here are 39,999"),
        ({"value": 0.51}, "up to 0.5 of the MACs, here 0.51"),
        ({"target": "latency"}, "the target is latency"),
        ({"target": "max_drop", "value": 0.01}, "the target is max_drop"),
        ({"metric": "output"}, "here the score is the output"),
        ({"metric": "score"}, "here the score is the score"),
        ({"branches": 25}, "where every branch stays, here 25 may go"),
    ],
)
def test_where_nothing_says_that_it_pays_closed_forms_are_taken_and_it_is_said_why(lacks: dict[str, Any], said: str) -> None:
    taken = Auto().choose(replace(PAYS, **lacks))
    assert taken.method == "obs" and said in taken.why and "--method smoea" in taken.why


CASES = [
    Case(groups=groups, budget=budget, target=target, value=value, metric=metric)
    for groups in (12, 27, 28, 60)
    for budget in (5_000, 39_999, 40_000, 300_000)
    for target in ("macs", "params", "latency", "max_drop")
    for value in (0.1, 0.5, 0.51, 0.9)
    for metric in ("accuracy", "score", "agreement", "output")
]


@pytest.mark.parametrize(
    "more", [{"groups": 1}, {"budget": 1}, {"value": -0.01}, {"groups": 40, "budget": 9_000, "value": -0.05}]
)
def test_a_larger_case_at_a_smaller_share_never_loses_the_evolution(more: dict[str, Any]) -> None:
    taken = [case for case in CASES if Auto().choose(case).method == "smoea"]
    assert len(taken) == 8
    for case in taken:
        assert Auto().choose(replace(case, **{name: getattr(case, name) + by for name, by in more.items()})).method == "smoea"


@pytest.mark.parametrize(("auto", "named"), [(Auto(), Allocated()), (Auto(groups=1, budget=1, share=1.0), Smoea())])
def test_the_search_is_that_of_the_method_it_names(auto: Auto, named: Any) -> None:
    toy = ToySpace.make(0, target=Target("macs", 0.5), budget=1_500)

    def asked(search: Search) -> tuple[list[Any], Any]:
        """What is asked and told, and the front; every score is the toy's."""
        said: list[Any] = []
        scores: Any = None
        while True:
            try:
                request = search.send(scores)
            except StopIteration as ended:
                return said, ended.value
            said.append(request)
            scores = None if isinstance(request, Told) else toy.evaluate(request)

    mine = asked(auto.search(toy.space, np.random.default_rng(3)))
    theirs = asked(named.search(toy.space, np.random.default_rng(3)))
    assert mine[0][0].notes[0].startswith("auto took ") and (mine[0][1:], mine[1]) == theirs
    assert auto.plan(toy.space, 0.4) == Allocated().plan(toy.space, 0.4)


def test_what_the_branches_cost_never_brings_an_evolution() -> None:
    """Statistics are measured for the method that would be taken with the whole budget."""
    for case in CASES:
        if Auto().choose(case).method == "obs":
            assert Auto().choose(replace(case, budget=case.budget * 9 // 10)).method == "obs"
