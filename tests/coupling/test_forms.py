"""What a network does in training mode, on several images or on another size counts as much as what the example shows."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.branching import ASKING, BRANCHING, SILENT, asking
from support.comparing import silenced
from support.covering import in_turns
from support.nets import ALL, NETS, Wired, any_plan, block, build, example, head
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_flatten

from compress.coupling import trace, trace_with_agreement, value_branches
from compress.surgery.cutting import cut, simulate

_TRACED: dict[str, Any] = {}


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = BRANCHING[name].make()
    for module in model.modules():
        if isinstance(module, _NormBase):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, 0.3)
    if hasattr(model, "seen"):
        model.seen = torch.zeros(8)
    return model.double().eval()


def traced(name: str) -> tuple[nn.Module, Any]:
    if name not in _TRACED:
        model = made(name)
        _TRACED[name] = model, trace(model.float(), torch.zeros(1, 3, 8, 8))
        model.double()
    return _TRACED[name]


def run(model: nn.Module, training: bool, images: int, side: int | tuple[int, int]) -> list[Tensor]:
    height, width = (side, side) if isinstance(side, int) else side
    x = torch.randn(images, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(width))
    with torch.no_grad():
        return [t for t in tree_flatten(copy.deepcopy(model).train(training)(x))[0] if isinstance(t, Tensor)]


every_branch = pytest.mark.parametrize("name", BRANCHING)


@in_turns(BRANCHING, of=2, turn=1)
def test_what_can_go_goes_and_what_cannot_stays(name: str) -> None:
    topology = traced(name)[1]
    cuttable = {layer.name for g in topology.groups for layer in topology.writers(g.id)}
    assert set(BRANCHING[name].go) <= cuttable and not set(BRANCHING[name].stay) & cuttable
    assert all(topology.frozen[layer] for layer in BRANCHING[name].stay)


@every_branch
@given(seed=st.integers(0, 2**32 - 1), ratio=st.floats(0.1, 0.9))
@settings(max_examples=max(4, settings().max_examples // 2))
def test_a_cut_is_exact_in_every_branch(name: str, seed: int, ratio: float) -> None:
    """Against a mask that is none of the guard's: the readers of what was removed are silenced by hand.

    What the code takes over all channels is taken over those that stay; the simulation knows which.
    """
    model, topology = traced(name)
    plan = any_plan(topology, seed, ratio)
    small, masked = cut(model, topology, plan), (simulate if topology.moments else silenced)(model, topology, plan)
    for training, images, side in BRANCHING[name].forms:
        wanted, got = run(masked, training, images, side), run(small, training, images, side)
        assert len(wanted) == len(got)
        for a, b in zip(wanted, got, strict=True):
            assert a.shape == b.shape and float((a - b).abs().max()) <= 1e-9 * float(a.abs().max())


@in_turns(BRANCHING, of=4, turn=0)
def test_the_trace_leaves_the_network_alone(name: str) -> None:
    for training in (False, True):
        model = made(name).float().train(training)
        before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
        trace(model, torch.zeros(1, 3, 8, 8))
        assert all(torch.equal(t, before[k]) for k, t in model.state_dict().items())
        assert all(module.training is training for module in model.modules())
        assert torch.equal(torch.random.get_rng_state(), state)


@in_turns(ASKING, of=2, turn=0)
def test_a_question_for_a_value_is_told_with_its_line(name: str) -> None:
    torch.manual_seed(0)
    model = asking(ASKING[name])().eval()
    _, first = inspect.getsourcelines(ASKING[name])
    length = len(inspect.getsourcelines(ASKING[name])[0])
    agreement = trace_with_agreement(model, torch.zeros(1, 3, 8, 8))[1]
    (line,) = agreement.value_branches
    place, _, _ = line.partition(" in ")
    assert place.startswith("support/branching.py:") and first <= int(place.partition(":")[2]) < first + length
    assert line in agreement.warnings()[0] and "neither followed nor exported" in agreement.warnings()[0]
    assert value_branches(model, torch.randn(2, 3, 8, 8)) == agreement.value_branches


@pytest.mark.parametrize("name", SILENT)
def test_what_is_the_same_for_every_input_is_no_question(name: str) -> None:
    model = asking(SILENT[name])().eval()
    agreement = trace_with_agreement(model, torch.zeros(1, 3, 8, 8))[1]
    assert agreement.value_branches == () and agreement.warnings() == ()
    assert value_branches(model, torch.randn(2, 3, 8, 8)) == ()


def test_parameters_and_buffers_may_be_asked() -> None:
    model = Wired(
        lambda s, x: s.head(s.a(x) * (float(s.gain) if s.on else 1.0)), a=block(3, 8), head=head(8), gain=torch.rand(1),
        on=torch.tensor(1),
    ).eval()  # fmt: skip
    assert trace_with_agreement(model, torch.zeros(1, 3, 8, 8))[1].value_branches == ()


@in_turns(NETS, of=3, turn=0)
def test_no_question_is_made_up(name: str) -> None:
    given = example(name)
    if isinstance(given, Tensor):
        assert value_branches(build(name), given) == ()
    assert ALL[name]


def test_a_question_in_training_mode_alone_says_so() -> None:
    model = Wired(lambda s, x: s.head(s.a(x) * ((s.training and x.max() > 1) or 1)), a=block(3, 8), head=head(8)).eval()
    (line,) = trace_with_agreement(model, torch.zeros(1, 3, 8, 8))[1].value_branches
    assert line.endswith("in training mode") and value_branches(model, torch.zeros(1, 3, 8, 8)) == ()


def test_channels_that_numpy_reads_stay() -> None:
    def reading(s: Any, x: Tensor) -> Tensor:
        y = s.a(x)
        return s.head(y + torch.from_numpy(y.numpy()[:, ::-1].copy()))

    topology = trace(Wired(reading, a=block(3, 8), head=head(8)).eval(), torch.zeros(1, 3, 8, 8))
    assert "its values are read in Python" in topology.frozen["a.0"]


def test_a_mode_in_which_the_network_does_not_run_is_told() -> None:
    def failing(s: Any, x: Tensor) -> Tensor:
        if s.training:
            raise ValueError("targets are wanted")
        return s.head(s.a(x))

    topology, agreement = trace_with_agreement(Wired(failing, a=block(3, 8), head=head(8)).eval(), torch.zeros(1, 3, 8, 8))
    assert "a.0" in topology.by_id
    assert any("training mode" in s and "targets are wanted" in s for s in agreement.sentences())
