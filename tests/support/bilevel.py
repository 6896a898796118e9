"""Small spaces for the bi-level search."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from support.nets import inputs, traced
from torch import nn

from compress.core.topology import ChannelGroup, GroupId, Layer, LayerName, Member, Role, TensorInfo, Topology
from compress.evaluation import criteria
from compress.evaluation.evaluator import Evaluator, Material
from compress.evaluation.reader_losses import closed_form
from compress.recovery.batch_norm import reestimate
from compress.recovery.moments import collect
from compress.search.bicnn.problem import Bilevel
from compress.search.bicnn.upper import BiCnn, _Cemba
from compress.search.reader_loss import ReaderLoss
from compress.search.space import ChannelStatistics, CostModel, Space, Stage, Target
from compress.search.stages import prunable
from compress.tasks import Classification, Outputs


def forked(width: int = 32, consumers: int = 3, seed: int = 0, target: float = 0.5) -> Space:
    """One convolution that several others read, each caring for channels of its own."""
    rng = np.random.default_rng(seed)
    names = [f"read{i}" for i in range(consumers)]
    tensors = {"make.weight": TensorInfo((width, 3, 1, 1), True, 16)}
    tensors |= {f"{n}.weight": TensorInfo((8, width, 3, 3), True, 16) for n in names}
    layers = tuple(Layer(LayerName(n), "conv", f"{n}.weight") for n in ("make", *names))
    places = tuple((c,) for c in range(width))
    members = (Member("make.weight", 0, Role.WRITES, places), *(Member(f"{n}.weight", 1, Role.READS, places) for n in names))
    group = ChannelGroup(GroupId("make"), width, members)
    topology = Topology((group,), tensors, layers, example=(3, 4, 4))
    reader_losses = {}
    for name in names:
        mixing = rng.normal(size=(width, 2 * width)) * (rng.random(width) ** 3)[:, None]
        matrix = mixing @ mixing.T
        matrix /= matrix.sum()
        reader_losses[LayerName(name)] = ReaderLoss(LayerName(name), tuple((group.id, c) for c in range(width)), matrix, matrix)
    importance = {"l1": {group.id: sum(r.plain.diagonal() for r in reader_losses.values())}}
    stage = Stage(name="all", groups=(group.id,), fraction=1.0)
    known = ChannelStatistics(importance=importance, reader_losses=reader_losses)
    cost = CostModel(topology, Target("macs", target))
    return Space(cost=cost, stages=(stage,), statistics=known, budget=10_000, round_to=1)


def space_of(name: str, target: float = 0.6, round_to: int = 1, kind: str = "macs") -> tuple[nn.Module, Space, Evaluator]:
    """A tiny network, prepared as the pipeline does it, without labels."""
    model, topology = traced(name)
    images = inputs(name, 32).float()
    model = reestimate(model, [images]).eval()  # random statistics would be an error of their own
    answer = model(images[:1])
    task = Classification() if (answer[0] if isinstance(answer, tuple) else answer).dim() == 2 else Outputs()
    groups, _ = prunable(topology, ())
    criterion_inputs = replace(criteria.gather(model, [images], task=task), moments=collect(model, topology, [images]))
    importance = criteria.importance(replace(criterion_inputs, moments=None), topology, groups)
    importance["obs"], curves = criteria.obs_and_curves(criterion_inputs, topology, groups)
    found, _ = closed_form(model, criterion_inputs, topology, groups, images, 2_000)
    stage = Stage(name="all", groups=groups, fraction=1.0)
    material = Material(images, images, None, "output", task=task)
    evaluator = Evaluator(model, topology, [stage], material, moments=criterion_inputs.moments, solve_images=32)
    known = ChannelStatistics(importance=importance, curves=curves, reader_losses=found)
    cost = CostModel(topology, Target(kind, target))
    space = Space(cost=cost, stages=(stage,), statistics=known, budget=3_000, round_to=round_to)
    return model, space, evaluator


def evolved(space: Space, seed: int = 0, **options) -> _Cemba:
    chosen = BiCnn(**{"population": 8, "generations": 8, **options})
    search = _Cemba(chosen, Bilevel(space, chosen.error, space.ranking), np.random.default_rng(seed))
    search.evolve()
    return search
