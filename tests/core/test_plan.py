"""Plans: JSON, refusals, and how they compose."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.covering import in_turns
from support.nets import NETS, any_plan, traced

from compress.core.plan import Cut, Plan, check, keep_all, kept_positions, selectable
from compress.core.restriction import compose, restrict, widths
from compress.errors import PlanError

every_net = pytest.mark.parametrize("name", NETS)
seeds = st.integers(0, 2**32 - 1)


@in_turns(NETS, of=3, turn=2)
@given(seed=seeds, ratio=st.floats(0, 1))
@settings(max_examples=3)
def test_a_plan_survives_json_and_pickle(name: str, seed: int, ratio: float) -> None:
    plan = any_plan(traced(name)[1], seed, ratio, reorder=True, fold=True, select=True)
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan == pickle.loads(pickle.dumps(plan))
    assert again.digest == plan.digest and hash(again) == hash(plan)
    check(traced(name)[1], again)


def test_the_order_of_names_is_no_part_of_a_plan() -> None:
    a, b = Cut((0, 1)), Cut((2,))
    one, two = Plan({"x": a, "y": b}), Plan({"y": b, "x": a})  # type: ignore[dict-item]
    assert one.digest == two.digest and one == two and hash(one) == hash(two)
    assert one.digest != Plan({"x": Cut((1, 0)), "y": b}).digest  # type: ignore[dict-item]
    assert one and not Plan()


@pytest.mark.parametrize(
    "data",
    [
        None, [], "plan", {}, {"cuts": []}, {"cuts": {"a": [1]}}, {"cuts": {"a": {}}}, {"cuts": {"a": {"keep": 3}}},
        {"cuts": {"a": {"keep": ["0"]}}}, {"cuts": {"a": {"keep": [-1]}}}, {"cuts": {"a": {"keep": [True]}}},
        {"cuts": {"a": {"keep": [0.5]}}}, {"cuts": {"a": {"keep": [2**40]}}}, {"cuts": {"a": {"keep": [0], "fold": [[1]]}}},
        {"cuts": {"a": {"keep": [0], "fold": {"1": 0}}}}, {"cuts": {}, "inputs": {"a": 1}},
        {"cuts": {}, "inputs": {"a": ["x"]}},
        {"cuts": {}, "inputs": [1]},
    ],
)  # fmt: skip
def test_what_is_no_plan_is_refused(data: Any) -> None:
    with pytest.raises(PlanError, match="not a pruning plan"):
        Plan.from_json(data)


def cuts(keep: tuple[int, ...], fold: dict[int, int] | None = None, group: str = "0.0") -> Plan:
    return Plan({group: Cut(keep, fold or {})})  # type: ignore[dict-item]


def reads(layer: str, *indices: int) -> Plan:
    return Plan(inputs={layer: indices})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("name", "plan"),
    [
        ("chain", cuts((0,), group="nobody")),
        ("chain", cuts((0,), group="4.2")),
        ("chain", cuts(())),
        ("chain", cuts((0, 8))),
        ("chain", cuts((-1, 0))),
        ("chain", cuts((0, 0))),
        ("chain", cuts((0, 1), {1: 0})),
        ("chain", cuts((0, 1), {2: 3})),
        ("chain", cuts((0, 1), {8: 0})),
        ("chain", cuts((0, 1), {-1: 0})),
        ("option-a", cuts((0, 1, 2, 3, 4, 5, 6, 7, 8), {9: 2}, group="stem.0")),  # a padding into a channel of the stem
        ("option-a", cuts((0, 1, 8, 9), group="stem.0")),  # nothing of the stem would be left
        ("chain", reads("nobody", 0)),
        ("chain", reads("1.0")),
        ("chain", reads("1.0", 1, 0)),
        ("chain", reads("1.0", 0, 0)),
        ("chain", reads("1.0", 8)),
        ("chain", reads("1.0", -1, 0)),
        ("weight-std-bn", reads("3", 0)),
        ("grouped", reads("1.0", 0)),
        ("depthwise", reads("1.0", 0)),
        ("functional", reads("kernel", 0)),
        ("tied", reads("a", 0)),
        ("chain", Plan({"0.0": Cut((0, 1))}, {"1.0": (2, 3)})),  # type: ignore[dict-item]
    ],
)
def test_a_plan_that_does_not_fit_is_refused(name: str, plan: Plan) -> None:
    topology = traced(name)[1]
    with pytest.raises(PlanError):
        check(topology, plan)


@in_turns(NETS, of=3, turn=0)
@given(seed=seeds, ratio=st.floats(0, 1))
@settings(max_examples=3)
def test_whatever_the_generator_makes_is_accepted(name: str, seed: int, ratio: float) -> None:
    topology = traced(name)[1]
    check(topology, any_plan(topology, seed, ratio, reorder=True, fold=True, select=True))


@every_net
@given(seed=seeds)
@settings(max_examples=3)
def test_an_empty_plan_is_neutral(name: str, seed: int) -> None:
    topology = traced(name)[1]
    plan = any_plan(topology, seed, reorder=True, fold=True, select=True)
    assert compose(topology, plan, Plan()) == plan
    assert compose(topology, Plan(), plan) == plan
    assert restrict(topology, Plan()) == topology
    whole = Plan({g.id: Cut(keep_all(g)) for g in topology.groups})
    assert kept_positions(topology, whole) == {}


@every_net
@given(seed=seeds)
@settings(max_examples=3)
def test_composing_is_associative(name: str, seed: int) -> None:
    """And restricting twice is restricting by the composition."""
    topology = traced(name)[1]
    p = any_plan(topology, seed, 0.3, reorder=True, fold=True, select=True)
    after_p = restrict(topology, p)
    q = any_plan(after_p, seed + 1, 0.3, reorder=True, fold=True, select=True)
    pq = compose(topology, p, q)
    after_q = restrict(after_p, q)
    r = any_plan(after_q, seed + 2, 0.3, reorder=True, fold=True, select=True)
    check(topology, pq)
    assert compose(topology, pq, r) == compose(topology, p, compose(after_p, q, r))
    shapes = {k: t.shape for k, t in restrict(topology, pq).tensors.items()}
    assert shapes == {k: t.shape for k, t in after_q.tensors.items()}
    assert [g.size for g in after_q.groups] == [g.size for g in restrict(topology, pq).groups]


def test_channels_that_take_different_room_cannot_change_places() -> None:
    topology = restrict(traced("flatten")[1], reads("3", *range(1, 24)))  # one pixel of channel 0 is not read
    check(topology, cuts((0, 2, 1)))
    with pytest.raises(PlanError, match="change places"):
        check(topology, cuts((1, 0, 2)))
    with pytest.raises(PlanError, match="no fold"):
        check(topology, cuts((1, 2), {0: 1}))


def test_a_fold_into_what_goes_next_is_handed_on() -> None:
    topology = traced("chain")[1]
    first, second = cuts((0, 2, 4), {1: 2, 3: 0}), cuts((0, 2), {1: 2})
    assert compose(topology, first, second).cuts["0.0"] == Cut((0, 4), {1: 4, 2: 4, 3: 0})  # type: ignore[index]
    dropped = cuts((0, 2))
    assert compose(topology, first, dropped).cuts["0.0"] == Cut((0, 4), {3: 0})  # type: ignore[index]


def test_positions_by_hand() -> None:
    topology = traced("flatten")[1]
    table = kept_positions(topology, cuts((5, 1)))
    assert {k: v.tolist() for k, v in table.items()} == {
        ("0.0.weight", 0): [5, 1],
        ("0.1.weight", 0): [5, 1],
        ("0.1.bias", 0): [5, 1],
        ("0.1.running_mean", 0): [5, 1],
        ("0.1.running_var", 0): [5, 1],
        ("3.weight", 1): [20, 21, 22, 23, 4, 5, 6, 7],
    }


@every_net
def test_widths_are_those_of_the_weights(name: str) -> None:
    model, topology = traced(name)
    for layer, (before, after) in widths(topology, Plan()).items():
        module = dict(model.named_modules()).get(layer)
        if module is not None:
            assert before == after == (getattr(module, "out_channels", None) or module.out_features)  # type: ignore[union-attr]


@every_net
@given(seed=seeds)
@settings(max_examples=2)
def test_widths_after_are_those_of_the_cut_layers(name: str, seed: int) -> None:
    from compress.surgery.cutting import cut

    model, topology = traced(name)
    plan = any_plan(topology, seed)
    modules = dict(cut(model, topology, plan).named_modules())
    for layer, (_, after) in widths(topology, plan).items():
        if layer in modules:
            module = modules[layer]
            assert after == (getattr(module, "out_channels", None) or module.out_features), layer  # type: ignore[union-attr]


def test_what_can_select_inputs() -> None:
    assert {x.name for x in traced("depthwise")[1].layers if not selectable(traced("depthwise")[1], x)} == {"1.0"}
