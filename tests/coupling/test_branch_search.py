"""Branches are found from the run, in whatever way a shortcut is written, and those that cannot go say why."""

from __future__ import annotations

import re

import pytest
from support.nets import NETS, example, traced
from support.shortcuts import SHORTCUTS

from compress.coupling.branch_search import find_branches


@pytest.mark.parametrize("name", SHORTCUTS)
def test_branches_are_found_and_others_say_why(name: str) -> None:
    _, topology = traced(name)
    case = SHORTCUTS[name]
    assert {b.name for b in topology.branches} == set(case.branches)
    assert set(topology.kept_branches) == set(case.kept)
    for branch, pattern in case.kept.items():
        assert re.search(pattern, topology.kept_branches[branch]), topology.kept_branches  # type: ignore[index]


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "convnext", "regnet", "c2f", "resnet-v2"])
def test_a_block_goes_as_a_whole(name: str) -> None:
    """Nothing of it is left: what makes its output its input is proven."""
    _, topology = traced(name)
    for branch in topology.branches:
        assert [m.name for m in branch.modules] == [branch.name]


@pytest.mark.parametrize("name", ["chain", "dense", "gate" if "gate" in NETS else "se-gate", "projection", "concat", "chunk"])
def test_without_an_identity_shortcut_there_is_no_branch(name: str) -> None:
    model, topology = traced(name)
    found = find_branches(model, (example(name),), topology)
    assert not found.branches and not found.kept


def test_the_digest_of_a_topology_does_not_depend_on_its_branches() -> None:
    """Latency tables and plans of earlier versions stay valid."""
    from dataclasses import replace

    _, topology = traced("resnet")
    assert replace(topology, branches=()).digest == topology.digest
