"""Tracing finds what can go, refuses what it cannot follow, and leaves no trace itself."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torchvision
from support.covering import in_turns
from support.nets import NETS, build, example, traced
from torch import Tensor, nn

from compress.coupling.tracer import trace
from compress.errors import TraceError

every_net = pytest.mark.parametrize("name", NETS)


@every_net
def test_what_must_be_free_is_free_and_what_must_stay_stays(name: str) -> None:
    topology = traced(name)[1]
    assert set(NETS[name].free) <= set(topology.by_id)
    cuttable = {layer.name for g in topology.groups for layer in topology.writers(g.id)}
    assert not set(NETS[name].stuck) & cuttable
    for layer in topology.layers:
        assert (
            layer.name in cuttable or layer.depthwise or layer.name in topology.frozen or _in_a_frozen_group(name, layer.name)
        )


def _in_a_frozen_group(name: str, layer: str) -> bool:
    """Only the first layer of a group that failed its trial carries the reason."""
    return any("trial cut" in reason or "are one" in reason for reason in traced(name)[1].frozen.values())


@every_net
def test_the_head_is_in_no_group(name: str) -> None:
    model, topology = traced(name)
    with torch.no_grad():
        output = model(example(name))
    last = topology.layers[-1]
    widths = [t.shape[-1 if t.dim() == 2 else 1] for t in (output if isinstance(output, tuple) else (output,))]
    assert topology.frozen[last.name] == "it makes the network's output"
    heads = [x for x in topology.layers if topology.frozen.get(x.name) == "it makes the network's output"]
    assert {topology.tensors[h.weight].shape[h.write_dim] for h in heads} >= set(widths)
    assert not {h.name for h in heads} & {w.name for g in topology.groups for w in topology.writers(g.id)}


@in_turns(NETS, of=4, turn=2)
def test_tracing_twice_tells_the_same(name: str) -> None:
    torch.manual_seed(hash(name) % 1000)
    again = trace(build(name), example(name))
    assert again == traced(name)[1] and again.digest == traced(name)[1].digest


@every_net
def test_positions_are_disjoint_and_in_range(name: str) -> None:
    topology = traced(name)[1]
    for (key, dim), found in topology.slots.items():
        taken = [i for _, member in found for places in member.positions for i in places]
        assert len(taken) == len(set(taken)), (key, dim)
        assert all(0 <= i < topology.tensors[key].shape[dim] for i in taken)
    for group in topology.groups:
        assert all(len(m.positions) == group.size for m in group.members)
        assert topology.writers(group.id) and group.size > 1


class Draws(nn.Sequential):
    """Throws the generator's next numbers away whenever it runs."""

    def forward(self, x: Tensor) -> Tensor:
        torch.rand(3)
        return super().forward(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("probe", [False, True])
@pytest.mark.parametrize("wrong", [False, True])
def test_what_a_trace_draws_is_drawn_again(probe: bool, wrong: bool) -> None:
    """By a network, or by one that does not run to its end."""
    model = Draws(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(5 if wrong else 4, 2, 1))
    torch.manual_seed(5)
    first = torch.rand(4)
    torch.manual_seed(5)
    if wrong:
        with pytest.raises(TraceError):
            trace(model, torch.zeros(1, 3, 4, 4), probe=probe)
    else:
        trace(model, torch.zeros(1, 3, 4, 4), probe=probe)
    assert torch.equal(torch.rand(4), first)


@in_turns(NETS, of=4, turn=3)
@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_as_it_was(name: str, training: bool) -> None:
    model = build(name).train(training)
    next(iter(model.children())).eval()
    four = [p for p in model.parameters() if p.dim() == 4]
    if four and name != "view-constant":  # its own view needs contiguous activations
        four[0].data = four[0].data.to(memory_format=torch.channels_last)
    calls: list[int] = []
    hook = model.register_forward_hook(lambda *_: calls.append(1))
    modes = {n: m.training for n, m in model.named_modules()}
    before = {k: (id(t), t.requires_grad, t.stride(), t.detach().clone()) for k, t in model.state_dict(keep_vars=True).items()}
    hooks = {n: (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for n, m in model.named_modules()}
    classes, described = [type(m) for m in model.modules()], repr(model)
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    states = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy())  # type: ignore[index,union-attr]
    x = example(name).requires_grad_()
    trace(model, x)
    assert torch.equal(states[0], torch.get_rng_state()) and states[1] == random.getstate()
    assert (states[2] == np.random.get_state()[1]).all()  # type: ignore[index]
    assert modes == {n: m.training for n, m in model.named_modules()}
    for key, tensor in model.state_dict(keep_vars=True).items():
        same, gradient, stride, value = before[key]
        assert (id(tensor), tensor.requires_grad, tensor.stride()) == (same, gradient, stride)
        assert torch.equal(tensor.detach(), value) and tensor.grad is None
    assert hooks == {
        n: (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for n, m in model.named_modules()
    }
    assert [type(m) for m in model.modules()] == classes and repr(model) == described
    assert torch.is_grad_enabled() and x.grad is None and not bool(x.detach().any())
    hook.remove()


def test_a_transformer_is_refused_in_one_sentence() -> None:
    tiny = torchvision.models.VisionTransformer(16, 8, 2, 2, 16, 32, num_classes=4)
    with pytest.raises(
        TraceError, match=r"contains attention \(encoder.*self_attention\); this tool cuts convolutional networks only"
    ) as caught:
        trace(tiny, torch.zeros(1, 3, 16, 16))
    assert "\n" not in caught.value.message and caught.value.hint


def test_timms_transformer_is_refused_too() -> None:
    timm = pytest.importorskip("timm")
    with_attention = timm.models.vision_transformer.VisionTransformer(
        img_size=16, patch_size=8, embed_dim=32, depth=1, num_heads=2, num_classes=4
    )
    with pytest.raises(TraceError, match="attention"):
        trace(with_attention, torch.zeros(1, 3, 16, 16))


def test_a_network_that_does_not_run_on_the_example_is_refused() -> None:
    with pytest.raises(TraceError, match=r"does not run on an input of shape \(1, 3, 4, 4\)") as caught:
        trace(build("view-constant"), torch.zeros(1, 3, 4, 4))
    assert "--size" in caught.value.hint


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.b(self.a(x) + y)  # type: ignore[no-any-return]


def test_a_network_of_two_inputs_is_refused() -> None:
    with pytest.raises(TraceError, match="TwoInputs does not run"):
        trace(TwoInputs(), torch.zeros(1, 3, 4, 4))


def test_a_network_without_layers_is_refused() -> None:
    with pytest.raises(TraceError, match="no convolution or linear layer"):
        trace(nn.Sequential(nn.ReLU()), torch.zeros(1, 3, 4, 4))


def test_a_constant_in_the_code_is_found_by_trying() -> None:
    """Without the trial cut the flattened width would look free."""
    without = trace(build("view-constant"), example("view-constant"), probe=False)
    assert "b.0" in without.by_id and "b.0" not in traced("view-constant")[1].by_id
    assert "trial cut failed" in traced("view-constant")[1].frozen["b.0"]  # type: ignore[index]


def test_an_untrained_network_hides_nothing() -> None:
    """Constant norms and zero layer scales would make any cut look right."""
    model = build("view-constant")
    for p in model.parameters():
        nn.init.zeros_(p)
    assert trace(model, example("view-constant")).by_id.keys() <= traced("view-constant")[1].by_id.keys()
