"""What a reader loses, against the definitions it stands on."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from support.nets import inputs, traced

from compress.evaluation import criteria
from compress.evaluation.evaluator import logits, relative
from compress.evaluation.reader_losses import calibrated, closed_form, reader_losses
from compress.recovery.moments import collect
from compress.search.reader_loss import ReaderLoss

NAMES = ("chain", "plain", "flatten", "residual", "concat", "depthwise", "grouped", "option-a")


def material(name: str, count: int = 64):
    model, topology = traced(name)
    images = inputs(name, count).float()
    model = model.float().eval()
    criterion_inputs = replace(criteria.gather(model, []), moments=collect(model, topology, [images]))
    return model, topology, criterion_inputs, images


def exact(name: str, reader_loss: ReaderLoss, removed, topology, criterion_inputs) -> tuple[float, float]:
    """Plain and compensated relative error from the columns themselves."""
    layer, gram = topology.by_layer[reader_loss.layer], criterion_inputs.moments.layers[reader_loss.layer]
    weight = criterion_inputs.weights[layer.weight].double()
    taps = weight[0, 0].numel()
    places = {(g, c): p for g, m in topology.slots[layer.weight, layer.read_dim] for c, p in enumerate(m.positions)}
    lost = {i for s, r in zip(reader_loss.sources, removed, strict=True) if r for i in places[s]}
    gone = torch.tensor([int(c) // taps in lost for c in gram.columns])
    flat = weight.flatten(1).reshape(layer.cardinality, -1, len(gone)).transpose(1, 2)
    plain = compensated = total = 0.0
    for w, a in zip(flat, gram.covariance.double(), strict=True):
        total += float((w * (a @ w)).sum())
        plain += float((w[gone] * (a[gone][:, gone] @ w[gone])).sum())
        damped = a + criteria.DAMPING * a.diagonal().mean() * torch.eye(len(a))
        inverse = torch.linalg.inv(damped)[gone][:, gone]
        compensated += float((w[gone] * torch.linalg.solve(inverse, w[gone])).sum())
    return plain / total, compensated / total


@pytest.mark.parametrize("name", NAMES)
def test_errors_are_those_of_the_columns(name: str) -> None:
    """Plain: exact for every set. Compensated: exact for one channel, a lower bound for more, and never above plain."""
    _, topology, criterion_inputs, _ = material(name)
    found = reader_losses(criterion_inputs, topology, [g.id for g in topology.groups])
    assert set(found) == {x.name for g in topology.groups for x in topology.readers(g.id)}
    rng = np.random.default_rng(0)
    for reader_loss in found.values():
        size = len(reader_loss.sources)
        sets = [np.arange(size) == i for i in range(size)] + [rng.random(size) < p for p in (0.3, 0.6)]
        for removed in sets:
            plain, compensated = exact(name, reader_loss, removed, topology, criterion_inputs)
            assert reader_loss.error(removed, "plain") == pytest.approx(plain, rel=1e-6, abs=1e-9)
            bound = reader_loss.error(removed, "compensated")
            if removed.sum() == 1:
                assert bound == pytest.approx(compensated, rel=1e-5, abs=1e-9)
            assert bound <= compensated * (1 + 1e-5) + 1e-9


@pytest.mark.parametrize("kind", ["plain", "compensated"])
def test_what_is_gone_already_is_the_same_problem_again(kind) -> None:
    _, topology, criterion_inputs, _ = material("chain")
    rng = np.random.default_rng(1)
    for reader_loss in reader_losses(criterion_inputs, topology, [g.id for g in topology.groups]).values():
        reader_loss = replace(reader_loss, knots=((0.0, 0.0), (0.1, 0.05), (0.5, 0.7)))
        size = len(reader_loss.sources)
        for _ in range(5):
            first = rng.random(size) < 0.4
            second = (rng.random(size) < 0.5) & ~first
            rest = reader_loss.given(first, kind)
            assert rest.base == pytest.approx(reader_loss.error(first, kind), rel=1e-6, abs=1e-12)
            assert rest.error(second) == pytest.approx(reader_loss.error(first | second, kind), rel=1e-5, abs=1e-9)


def test_losing_more_never_costs_less_when_compensated() -> None:
    _, topology, criterion_inputs, _ = material("concat")
    for reader_loss in reader_losses(criterion_inputs, topology, [g.id for g in topology.groups]).values():
        size = min(len(reader_loss.sources), 6)
        for bits in product([False, True], repeat=size):
            removed = np.zeros(len(reader_loss.sources), dtype=bool)
            removed[:size] = bits
            error = reader_loss.error(removed, "compensated")
            for i in np.flatnonzero(~removed):
                assert reader_loss.error(removed | (np.arange(len(removed)) == i), "compensated") >= error - 1e-9


def test_only_the_groups_asked_for_are_entries() -> None:
    _, topology, criterion_inputs, _ = material("concat")
    one = topology.groups[0].id
    found = reader_losses(criterion_inputs, topology, [one])
    assert {g for r in found.values() for g, _ in r.sources} == {one}


@pytest.mark.parametrize("name", ["chain", "flatten", "residual", "depthwise", "grouped", "option-a"])
def test_calibration_is_the_outputs_own_error(name: str) -> None:
    """At the last knot: the layer re-solved without its cheapest channels, really run; and the caller's model is as it was."""
    model, topology, criterion_inputs, images = material(name)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = reader_losses(criterion_inputs, topology, [g.id for g in topology.groups])
    measured = calibrated(model, criterion_inputs, topology, found, images[:16], shares=(0.5,))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert any(r.knots != ((0.0, 0.0), (1.0, 1.0)) for r in measured.values())
    for reader_loss in measured.values():
        assert reader_loss.at_outputs(0.0, "compensated") == 0.0
        errors = [reader_loss.at_outputs(x, "compensated") for x in np.linspace(0, 1, 20)]
        assert errors == sorted(errors)
    last = [r for r in measured.values() if topology.by_layer[r.layer].kind == "linear"][-1]
    order = np.argsort(last.compensated.diagonal(), kind="stable")
    removed = np.isin(np.arange(len(order)), order[: max(1, round(len(order) / 2))])
    # For the last layer the outputs are its own: recomputed here without the library's solver.
    layer, gram = topology.by_layer[last.layer], criterion_inputs.moments.layers[last.layer]
    places = {(g, c): p for g, m in topology.slots[layer.weight, 1] for c, p in enumerate(m.positions)}
    lost = [i for s, r in zip(last.sources, removed, strict=True) if r for i in places[s]]
    gone = torch.zeros(len(gram.columns), dtype=torch.bool)
    gone[lost] = True
    a, w = gram.covariance[0].double(), criterion_inputs.weights[layer.weight].double().T
    damped = a[~gone][:, ~gone] + 1e-3 * a.diagonal().mean() * torch.eye(int((~gone).sum()))
    new = w.clone()
    new[~gone] += torch.linalg.solve(damped, a[~gone][:, gone] @ w[gone])
    new[gone] = 0
    seen: list[torch.Tensor] = []
    hook = model.get_submodule(last.layer).register_forward_hook(lambda m, args, out: seen.append(args[0]))
    wanted = logits(model, images[:16])
    hook.remove()
    x = torch.cat(seen).double()
    got = wanted + (((x - gram.mean[0]) @ new) - ((x - gram.mean[0]) @ w)).float()
    assert last.knots[-1][1] == pytest.approx(relative(wanted, got), rel=1e-3)


def test_the_price_is_told() -> None:
    model, topology, criterion_inputs, images = material("chain")
    calls = []
    groups = [g.id for g in topology.groups]
    for budget, shares in ((100, 1), (100_000, 3)):
        found, spent = closed_form(model, criterion_inputs, topology, groups, images, budget)
        calls.append(spent)
        assert spent % (len(found) * shares) == 0 and 8 <= spent // (len(found) * shares) <= 64
    assert calls[0] < calls[1]
