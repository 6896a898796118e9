"""Branches are found from the run, in whatever way a shortcut is written, and those that cannot go say why."""

from __future__ import annotations

import re

import pytest
from support.nets import NETS, example, traced
from support.shortcuts import SHORTCUTS

from compress.coupling.branch_search import _activations, _source, find_branches
from compress.coupling.run_graph import Operation, RunGraph


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


def test_a_value_that_is_its_own_copy_ends_no_search_late() -> None:
    """Arrays that come back from NumPy may lie where another tensor lay, and be taken for its copy and its source."""
    operations = tuple(
        Operation(number=i, name="detach", inputs=(given,), outputs=(made,), plain=(), module="")
        for i, (given, made) in enumerate([(1, 2), (2, 1), (3, 3)])
    )
    graph = RunGraph(
        operations=operations,
        calls=(),
        shapes={1: (1,), 2: (1,), 3: (1,)},
        keys={},
        given=frozenset(),
        answers=frozenset(),
    )
    assert _source(graph, 1) == 1 and _source(graph, 3) == 3
    assert _activations(graph, 1, 4) is None
