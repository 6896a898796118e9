"""Importance against its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.nets import NETS, build, inputs, traced
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from compress.core.topology import GroupId
from compress.evaluation.criteria import (
    CRITERIA,
    CriterionInputs,
    bn_scale,
    fpgm,
    gather,
    importance,
    kernels,
    l1,
    l2,
    random,
    taylor,
)
from compress.tasks import Classification, Outputs

STEM = GroupId("0.0")


def inputs_of(name: str, *, gradients: bool = False) -> CriterionInputs:
    return gather(traced(name)[0], [inputs(name, 4).float()] if gradients else [], task=Outputs())


def normal(score: torch.Tensor) -> np.ndarray:
    return (score / score.mean()).double().numpy()


@pytest.mark.parametrize("name", NETS)
def test_every_criterion_scores_every_channel_of_every_group(name: str) -> None:
    topology = traced(name)[1]
    scores = importance(inputs_of(name, gradients=True), topology, topology.by_id)
    assert set(scores) == set(CRITERIA)
    for found in scores.values():
        for group in topology.groups:
            assert found[group.id].shape == (group.size,) and np.isfinite(found[group.id]).all()
            assert (found[group.id] >= 0).all()


def test_norms_of_one_layer() -> None:
    model, topology = traced("chain")
    weight = model.state_dict()["0.0.weight"].flatten(1)
    group = topology.by_id[STEM]
    np.testing.assert_allclose(l1(inputs_of("chain"), topology, group), normal(weight.abs().sum(1)), rtol=1e-5)
    np.testing.assert_allclose(l2(inputs_of("chain"), topology, group), normal(weight.norm(dim=1)), rtol=1e-5)
    np.testing.assert_allclose(fpgm(inputs_of("chain"), topology, group), normal(torch.cdist(weight, weight).sum(1)), rtol=1e-4)
    scale = model.state_dict()["0.1.weight"].abs()
    np.testing.assert_allclose(bn_scale(inputs_of("chain"), topology, group), normal(scale), rtol=1e-5)


def test_layers_that_share_channels_count_alike() -> None:
    model, topology = traced("residual")
    state, group = model.state_dict(), topology.by_id[GroupId("stem.0")]
    one, two = (normal(state[k].flatten(1).abs().sum(1)) for k in ("stem.0.weight", "b.0.weight"))
    np.testing.assert_allclose(l1(inputs_of("residual"), topology, group), (one + two) / 2, rtol=1e-5)
    assert kernels(inputs_of("residual"), topology, group).shape == (8, 3 * 9 + 6 * 9)


def test_a_channel_is_scored_by_the_layers_that_make_it() -> None:
    """Of an option-A stream, the channels that zero-padding adds have no kernel in the first layer."""
    topology = traced("option-a")[1]
    group = topology.by_id[GroupId("stem.0")]
    member = next(m for m in group.members if m.key == "stem.0.weight")
    added = [c for c in range(group.size) if not member.positions[c]]
    assert len(added) == 4 and (l1(inputs_of("option-a"), topology, group)[added] > 0).all()


@pytest.mark.parametrize("name", ["chain", "residual", "projection", "concat"])
def test_folded_filters_are_those_of_the_network_with_its_norms_folded(name: str) -> None:
    """Torch's own folding is the oracle: in these networks a layer's norm is the next module of its sequence."""
    model, topology = traced(name)
    modules = dict(model.named_modules())
    found = inputs_of(name)
    checked = 0
    for group in topology.groups:
        wanted = []
        for writer in topology.writers(group.id):
            stem, _, place = writer.name.rpartition(".")
            layer, norm = modules[writer.name], modules.get(f"{stem}.{int(place) + 1}")
            plain = layer.weight if norm is None or isinstance(norm, torch.nn.ReLU) else fuse_conv_bn_eval(layer, norm).weight
            wanted.append(plain.detach().double().flatten(1).numpy())
            checked += isinstance(norm, torch.nn.BatchNorm2d)
        got = kernels(found, topology, group, folded=True)
        np.testing.assert_allclose(got, np.concatenate(wanted, axis=1), rtol=1e-5)
        assert not np.allclose(got, kernels(found, topology, group))
    assert checked >= 2


def test_a_layer_without_norm_falls_back_to_its_kernels() -> None:
    topology = traced("plain")[1]
    group = topology.by_id[GroupId("0")]
    np.testing.assert_array_equal(bn_scale(inputs_of("plain"), topology, group), l1(inputs_of("plain"), topology, group))
    np.testing.assert_array_equal(taylor(inputs_of("plain"), topology, group), l1(inputs_of("plain"), topology, group))


def test_taylor_is_the_gradient_along_the_filter() -> None:
    model, topology = build("chain"), traced("chain")[1]
    x = inputs("chain", 4).float()
    logits = model(x)
    F.cross_entropy(logits, logits.detach().argmax(1)).backward()  # type: ignore[no-untyped-call]
    weight = model.get_parameter("0.0.weight")
    assert weight.grad is not None
    expected = (weight * weight.grad).flatten(1).sum(1).abs().detach()
    got = taylor(gather(traced("chain")[0], [x], task=Classification()), topology, topology.by_id[STEM])
    np.testing.assert_allclose(got, normal(expected), rtol=1e-3)


def test_gathering_leaves_the_model_alone() -> None:
    model = build("chain").train()
    before = {k: t.clone() for k, t in model.state_dict().items()}
    gather(model, [inputs("chain", 4).float()])
    assert model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(t, before[k]) for k, t in model.state_dict().items())


def test_chance_is_the_same_chance() -> None:
    topology = traced("chain")[1]
    a, b = topology.groups[0], topology.groups[2]
    assert (random(CriterionInputs({}, seed=3), topology, a) == random(CriterionInputs({}, seed=3), topology, a)).all()
    assert (random(CriterionInputs({}, seed=3), topology, a) != random(CriterionInputs({}, seed=4), topology, a)).any()
    assert (random(CriterionInputs({}, seed=3), topology, a) != random(CriterionInputs({}, seed=3), topology, b)).any()
