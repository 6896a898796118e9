"""Torch-Pruning's graph is asked, contradicted where it is wrong, and not waited for."""

from __future__ import annotations

import pytest
import torch
from support.nets import example, traced

from compress.coupling import dependency_graph
from compress.coupling.dependency_graph import disagreements


def asked(name: str) -> tuple[str, ...]:
    model, topology = traced(name)
    return disagreements(model, topology, example(name))


def test_its_errors_are_noted_and_overruled() -> None:
    assert any("torch-pruning couples" in note for note in asked("option-a"))
    assert any("cannot follow" in note for note in asked("split"))


@pytest.mark.parametrize("name", ["chain", "residual", "concat", "depthwise", "transposed"])
def test_where_both_agree_there_is_nothing_to_say(name: str) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert asked(name) == ()
    assert torch.equal(state, torch.get_rng_state())


def test_it_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependency_graph, "_MOST_STEPS", 3)
    assert asked("dense") == ("torch-pruning was not asked: 3 concatenations under 5 layers take its graph too long",)
