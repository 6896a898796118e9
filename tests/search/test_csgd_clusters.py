"""Laws of the clusters that Centripetal SGD trains towards."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from compress_models import MODELS
from hypothesis import given, settings
from hypothesis import strategies as st
from support import nets

from compress.core.cost import count
from compress.core.plan import check
from compress.coupling.tracer import trace
from compress.errors import SearchError
from compress.search.csgd_clusters import Clusters, clusters_at, divided
from compress.search.space import Target
from compress.search.stages import is_stream
from compress.search.widths import full_widths, orbits, widths_of
from compress.testing import SearcherContract, ToySpace, run

DIVISIONS = ("kmeans", "even", "imbalanced")


class TestClusters(SearcherContract):
    # The toy's error takes every channel that goes for lost, but these stand for each other after the training.
    beats_random = False

    def searcher(self) -> Clusters:
        return Clusters(restarts=1)


class TestEvenClusters(SearcherContract):
    beats_random = False

    def searcher(self) -> Clusters:
        return Clusters("even")


@given(size=st.integers(1, 40), data=st.data(), division=st.sampled_from(DIVISIONS))
@settings(max_examples=60, deadline=None)
def test_as_many_clusters_as_asked_for(size: int, data: st.DataObject, division: str) -> None:
    count = data.draw(st.integers(1, size))
    distinct = data.draw(st.integers(1, size))
    kernels = np.random.default_rng(size).normal(size=(distinct, 4))[np.arange(size) % distinct]  # some coincide
    labels = divided(kernels, count, division, 1)
    assert sorted(set(labels.tolist())) == list(range(count)) and len(labels) == size


def test_the_three_divisions() -> None:
    rng = np.random.default_rng(0)
    centres = 10 * np.repeat(np.eye(4), 3, axis=0)
    mixed = rng.permutation(12)
    labels = divided((centres + 0.1 * rng.normal(size=(12, 4)))[mixed], 4, "kmeans", 3)
    assert all(len(set(labels[mixed // 3 == i].tolist())) == 1 for i in range(4))
    assert divided(np.zeros((7, 1)), 3, "even", 1).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert divided(np.zeros((6, 1)), 3, "imbalanced", 1).tolist() == [0, 0, 0, 0, 1, 2]


@pytest.mark.parametrize("name", ["chain", "residual", "concat", "depthwise", "option-a", "grouped", "flatten", "twice"])
@pytest.mark.parametrize("division", DIVISIONS)
def test_every_removed_channel_has_an_heir_of_its_kind(name: str, division: str) -> None:
    _, topology = nets.traced(name)
    kernels = {g.id: np.random.default_rng(1).normal(size=(g.size, 5)) for g in topology.groups}
    widths = {g.id: tuple(max(1, len(o) // 2) for o in orbits(g)) for g in topology.groups}
    plan = clusters_at(topology, kernels, widths, division)
    check(topology, plan)
    for group_id, cut in plan.cuts.items():
        group = topology.by_id[group_id]
        assert sorted([*cut.keep, *cut.fold]) == list(range(group.size))
        assert tuple(sum(c in cut.keep for c in o) for o in orbits(group)) == widths[group_id]


def test_squeezing_divides_every_width() -> None:
    toy = ToySpace.make(target=Target("macs", 1.0))
    (point,) = run(Clusters(squeeze=2.0), toy)
    halves = {g: (n // 2,) for g, (n,) in full_widths(toy.space).items()}
    assert widths_of(toy.space, point.plan) == halves


def test_groups_whose_moments_are_taken_stay_whole() -> None:
    _, topology = nets.traced("layernorm")
    assert [g.id for g in topology.groups if not topology.foldable(g.id)] == ["stem"]
    assert all(t.foldable(g.id) for _, t in [nets.traced("instancenorm"), nets.traced("dense")] for g in t.groups)


def test_a_target_of_accuracy_tries_several_widths() -> None:
    toy = ToySpace.make(target=Target("max_drop", 0.05))
    shares = [toy.space.share(p.plan) for p in run(Clusters("even", points=5), toy)]
    assert len(shares) > 1 and min(shares) < 0.2


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(SearchError, match="every width"):
        run(Clusters(), replace(ToySpace.make(target=Target("macs", 1.0))))


# ---- the published reductions, counted -----------------------------------------------------------------------------------


def test_resnet56_at_five_eighths_is_the_published_reduction() -> None:
    """CVPR 2019, ResNet-56 on CIFAR-10, 10-20-40 filters: -60.85 % of the FLOPs."""
    topology = trace(MODELS["resnet56"]().eval(), torch.zeros(1, 3, 32, 32), probe=False)
    widths = {g.id: tuple(len(o) * 5 // 8 for o in orbits(g)) for g in topology.groups}
    plan = clusters_at(topology, {}, widths, "even")
    assert 1 - count(topology, plan).share_of(count(topology)).macs == pytest.approx(0.6085, abs=5e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("kept", "published"), [(0.7, 0.36), (0.6, 0.46), (0.5, 0.56)])
def test_resnet50_with_narrower_blocks_is_the_published_reduction(kept: float, published: float) -> None:
    """C-SGD-70, -60 and -50: the two inner layers of every bottleneck."""
    topology = trace(torchvision.models.resnet50().eval(), torch.zeros(1, 3, 224, 224), probe=False)
    inner = [g for g in topology.groups if not is_stream(topology, g.id) and g.id != "conv1"]
    plan = clusters_at(topology, {}, {g.id: (round(kept * g.size),) for g in inner}, "even")
    assert len(inner) == 32
    assert 1 - count(topology, plan).share_of(count(topology)).macs == pytest.approx(published, abs=0.006)
