"""Even shares of blocks and widths: what people take out by hand, as an option of ``uniform``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.core import BranchId, Plan
from compress.data import Data
from compress.networks import Network
from compress.pipeline import decide, make_job
from compress.search import Target, Uniform, last_of_each
from compress.testing import ToySpace


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4), count=st.integers(0, 6))
def test_every_stage_gives_its_last_ones(sizes: list[int], count: int) -> None:
    stages = [[BranchId(f"net.layer{i}.{j}") for j in range(size)] for i, size in enumerate(sizes)]
    gone = last_of_each([b for names in stages for b in names], count)
    assert gone == tuple(b for names in stages for b in (names[-count:] if count else []))


@pytest.mark.parametrize("kind", ["macs", "latency"])
def test_widths_stay_even_without_them(kind: str) -> None:
    space = ToySpace.make(target=Target(kind, 0.5)).with_branches().space
    plan = Uniform(blocks=1).plan(space, 0.5)
    assert set(plan.branches) == set(space.branches) and space.share(plan) <= 0.5
    inside = {g for b in space.branches for g in plan.cuts if g.startswith(b)}
    assert not inside, "nothing is said of what is gone"
    assert plan.cuts == Uniform().plan(space.without(space.branches), 0.5).cuts
    assert space.share(Plan(plan.cuts)) > space.share(plan)


def test_a_run_leaves_out_what_it_is_told(digits: tuple[Network, Data], tmp_path: Path) -> None:
    flags: dict[str, Any] = {"method": "uniform", "value": 0.5, "epochs": 0, "budget": 2_000, "latency_seconds": 0.0}
    found = decide(*digits, make_job(flags={**flags, "options": {"blocks": 1}}), tmp_path / "one")
    branches = [b.name for b in found.topology.branches]
    assert branches and found.plan.branches == last_of_each(branches, 1)
    kept = decide(*digits, make_job(flags={**flags, "options": {"blocks": 1}, "branches": False}), tmp_path / "none")
    assert not kept.plan.branches
