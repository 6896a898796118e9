"""Where errors cannot tell plans apart, time decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from compress.core import Cut, Plan, count, estimated
from compress.pipeline.equals import Resolution, fastest_of_equals, largest_of_equals, slower_than_plain
from compress.search import CostModel, Fidelity, Space, Target
from compress.testing import ToySpace, toy_topology


def space(value: float = 0.8) -> Space:
    return ToySpace.make(target=Target("macs", value)).with_branches().space


def plans(inside: Space) -> tuple[Plan, Plan]:
    """A plan that keeps odd widths, and one that leaves branches out: as many MACs or fewer, and less time."""
    odd = Plan({g: Cut(tuple(range(inside.topology.by_id[g].size * 7 // 8 - 1))) for g in inside.groups})
    return odd, Plan(branches=inside.branches[:2])


@pytest.mark.parametrize(
    ("gap", "images", "fast"), [(0.0, 500, True), (0.03, 500, True), (0.03, 50_000, False), (0.3, 500, False)]
)
def test_the_fastest_of_equals_is_taken(gap: float, images: int, fast: bool) -> None:
    inside = space()
    odd, short = plans(inside)
    table = estimated(inside.topology, 16)
    assert all(inside.share(p) <= 0.8 for p in (odd, short))
    best = inside.point(odd, 0.2, Fidelity.FULL)
    judged = {odd: 0.2, short: 0.2 + gap, Plan(): 0.1, Plan(branches=inside.branches[:1]): float("nan")}
    point, said = fastest_of_equals(inside, Resolution(images, shares=True), table, judged, best)
    assert (point.plan == short) == fast == bool(said)
    if fast:
        assert point.error == 0.2 + gap and f"{images} images" in said and "estimated" in said


@pytest.mark.parametrize(
    ("gap", "images", "large"), [(0.0, 500, True), (0.03, 500, True), (0.03, 50_000, False), (0.3, 500, False)]
)
def test_of_equals_that_are_fast_enough_the_largest_is_taken(gap: float, images: int, large: bool) -> None:
    """Blocks out against narrow widths; what is over the budget is no equal, however large."""
    inside = ToySpace.make(target=Target("latency", 0.8)).with_branches().space
    wide, narrow = Plan(branches=inside.branches[:2]), Plan({g: Cut(tuple(range(8))) for g in inside.groups})
    share = CostModel(inside.topology, Target("macs")).share
    assert share(narrow) < share(wide) and all(inside.share(p) <= 0.8 for p in (wide, narrow))
    best = inside.point(narrow, 0.2, Fidelity.TRAINED)
    judged = {narrow: 0.2, wide: 0.2 + gap, Plan(): 0.2}
    point, said = largest_of_equals(inside, Resolution(images, shares=True), judged, best)
    assert (point.plan == wide) == large == bool(said)
    assert (
        largest_of_equals(inside, Resolution(images, shares=True), {wide: 0.2}, inside.point(wide, 0.2, Fidelity.FULL))[1] == ""
    )


def test_the_budget_is_kept() -> None:
    """However fast: what is over the budget is no equal."""
    inside = space(0.5)
    odd, short = plans(inside)
    best = inside.point(odd, 0.2, Fidelity.FULL)
    point, said = fastest_of_equals(
        inside, Resolution(100, shares=True), estimated(inside.topology, 16), {odd: 0.2, short: 0.2}, best
    )
    assert point is best and not said


def test_distances_of_outputs_are_equal_within_two_percent() -> None:
    seen = Resolution(16, shares=False)
    assert not seen.apart(0.101, 0.1) and seen.apart(0.103, 0.1) and seen.apart(float("nan"), 0.1)


def test_slower_than_the_plainest_network_is_said() -> None:
    """A stream cut to a width that loses the fast kernel, against inner groups of equal shares; and nothing of a fast one."""
    inside = space()
    inside = replace(inside, stages=(*inside.stages[:1], replace(inside.stages[1], groups=inside.stages[1].groups)))
    streams = [g for g in inside.groups if len(inside.topology.writers(g)) > 1]
    stages = (
        replace(inside.stages[0], groups=tuple(g for g in inside.groups if g not in streams)),
        replace(inside.stages[1], groups=tuple(streams)),
    )
    inside = replace(inside, stages=stages)
    slow = Plan({g: Cut(tuple(range(inside.topology.by_id[g].size - 3))) for g in streams})
    table = estimated(inside.topology, 16)
    said = slower_than_plain(inside, table, slow)
    assert "--method uniform --no-streams" in said and "slower" in said
    assert not slower_than_plain(inside, table, Plan(branches=inside.branches[:2]))


def test_the_estimate_knows_blocks() -> None:
    """On a CPU core a width that fills its blocks is faster, an odd one slower."""
    topology = toy_topology()
    table = estimated(topology, 8)
    assert count(topology, Plan(), table=table).latency == pytest.approx(1.0)
    odd = Plan({g.id: Cut(tuple(range(g.size - 3))) for g in topology.groups})
    even = Plan({g.id: Cut(tuple(range(g.size - 8))) for g in topology.groups})
    times = [count(topology, p, table=table).latency or np.nan for p in (even, odd)]
    assert times[0] < 1 < times[1]
    assert CostModel(topology, Target("macs")).share(odd) < 1
