"""Whatever a searcher may propose on any network can be counted, and can be cut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from support import structures  # noqa: F401  (its networks are among ALL)
from support.covering import in_turns
from support.nets import ALL, inputs, traced

from compress.core import Plan, Topology, check, count
from compress.search import (
    METHODS,
    Ask,
    ChannelStatistics,
    CostModel,
    Journal,
    Score,
    Space,
    Target,
    drive,
    make_stages,
    prunable,
)
from compress.surgery import cut, verify

CHEAP = ("uniform", "global", "csgd")
SMALL = {"smoea": {"population": 4}, "bicnn": {"population": 4}, "cluster": {"population": 4}}


def space_of(topology: Topology, method: str, seed: int) -> Space | None:
    """What a run would give a searcher, importance and filters at random; None where nothing may be cut."""
    rng = np.random.default_rng(seed)
    groups, _ = prunable(topology, (), "csgd" if METHODS[method].clusters else "cut")
    stages = make_stages(topology, groups)
    if not stages:
        return None
    chosen = [topology.by_id[g] for s in stages for g in s.groups]
    importance = {name: {g.id: rng.random(g.size) for g in chosen} for name in ("l1", "obs", "bn-scale", "fpgm", "taylor")}
    kernels = {g.id: rng.normal(size=(g.size, 5)) for g in chosen}
    return Space(
        cost=CostModel(topology, Target("macs", 0.6)),
        stages=stages,
        statistics=ChannelStatistics(importance=importance, kernels=kernels),
        budget=3_000,
        round_to=int(rng.choice([1, 2, 8])),
    )


def proposed(method: str, space: Space, seed: int) -> list[Plan]:
    """Every plan that the searcher asks about, and those of its front; scores are random."""
    rng, plans = np.random.default_rng(seed), list[Plan]()

    def evaluate(ask: Ask) -> Sequence[Score]:
        plans.extend(ask.plans)
        return [Score(float(e)) for e in rng.random(len(ask.plans))]

    searcher = METHODS[method].make(**SMALL.get(method, {}))
    front = drive(searcher.search(space, rng), evaluate, Journal(None, "x"))
    return list(dict.fromkeys([*plans, *(p.plan for p in front)]))


def holds(name: str, method: str, seed: int, cuts: int) -> None:
    model, topology = traced(name)
    space = space_of(topology, method, seed)
    if space is None:
        return
    plans = proposed(method, space, seed)
    for plan in plans:
        check(topology, plan)
        assert count(topology, plan).macs <= count(topology).macs
    for plan in [p for p in plans if p][:: max(1, len(plans) // cuts)][:cuts]:
        verify(model, topology, plan, cut(model, topology, plan), inputs(name))


@in_turns(ALL, of=8, turn=1)
def test_what_a_cheap_searcher_proposes_can_be_cut(name: str) -> None:
    for number, method in enumerate(CHEAP):
        holds(name, method, seed=number, cuts=1)


COUPLED = ("cross-stage-deep", "aggregation", "quarters", "joined-then-split", "by-list")
DEAR = [m for m in METHODS if m not in CHEAP]


@in_turns([f"{name} {method}" for method in DEAR for name in COUPLED], of=3, turn=0)
def test_what_any_searcher_proposes_where_counts_are_coupled_can_be_cut(name: str) -> None:
    name, method = name.split()
    holds(name, method, seed=3, cuts=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("method", METHODS)
def test_what_any_searcher_proposes_can_be_cut(name: str, method: str) -> None:
    for seed in range(3):
        holds(name, method, seed, cuts=3)
