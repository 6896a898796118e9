from __future__ import annotations

import copy
from functools import cache

import numpy as np
import pytest
import torch
import torchvision
from compress_models import MODELS
from support.covering import in_turns
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compress.core.plan import Plan
from compress.core.topology import Topology
from compress.coupling.symbolic import NotTraceable, symbolic_graph
from compress.coupling.tracer import trace
from compress.evaluation.evaluator import Evaluator, Material, relative
from compress.evaluation.stage_runner import StageRunner, cutout, silent_nodes, values_at
from compress.search.base import Ask
from compress.search.front import Fidelity
from compress.search.stages import is_stream, make_stages, prunable
from compress.surgery.cutting import cut
from compress.surgery.guard import random_plan

NAMES = ("digits_net", "resnet20", "vgg14", "mobilenetv2_cifar", "lenet")


def network(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = MODELS[name]()
    shape = {"digits_net": (1, 8, 8), "lenet": (1, 28, 28)}.get(name, (3, 32, 32))
    images = torch.randn(6, *shape)
    for module in model.modules():  # statistics that mean something
        if isinstance(module, _BatchNorm):
            module.momentum = None
    model.train()(images)
    return model.eval(), images


@cache
def traced(name: str) -> tuple[nn.Module, Tensor, Topology]:
    """A network, its images and its topology, made once; nobody may change them."""
    model, images = network(name)
    return model, images, trace(model, images[:1], probe=False)


def in_place(model: nn.Module, graph_nodes: list[str], modules: list[str], names: list[str], images: Tensor) -> list[Tensor]:
    """The observed layers' outputs in the whole network, the stage's batch norms in training mode: another way there."""
    whole = copy.deepcopy(model)
    for name in modules:
        module = whole.get_submodule(name)
        if isinstance(module, _BatchNorm):
            module.train()
    seen: dict[str, Tensor] = {}
    for name in names:
        whole.get_submodule(name).register_forward_hook(lambda m, a, out, name=name: seen.update({name: out}))
    with torch.no_grad():
        whole(images)
    return [seen[n] for n in names]


@in_turns(NAMES, of=2, turn=0)
def test_a_stage_alone_computes_what_it_computes_in_the_whole_network(name: str) -> None:
    model, images, topology = traced(name)
    groups, _ = prunable(topology, [])
    graph = symbolic_graph(model)
    rng = np.random.default_rng(0)
    before = Plan()
    for stage in make_stages(topology, groups):
        runner = StageRunner(model, graph, topology, cutout(graph, topology, stage.groups), before, images)
        plan = random_plan(topology, 0.4, rng, list(stage.groups))
        both = Plan({**before.cuts, **plan.cuts})
        small = cut(model, topology, both)
        nodes = {n.name: n for n in graph.nodes}
        inside = [str(nodes[n].target) for n in runner.part.nodes if nodes[n].op == "call_module"]
        observed = [x.name for x in runner.part.observed if x is not None]
        got = in_place(small, list(runner.part.nodes), inside, observed, images)
        wanted = in_place(model, [], [], observed, images)
        expected = 0.0
        for g, w, kept in zip(got, wanted, runner.kept_outputs, strict=True):
            w = w if kept is None else w[:, torch.from_numpy(kept)]
            dims = tuple(d for d in range(w.dim()) if d != 1)
            expected += float((g - w).pow(2).sum() / (w - w.mean(dim=dims, keepdim=True)).pow(2).sum()) / len(got)
        assert runner.error(both, len(images)) == pytest.approx(expected, rel=2e-3), stage.name
        before = both


@in_turns(NAMES, of=2, turn=1)
def test_from_a_stage_to_the_end_is_the_whole_network_on_cached_inputs(name: str) -> None:
    """The outputs' error of the cut network, its batch norms behind the stage's start on the batch's own statistics."""
    model, images, topology = traced(name)
    groups, _ = prunable(topology, [])
    graph, rng, before = symbolic_graph(model), np.random.default_rng(0), Plan()
    with torch.no_grad():
        wanted = model(images)
    for stage in make_stages(topology, groups):
        runner = StageRunner(model, graph, topology, cutout(graph, topology, stage.groups, True), before, images)
        both = Plan({**before.cuts, **random_plan(topology, 0.4, rng, list(stage.groups)).cuts})
        small = copy.deepcopy(cut(model, topology, both))
        nodes = {n.name: n for n in graph.nodes}
        for node in (nodes[n] for n in runner.part.nodes if nodes[n].op == "call_module"):
            if isinstance(module := small.get_submodule(str(node.target)), _BatchNorm):
                module.train()
        with torch.no_grad():
            got = small(images)
        assert runner.part.observed == (None,)
        assert runner.error(both, len(images)) == pytest.approx(relative(wanted, got), rel=2e-3), stage.name
        assert stage.fraction <= stage.tail <= 1.0
        before = both


def test_an_untouched_stage_without_batch_norm_has_no_error() -> None:
    model, images, topology = traced("lenet")
    groups, _ = prunable(topology, [])
    graph = symbolic_graph(model)
    for stage in make_stages(topology, groups):
        runner = StageRunner(model, graph, topology, cutout(graph, topology, stage.groups), Plan(), images)
        assert runner.error(Plan(), len(images)) == pytest.approx(0.0, abs=1e-10)


def test_values_at_are_the_networks_own() -> None:
    model, images = network("resnet20")
    graph = symbolic_graph(model)
    nodes = [n for n in graph.nodes if n.op == "call_module" and str(n.target).endswith("conv2")]
    found = values_at(model, graph, images, [n.name for n in nodes])
    wanted = in_place(model, [], [], [str(n.target) for n in nodes], images)
    for a, b in zip(found, wanted, strict=True):
        assert torch.equal(a, b)


def test_a_stage_ends_at_the_first_layers_after_it() -> None:
    model, _, topology = traced("resnet20")
    groups, _ = prunable(topology, [])
    stages = make_stages(topology, groups)
    assert [s.name for s in stages][-1] == "residual streams" and all(is_stream(topology, g) for g in stages[-1].groups)
    assert [x and x.name for x in cutout(symbolic_graph(model), topology, stages[0].groups).observed] == ["layer2.0.conv1"]
    resnet = torchvision.models.resnet18(weights=None).eval()
    topology = trace(resnet, torch.zeros(1, 3, 64, 64), probe=False)
    inner = [g.id for g in topology.groups if g.id.startswith("layer1")]
    part = cutout(symbolic_graph(resnet), topology, inner)
    assert {x and x.name for x in part.observed} == {"layer2.0.conv1", "layer2.0.downsample.0"}


@pytest.mark.parametrize("name", NAMES)
def test_stages_are_disjoint_and_complete(name: str) -> None:
    _, _, topology = traced(name)
    groups, _ = prunable(topology, [])
    stages = make_stages(topology, groups)
    named = [g for s in stages for g in s.groups]
    assert sorted(named) == sorted(groups) and len(named) == len(set(named))
    assert all(0 < s.fraction <= 1 for s in stages)


def test_ignored_layers_stay() -> None:
    _, _, topology = traced("resnet20")
    groups, left = prunable(topology, ["layer2.*"])
    assert not [g for g in groups if g.startswith("layer2")]
    assert "conv1" not in groups  # the stream runs through layer2 too
    assert "ignored" in left["layer2.0.conv1"]  # type: ignore[index]


class _Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        if x.mean() > 1e9:
            y = y * 2
        return self.b(y).mean((2, 3))


def test_code_that_branches_on_values_falls_back_to_whole_forwards() -> None:
    model = _Branching().eval()
    images = torch.randn(8, 3, 12, 12)
    with pytest.raises(NotTraceable):
        symbolic_graph(model)
    topology = trace(model, images[:1])
    stages = make_stages(topology, prunable(topology, [])[0])
    evaluator = Evaluator(model, topology, stages, Material(images, images, None, "output"))
    assert "_Branching" in evaluator.fallback
    plan = random_plan(topology, 0.5, np.random.default_rng(0))
    assert plan
    (score,) = evaluator(Ask([plan], Fidelity.STAGE, 0, 8))
    with torch.no_grad():
        assert score.error == pytest.approx(relative(model(images), cut(model, topology, plan)(images)), rel=1e-4)
    assert evaluator.price(Ask([plan], Fidelity.STAGE, 0, 8)) == 16  # and as many for the statistics


class _Tempered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 5, 3)

    def forward(self, x: Tensor, temperature: float = 2.0) -> Tensor:
        return self.b(self.a(x)).mean((2, 3)) / temperature


