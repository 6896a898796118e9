"""Which plans are trained a little, and how the steps are shared among them."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.covering import thinned

from compress.core import Plan
from compress.search import Ask, Fidelity, Journal, Score, Space, Target, contenders, drive, finals, halving, is_stream
from compress.search.finalists import LEAST_STEPS
from compress.testing import ToySpace


@given(plans=st.integers(2, 64), steps=st.integers(0, 20_000))
def test_the_rounds_stay_within_the_steps_and_waste_little(plans: int, steps: int) -> None:
    rounds = halving(plans, steps)
    spent = sum(r.plans * r.steps for r in rounds)
    assert spent <= steps and all(r.steps >= LEAST_STEPS for r in rounds)
    assert bool(rounds) == (steps >= 2 * LEAST_STEPS)
    if rounds:
        assert rounds[0].plans <= plans and rounds[-1].plans == 2
        for one, after in pairwise(rounds):
            assert after.steps == 2 * one.steps and after.plans == max(2, math.ceil(one.plans / 2)) < one.plans
        once_more = sum(r.plans << i for i, r in enumerate(rounds))
        assert steps - spent < once_more, "another step in the first round would have fitted"


def test_half_of_an_epoch_of_fifty_thousand_images() -> None:
    assert [(r.plans, r.steps) for r in halving(8, 195)] == [(8, 8), (4, 16), (2, 32)]


def space(value: float = 0.8) -> Space:
    """With residual streams in a stage of their own."""
    inside = ToySpace.make(target=Target("macs", value)).with_branches().space
    streams = tuple(g for g in inside.groups if is_stream(inside.topology, g))
    first, last = inside.stages
    inner = [replace(s, groups=tuple(g for g in s.groups if g not in streams)) for s in (first, last)]
    return replace(inside, stages=(*inner, replace(last, groups=streams, branches=())))


@pytest.mark.parametrize("most", thinned([8, 2, 3, 12], of=2))
@pytest.mark.parametrize("value", [0.8, 0.15, 0.02])
def test_contenders_meet_the_target_and_are_different(most: int, value: float) -> None:
    """However little is wanted: what cannot be that small, such as whole streams, is none."""
    inside = space(value)
    chosen = Plan(branches=inside.branches)
    some = Plan(branches=inside.branches[:3])
    judged = {chosen: 0.3, Plan(): 0.1, some: 0.2, Plan(branches=inside.branches[:1]): math.nan}
    found = contenders(inside, chosen, judged, most)
    plans = [c.plan for c in found]
    assert 2 <= len(found) <= most and len(set(plans)) == len(plans) and plans[0] == chosen
    assert Plan() not in plans and Plan(branches=inside.branches[:1]) not in plans
    assert most < 8 or (some in plans) == (inside.share(some) <= value)
    assert all(inside.share(p) <= value + 1e-9 for p in plans[1:])
    names = {c.name for c in found}
    if most >= 8 and value == 0.8:
        assert {"uniform l1, whole streams", "obs"} <= names and any(p.branches for p in plans[2:])


def test_without_branches_no_contender_leaves_any_out() -> None:
    inside = space()
    inside = replace(inside, statistics=replace(inside.statistics, branch_errors={}))
    found = contenders(inside, Plan(), {}, 12)
    assert len(found) > 1 and not any(c.plan.branches for c in found)


def heat(worth: dict[Plan, list[float]]) -> tuple[list[tuple[int, list[Plan]]], list[Plan]]:
    """The rounds as asked, and the last one's plans, the best first; a plan's errors are round by round."""
    asked: list[tuple[int, list[Plan]]] = []

    def evaluate(ask: Ask) -> list[Score]:
        assert ask.fidelity is Fidelity.TRAINED
        number = len(asked)
        asked.append((ask.steps, list(ask.plans)))
        return [Score(worth[p][number], (0.0, 1.0)) for p in ask.plans]

    rounds = halving(len(worth), 200)
    rated = drive(finals(list(worth), rounds), evaluate, Journal(None, "x"))
    assert all(score.interval == (0.0, 1.0) for r in rated for _, score in r.scores)
    return asked, list(rated[-1].best(2))


def test_the_better_half_goes_on_by_what_it_was_worth_in_its_round() -> None:
    plans = [Plan(branches=(f"b{i}",)) for i in range(8)]  # type: ignore[arg-type]
    errors = {p: [i / 10, (8 - i) / 10, i / 10] for i, p in enumerate(plans)}
    asked, last = heat(errors)
    assert [len(p) for _, p in asked] == [8, 4, 2]
    assert asked[1][1] == plans[:4] and set(asked[2][1]) == {plans[2], plans[3]}
    assert last == [plans[2], plans[3]]


def test_what_came_to_nothing_goes_last() -> None:
    plans = [Plan(branches=(f"b{i}",)) for i in range(3)]  # type: ignore[arg-type]
    _, last = heat({plans[0]: [math.nan] * 2, plans[1]: [0.9, 0.8], plans[2]: [0.7, math.nan]})
    assert last == [plans[1], plans[2]]
