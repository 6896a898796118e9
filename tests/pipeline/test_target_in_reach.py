"""What a target may ask for: the least that widths reach, and the least without the branches that may go."""

from __future__ import annotations

import pytest
import torch
from support.shortcuts import SHORTCUTS, WITH_BRANCHES

from compress.core import ignore
from compress.coupling import trace
from compress.errors import SearchError
from compress.pipeline import make_job
from compress.pipeline.inspection import reach
from compress.pipeline.search_checks import check_target


@pytest.mark.parametrize("name", ["resnet", "c2f"])
@pytest.mark.parametrize("kind", ["macs", "params"])
def test_what_only_branches_reach_is_refused_without_them_alone(name: str, kind: str) -> None:
    assert name in WITH_BRANCHES
    topology = trace(SHORTCUTS[name].make().eval(), torch.zeros(2, 3, 16, 16))
    least = {may: reach(topology, make_job(flags={"branches": may}), kind) for may in (False, True)}
    assert least[True] < least[False]
    between = {"target": kind, "value": (least[True] + least[False]) / 2}
    check_target(topology, make_job(flags=between), None, ignore)
    for flags in ({"branches": False}, {"method": "uniform"}):
        with pytest.raises(SearchError, match="cannot be reached") as refused:
            check_target(topology, make_job(flags={**between, **flags}), None, ignore)
        assert "branches" not in refused.value.message
    with pytest.raises(SearchError, match="without the branches that may go at least"):
        check_target(topology, make_job(flags={"target": kind, "value": 0.9 * least[True]}), None, ignore)
