from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from support.spaces import knowing

from compress.search.obs import Allocated, allocate, plan_for
from compress.search.space import Target
from compress.search.uniform import Uniform
from compress.search.widths import allowed, fill, plan_of
from compress.testing import SearcherContract, ToySpace, run


class TestAllocated(SearcherContract):
    leaves_branches_out = True

    def searcher(self) -> Allocated:
        return Allocated()


def informed(seed: int = 0, budget: float = 0.5) -> ToySpace:
    """A toy whose curves and order are the truth."""
    toy = ToySpace.make(seed, target=Target("macs", budget))
    total = sum(float(h.sum()) for h in toy.harm.values())
    curves = {g: h / total for g, h in toy.harm.items()}
    return replace(
        toy, space=knowing(toy.space, curves=curves, importance={**toy.space.statistics.importance, "obs": toy.harm})
    )


@pytest.mark.parametrize("budget", [0.3, 0.5, 0.7])
def test_near_the_best_of_all_widths(budget: float) -> None:
    """With true curves the greedy answer is close to the best of every combination of widths, and beats uniform ones."""
    toy = informed(budget=budget)
    space = toy.space
    choices = [[(w,) for w in allowed(space.topology.by_id[g].size, space.round_to)] for g in space.groups]
    best = np.inf
    for widths in product(*choices):
        plan = plan_of(space, dict(zip(space.groups, widths, strict=True)), "obs")
        if space.share(plan) <= budget:
            best = min(best, toy.error(plan))
    mine = plan_for(space, budget)
    assert space.share(mine) <= budget
    assert toy.error(mine) <= best * 1.15
    uniform = min(toy.error(p.plan) for p in run(Uniform(criterion="obs"), toy))
    assert toy.error(mine) < uniform


@pytest.mark.parametrize("budget", [0.3, 0.5, 0.7])
def test_the_line_ends_at_the_two_closed_forms_and_every_place_on_it_meets_the_budget(budget: float) -> None:
    space = informed(budget=budget).space
    line = [Allocated(even=even).plan(space, budget) for even in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert line[0] == plan_for(space, budget) and line[-1] == Uniform("obs").plan(space, budget)
    assert all(budget - 0.05 <= space.share(plan) <= budget for plan in line)


@pytest.mark.parametrize(("true", "even"), [(True, 0.0), (False, 1.0)])
def test_the_better_of_the_closed_forms_is_taken(true: bool, even: float) -> None:
    """Where the curves are the truth the greedy widths win, where they mislead the equal ones do: scores decide."""
    toy = informed()
    if not true:
        curves = {g: c * float(10 ** (i % 2 * 4)) for i, (g, c) in enumerate(toy.space.statistics.curves.items())}
        toy = replace(toy, space=knowing(toy.space, curves=curves))
    asked = []

    def evaluate(ask):
        asked.append(ask.recovery)
        return toy.evaluate(ask)

    best = min(run(Allocated(), toy, evaluate=evaluate), key=lambda p: p.error)
    assert best.plan == Allocated(even=even).plan(toy.space, 0.5) and asked == ["reconstructed"]


@pytest.mark.parametrize("seed", range(3))
def test_lazy_prices_are_the_prices(seed: int) -> None:
    """The queue of old prices takes the very steps that recomputing every price takes."""
    toy = informed(seed)
    space = toy.space
    loss = {g: np.cumsum(np.sort(space.statistics.curves[g])) for g in space.groups}

    def share(widths: dict) -> float:
        return space.share(plan_of(space, widths, "obs"))

    def lost(group: str, width: int) -> float:
        gone = space.topology.by_id[group].size - width
        return float(loss[group][gone - 1]) if gone else 0.0

    widths = {g: (space.topology.by_id[g].size,) for g in space.groups}
    while share(widths) > 0.4:
        steps = []
        for g in space.groups:
            for w in allowed(space.topology.by_id[g].size, space.round_to):
                if w < widths[g][0]:
                    saved = share(widths) - share({**widths, g: (w,)})
                    steps.append(((lost(g, w) - lost(g, widths[g][0])) / saved, g, w))
        _, g, w = min(steps)
        widths[g] = (w,)
    assert allocate(space, 0.4, "obs") == fill(space, widths, 0.4, list(reversed(space.groups)))


def test_harmless_channels_go_first() -> None:
    toy = informed()
    group = toy.space.groups[1]
    curves = {g: np.ones_like(c) for g, c in toy.space.statistics.curves.items()}
    curves[group] = curves[group] * 1e-6
    widths = allocate(knowing(toy.space, curves=curves), 0.75, "obs")
    assert widths[group][0] < 64 and all(sum(w) == toy.space.topology.by_id[g].size for g, w in widths.items() if g != group)


def test_tighter_budgets_cost_more() -> None:
    toy = informed()
    errors = [toy.error(plan_for(toy.space, b)) for b in (0.9, 0.7, 0.5, 0.3, 0.15)]
    assert errors == sorted(errors)
    assert not plan_for(toy.space, 1.0).cuts
