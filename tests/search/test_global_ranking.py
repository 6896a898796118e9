from __future__ import annotations

import numpy as np
import pytest
from support.spaces import knowing

from compress.search.global_ranking import Ranked
from compress.search.space import Target
from compress.search.uniform import Uniform
from compress.search.widths import widths_of
from compress.testing import SearcherContract, ToySpace


class TestRanked(SearcherContract):
    leaves_branches_out = True

    def searcher(self) -> Ranked:
        return Ranked(criterion="taylor")


@pytest.mark.parametrize("budget", [0.25, 0.5, 0.8])
def test_one_threshold_divides_all_channels(budget: float) -> None:
    """Unaligned and unprotected, what stays is more important (in units of its group's mean) than what goes, everywhere."""
    toy = ToySpace.make(round_to=1, target=Target("macs", budget))
    plan = Ranked("l1", protected=0.0).plan(toy.space, budget)
    kept, gone = [], []
    for group in toy.space.groups:
        scores = toy.space.statistics.importance["l1"][group]
        stays = np.zeros(len(scores), dtype=bool)
        stays[list(plan.cuts[group].keep) if group in plan.cuts else slice(None)] = True
        kept += (scores[stays] / scores.mean()).tolist()
        gone += (scores[~stays] / scores.mean()).tolist()
    # The staircase's last step is filled group by group, which reaches a little below the threshold.
    assert np.quantile(kept, 0.03) >= max(gone) and toy.space.share(plan) <= budget


def test_the_criterion_sets_the_widths() -> None:
    """A group whose channels differ much loses more of them than one whose channels are alike; uniform widths do not care."""
    toy = ToySpace.make(round_to=1)
    first, second = toy.space.groups[1], toy.space.groups[2]
    alike = {g: np.ones_like(s) + 1e-6 * s for g, s in toy.space.statistics.importance["l1"].items()}
    skewed = {**alike, first: np.where(np.arange(64) < 8, 8.0, 1e-3)}
    space = knowing(toy.space, importance={**toy.space.statistics.importance, "l1": skewed})
    widths = widths_of(space, Ranked("l1").plan(space, 0.6))
    assert widths[first][0] <= 10 and widths[second][0] >= 60
    uniform = widths_of(space, Uniform("l1").plan(space, 0.6))
    assert abs(uniform[first][0] - uniform[second][0]) <= 1


def test_no_layer_is_emptied_and_protection_gives_way_to_the_target() -> None:
    toy = ToySpace.make(round_to=1)
    group = toy.space.groups[2]
    few = np.where(np.arange(64) < 4, 1e3, np.linspace(1e-5, 1e-3, 64))
    space = knowing(toy.space, importance={"l1": {**toy.space.statistics.importance["l1"], group: few}})
    assert widths_of(space, Ranked(protected=0.0).plan(space, 0.2))[group][0] < 16
    assert widths_of(space, Ranked(protected=0.25).plan(space, 0.2))[group][0] == 16
    low = Ranked(protected=0.9).plan(space, 0.3)
    assert space.share(low) <= 0.3
    assert all(w[0] >= 1 for w in widths_of(space, low).values())
