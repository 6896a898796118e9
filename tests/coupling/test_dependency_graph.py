"""Torch-Pruning's graph is asked in every run, contradicted where it is wrong, and not waited for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from support import structures
from support.nets import ALL, NETS, build, example, traced
from torch import Tensor, nn

from compress.coupling import dependency_graph
from compress.coupling.agreement import CouplingAgreement, Proposed, compare
from compress.coupling.tracer import trace, trace_with_agreement

assert set(structures.STRUCTURES) <= set(ALL)


def asked(name: str) -> CouplingAgreement:
    return trace_with_agreement(build(name), example(name))[1]


def proposed(name: str) -> Proposed:
    given = example(name)
    return dependency_graph.propose(build(name), given if isinstance(given, tuple) else (given,), joins=0, layers=1)


def test_its_errors_are_noted_and_overruled() -> None:
    wrong = asked("option-a")
    assert list(wrong.corrected) == ["stem.0"] and set(wrong.confirmed) == {"a.0", "c.0"} and wrong.trials == 2
    assert "corrected: the graph" in wrong.sentences()[0]
    assert "cannot follow" in asked("split").why_not


@pytest.mark.parametrize(
    "name", ["chain", "residual", "concat", "depthwise", "transposed", "flatten", "se-gate", "dense", "frozen"]
)
def test_where_both_agree_everything_is_tried_once(name: str) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    found, topology = asked(name), traced(name)[1]
    assert set(found.confirmed) == set(topology.by_id) and not found.corrected and not found.tried
    groups = len(topology.groups)
    assert found.sentences() == (f"coupling: {groups} of {groups} groups confirmed by Torch-Pruning's graph, 1 trial cut",)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", ["chain", "residual", "concat", "depthwise", "dense"])
def test_without_the_graph_more_is_tried(name: str) -> None:
    alone = trace_with_agreement(build(name), example(name), graph=False)[1]
    assert alone.trials > asked(name).trials
    assert alone.sentences() == ("coupling: torch-pruning was not asked; channel identities alone are used, 2 trial cuts",)


def test_it_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependency_graph, "_MOST_STEPS", 3)
    said = "torch-pruning was not asked: 3 concatenations under 5 layers take its graph too long"
    assert asked("dense").why_not == said


def test_a_walk_without_end_is_ended() -> None:
    """Its index maps of a flatten beside a mean multiply indices for ever."""
    assert "was not waited for" in asked("pools").why_not


@pytest.mark.parametrize("name", NETS)
def test_index_maps_kept_from_building_are_those_it_would_make_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = proposed(name)
    monkeypatch.setattr(dependency_graph, "_settle", lambda *_: None)
    again = proposed(name)
    assert len(kept.groups) == len(again.groups) and bool(kept.why_not) == bool(again.why_not)
    for a, b in zip(kept.groups, again.groups, strict=True):
        assert a.root == b.root and a.pairs.keys() == b.pairs.keys()
        for slot in a.pairs:
            assert all(np.array_equal(x, y) for x, y in zip(a.pairs[slot], b.pairs[slot], strict=True)), slot


@pytest.mark.parametrize("name", ["chain", "frozen", "shuffle", "split", "pools"])
def test_the_network_is_left_as_it_was(name: str) -> None:
    model = build(name)
    before = [(len(m._forward_hooks), m.training) for m in model.modules()], [p.requires_grad for p in model.parameters()]
    dependency_graph.propose(model, (example(name),), joins=0, layers=1)
    after = [(len(m._forward_hooks), m.training) for m in model.modules()], [p.requires_grad for p in model.parameters()]
    assert before == after


class Breaks(nn.Module):
    """Runs twice, and then no more: while the graph looks."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise RuntimeError("two\nlines")
        return self.b(self.a(x))  # type: ignore[no-any-return]


def test_a_network_that_it_cannot_run_is_traced_without_it() -> None:
    topology, found = trace_with_agreement(Breaks(), torch.zeros(1, 3, 4, 4))
    assert "a" in topology.by_id and found.trials == 2
    assert found.why_not == "torch-pruning cannot follow this network (RuntimeError: two lines)"


def test_what_it_says_of_every_network_is_told_in_one_line() -> None:
    agreements: Sequence[CouplingAgreement] = [asked(name) for name in ("chain", "option-a", "split", "every-second", "pools")]
    for found in agreements:
        (sentence,) = found.sentences()
        assert sentence.startswith("coupling: ") and "\n" not in sentence


def test_channels_that_an_operation_picks_by_number_are_tried_though_both_agree() -> None:
    """``y[:, ::2] *= 2``: both see channels where they are now, and neither where a cut puts them."""
    name = "every-second"
    whole = trace(build(name), example(name), probe=False)
    assert compare(whole, proposed(name).groups) == {"a.0": "", "c.0": ""}
    assert "a.0" not in traced(name)[1].by_id and "trial cut failed" in traced(name)[1].frozen["a.0"]  # type: ignore[index]


def test_only_a_trace_imports_torch_pruning() -> None:
    code = "import sys, compress.pipeline, compress.coupling.tracer; assert 'torch_pruning' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = (
        "import sys, torch; from compress.coupling import trace\n"
        "trace(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(4, 2, 1)), torch.zeros(1, 3, 4, 4))\n"
        "assert 'torch_pruning' in sys.modules and not {'timm', 'torch._dynamo'} & set(sys.modules), 'seconds for nothing'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