class _Stateful(_Tempered):
    scale = 1.0

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.b(self.a(x)).mean((2, 3)) * (3.0 if isinstance(x, torch.fx.Proxy) else 1.0)


@pytest.mark.parametrize("kind", [_Tempered, _Stateful])
def test_graphs_that_are_not_the_network_are_not_used(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = kind().eval()
    images = torch.randn(8, 3, 12, 12)
    topology = trace(model, images[:1])
    stages = make_stages(topology, prunable(topology, [])[0])
    evaluator = Evaluator(model, topology, stages, Material(images, images, None, "output"))
    assert evaluator.fallback and np.isfinite(evaluator(Ask([Plan()], Fidelity.STAGE, 0, 8))[0].error)


def test_asking_for_more__than_there_are_changes_nothing() -> None:
    model, images, topology = traced("digits_net")
    stages = make_stages(topology, prunable(topology, [])[0])
    evaluator = Evaluator(model, topology, stages, Material(images, images, None, "output"))
    plan = random_plan(topology, 0.4, np.random.default_rng(0), list(stages[0].groups))
    asked = [evaluator(Ask([plan], Fidelity.STAGE, 0, n))[0].error for n in (6, 48)]
    assert asked[0] == asked[1]
    assert evaluator.price(Ask([plan], Fidelity.STAGE, 0, 48)) == evaluator.price(Ask([plan], Fidelity.STAGE, 0, 6))


def test_what_a_stage_caches_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images, topology = traced("digits_net")
    stages = make_stages(topology, prunable(topology, [])[0])
    evaluator = Evaluator(model, topology, stages, Material(images, images, None, "output"))
    plan = random_plan(topology, 0.4, np.random.default_rng(0), list(stages[0].groups))
    whole = evaluator._stage(Ask([plan], Fidelity.STAGE, 0, 6), plan).bytes()
    monkeypatch.setattr("compress.evaluation.evaluator.CACHE", whole // 2)
    held = Evaluator(model, topology, stages, Material(images, images, None, "output"))
    small = held._stage(Ask([plan], Fidelity.STAGE, 0, 6), plan)
    assert len(small.targets[0]) == 3 and small.bytes() <= whole // 2
    assert np.isfinite(held(Ask([plan], Fidelity.STAGE, 0, 6))[0].error)


def test_stages_of_a_channels_last_network() -> None:
    torch.manual_seed(0)
    block = torchvision.models.convnext.CNBlockConfig
    model = torchvision.models.ConvNeXt([block(16, 24, 1), block(24, None, 1)], num_classes=5, layer_scale=1.0).eval()
    images = torch.randn(6, 3, 32, 32)
    topology = trace(model, images[:1])
    evaluator = Evaluator(
        model, topology, make_stages(topology, prunable(topology, [])[0]), Material(images, images, None, "output")
    )
    assert not evaluator.fallback
    rng = np.random.default_rng(0)
    for number, stage in enumerate(evaluator.stages):
        plan = random_plan(topology, 0.4, rng, list(stage.groups))
        small, whole = (evaluator(Ask([p], Fidelity.STAGE, number, 6))[0].error for p in (plan, Plan()))
        assert whole == pytest.approx(0.0, abs=1e-8) and small > 1e-6


class _OwnConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(x, (1, 1, 1, 1)))


def test_layers_of_the_users_own_class_are_layers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(_OwnConv(3, 16, 3), nn.ReLU(), _OwnConv(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 5, 3)).eval()
    images = torch.randn(8, 3, 12, 12)
    topology = trace(model, images[:1])
    stages = make_stages(topology, prunable(topology, [])[0])
    evaluator = Evaluator(model, topology, stages, Material(images, images, None, "output"))
    assert not evaluator.fallback and evaluator(Ask([Plan()], Fidelity.STAGE, 0, 8))[0].error < 1e-10


def test_full_scores_follow_the_labels() -> None:
    model, images, topology = traced("digits_net")
    stages = make_stages(topology, prunable(topology, [])[0])
    with torch.no_grad():
        answers = model(images).argmax(1)
    evaluator = Evaluator(model, topology, stages, Material(images, images, [(images, answers)], "accuracy"))
    assert evaluator.full(Plan()) <= 0.35  # batch statistics of six images stand in for the trained ones
    agreement = Evaluator(model, topology, stages, Material(images, images, None, "agreement"))
    plan = random_plan(topology, 0.5, np.random.default_rng(1))
    assert agreement.full(plan) == evaluator.full(plan)


@pytest.mark.parametrize("kind", ["resnet20", pytest.param("mobilenetv2_cifar", marks=pytest.mark.slow)])
def test_a_branch_left_out_of_a_stage_contributes_nothing(kind: str) -> None:
    """As in a network whose branch ends in a batch norm of zeros; in the surroundings and in the stage itself."""
    model, images = network(kind)
    topology = trace(model, images[:1])
    stages = make_stages(topology, prunable(topology, ())[0], branches=[b.name for b in topology.branches])
    graph = symbolic_graph(model)
    checked = 0
    for stage in stages:
        for branch in (b for s in stages for b in s.branches if s is stage or s is stages[0]):
            own = branch in stage.branches
            zeroed = copy.deepcopy(model)
            (end,) = topology.by_branch[branch].silenced
            norm = [m for m in zeroed.get_submodule(end).modules() if isinstance(m, _BatchNorm)][-1]
            with torch.no_grad():
                norm.weight.zero_()
                norm.bias.zero_()
            part = cutout(graph, topology, stage.groups)
            before = Plan() if own else Plan(branches=(branch,))
            without = StageRunner(model, graph, topology, part, before, images, surrounded=model)
            told = StageRunner(zeroed, graph, topology, part, Plan(), images)
            without._install(Plan())
            told._install(Plan())
            silent = silent_nodes(graph, topology, (branch,))
            for one, two in zip(without._run(6, silent), told._run(6), strict=True):
                assert torch.allclose(one, two, atol=1e-5)
            if own:
                assert without.error(Plan(branches=(branch,)), 6) > 1e-3
            checked += 1
    assert checked >= 7


def test_a_network_without_branches_is_scored_as_it_is_cut() -> None:
    """Stage, tail and full scores of plans that leave branches out are numbers, and grow with what is left out."""
    model, images = network("resnet20")
    topology = trace(model, images[:1])
    names = [b.name for b in topology.branches]
    stages = make_stages(topology, prunable(topology, ())[0], branches=names)
    evaluator = Evaluator(model, topology, stages, Material(images, images, None, "output"))
    for fidelity in (Fidelity.STAGE, Fidelity.TAIL, Fidelity.FULL):
        number = next(i for i, s in enumerate(stages) if len(s.branches) > 1)
        own = stages[number].branches
        plans = [Plan(), *(Plan(branches=own[:n]) for n in (1, 2))]
        errors = [s.error for s in evaluator(Ask(plans, fidelity, stage=number, images=6))]
        assert errors[0] < 1e-3 < errors[1] and np.isfinite(errors[2])
        outside = Plan(branches=(next(n for n in names if n not in own),))
        assert np.isfinite(evaluator(Ask([outside], fidelity, stage=number, images=6))[0].error)
