"""A latency that no width reaches is refused before a table of the network is measured, and a near one is left to the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.tasked import trained

from compress.core import count
from compress.coupling import trace
from compress.errors import SearchError
from compress.networks import network_of
from compress.pipeline import make_job, prune
from compress.pipeline.latency_floor import narrow_plans, refuse_below
from compress.search import prunable

FLAGS: dict[str, Any] = {"target": "latency", "round_to": 1, "budget": 600, "epochs": 0, "exporter": "legacy"}


@pytest.mark.slow
def test_what_is_out_of_reach_is_told_before_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a tiny regressor most of the time is nobody's width: its table took 38 s, and then the target was refused."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one, phases = trained("regression"), list[str]()
    network = network_of(one.model, example=torch.zeros(2, 1, 12, 12), task=one.task)
    with pytest.raises(SearchError, match=r"--latency 0.01 cannot be reached: .* takes 0\.\d+ of its time") as caught:
        job = make_job(flags=FLAGS | {"value": 0.01})
        prune(network, one.data(), job, tmp_path / "run", listen=lambda e: phases.append(getattr(e, "name", "")))
    assert "least latency" in phases and "latency table" not in phases and "importance" not in phases
    assert "--latency 0." in caught.value.hint


def test_only_what_is_clearly_out_of_reach_is_refused() -> None:
    for value in (0.41, 0.6, 0.99):
        refuse_below(value, [0.55, 0.5, 0.7])
    with pytest.raises(SearchError, match=r"takes 0\.500 of its time") as caught:
        refuse_below(0.39, [0.55, 0.5, 0.7])
    assert "--latency 0.55 or more" in caught.value.hint


def test_narrow_networks_are_those_that_a_job_allows() -> None:
    """The first one has the least widths that rounding leaves, and none of what is ignored is touched."""
    model = trained("regression").model
    topology = trace(model, torch.zeros(1, 1, 12, 12))
    for step, least in ((1, 1), (8, 8)):
        plans = narrow_plans(topology, make_job(flags=FLAGS | {"value": 0.5, "round_to": step}))
        groups = prunable(topology, ())[0]
        assert [len(plans[0].cuts[g].keep) for g in groups] == [least] * len(groups)
        assert all(count(topology, p).macs >= count(topology, plans[0]).macs for p in plans)
    assert all(not p.cuts for p in narrow_plans(topology, make_job(flags=FLAGS | {"value": 0.5, "ignore": ["*"]})))
