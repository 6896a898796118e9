"""The two-level search: its levels, its plans on every kind of coupling, and what it spends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from support.bilevel import evolved, forked, space_of
from support.covering import in_turns, thinned
from support.nets import NETS, inputs

from compress.core.cost import count
from compress.core.plan import Cut, Plan, check
from compress.core.topology import GroupId, LayerName
from compress.evaluation.evaluator import logits
from compress.pipeline.steps import guarded_cut
from compress.recovery.reconstruction import reconstruct
from compress.search.base import Ask, Score, Told
from compress.search.bicnn.lower import Lower
from compress.search.bicnn.ordering import contiguous, slices
from compress.search.bicnn.problem import Bilevel, Consumer
from compress.search.bicnn.upper import BiCnn, _Cemba
from compress.search.journal import Journal, drive
from compress.search.reader_loss import ReaderLoss
from compress.search.space import Target
from compress.surgery.cutting import cut, simulate
from compress.testing import SearcherContract, ToySpace, run

QUICK = BiCnn(population=6, generations=6)


class TestBiCnn(SearcherContract):
    leaves_branches_out = True

    def searcher(self) -> BiCnn:
        return QUICK


# ---- the lower level -----------------------------------------------------------------------------------------------------


def consumer_of(width: int, seed: int, free: float = 1.0) -> Consumer:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(width, width + 2)) * rng.random(width)[:, None] ** 2
    matrix = mixing @ mixing.T
    reader_loss = ReaderLoss(
        LayerName("x"), tuple((GroupId("g"), c) for c in range(width)), matrix / matrix.sum(), matrix / matrix.sum()
    )
    return Consumer(reader_loss, np.arange(width), rng.random(width) < free, tuple((c,) for c in range(width)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["plain", "compensated"])
def test_the_constraint_holds_and_the_answer_is_near_the_best_of_all(seed: int, kind) -> None:
    consumer, options = consumer_of(10, seed), Lower(delta=0.05)
    kept = np.random.default_rng(seed).random(10) < 0.9
    found, spent = options.search(consumer, kept, None, kind, 1, np.random.default_rng(seed))
    rest = consumer.reader_loss.given(~kept, kind)
    assert not (found & ~kept).any() and found.any() and spent <= 2 * 8 * 7
    assert rest.error(kept & ~found) <= rest.base + options.delta
    best = min(
        sum(bits)
        for bits in product([False, True], repeat=10)
        if any(bits) and not (np.array(bits) & ~kept).any() and rest.error(kept & ~np.array(bits)) <= rest.base + options.delta
    )
    assert best <= found.sum() <= best + 1


def test_what_is_not_free_is_read() -> None:
    consumer = consumer_of(12, 1, free=0.5)
    found, _ = Lower(delta=10.0).search(consumer, np.ones(12, dtype=bool), None, "plain", 1, np.random.default_rng(0))
    assert found[~consumer.free].all() and not found[consumer.free].all()


@pytest.mark.parametrize("round_to", [4, 8])
def test_numbers_of_inputs_are_aligned(round_to: int) -> None:
    consumer = consumer_of(32, 2)
    for kept_count in (32, 27, 16, 5):
        kept = np.arange(32) < kept_count
        found, _ = Lower(delta=0.1).search(consumer, kept, None, "plain", round_to, np.random.default_rng(0))
        assert found.sum() % round_to == 0 or found.sum() == kept_count


def test_scalarised_trades_error_for_inputs() -> None:
    consumer, kept, rng = consumer_of(12, 3), np.ones(12, dtype=bool), np.random.default_rng(0)
    few, _ = Lower(objective="scalarised", weight=100.0).search(consumer, kept, None, "plain", 1, rng)
    many, _ = Lower(objective="scalarised", weight=0.0).search(consumer, kept, None, "plain", 1, rng)
    assert few.sum() <= 3 and many.all()


# ---- both levels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delta", thinned([0.002, 0.005, 0.02], of=3, turn=1))
def test_only_lower_optima_are_above(delta: float) -> None:
    """Every archived v keeps its constraint, reads only what u keeps, and nothing is kept that nobody reads."""
    search = evolved(forked(), delta=delta)
    problem = search.problem
    assert problem.two_level == (0, 1, 2)
    assert any(
        (s.u[c.index] & ~r).any() for s in search.archive.values() for c, r in zip(problem.consumers, s.reads, strict=True)
    )
    for found in search.archive.values():
        for consumer, read in zip(problem.consumers, found.reads, strict=True):
            kept = found.u[consumer.index]
            assert not (read & ~kept).any() and read.any()
            given = consumer.reader_loss
            assert given.error(~read, problem.kind) <= given.error(~kept, problem.kind) + delta * (1 + 1e-6)
        assert np.logical_or.reduce(found.reads)[found.u].all()
        assert found.share == pytest.approx(problem.space.share(problem.plan(found.u, found.reads)))
        assert found.error == pytest.approx(problem.error(found.reads))


def test_the_bit_cost_is_the_counted_cost() -> None:
    for name in ("dense", "option-a", "depthwise", "flatten", "grouped", "two-heads"):
        _, whole, _ = space_of(name)
        for kind in ("macs", "params"):
            space = replace(whole, cost=replace(whole.cost, target=Target(kind, 0.6)))
            problem = Bilevel(space, "plain", "obs")
            rng = np.random.default_rng(0)
            for _ in range(8):
                u = problem.genes.repair(rng.random(problem.genes.length) < 0.6)
                skipped = tuple((rng.random(len(c.index)) < 0.3) & c.free for c in problem.consumers)
                reads = problem.without(u, skipped)
                plan = problem.plan(u, reads)
                check(space.topology, plan)
                assert problem.share(u, reads) == pytest.approx(space.share(plan), rel=1e-12)


def test_repair_comes_close_below_the_budget() -> None:
    space = forked(64)
    problem, rng = Bilevel(space, "plain", "l1"), np.random.default_rng(0)
    for goal in (0.2, 0.5, 0.8):
        for _ in range(5):
            u = problem.genes.repair(rng.random(64) < 0.5)
            skipped = tuple(rng.random(64) < 0.2 for _ in problem.consumers)
            u, reads = problem.onto(u, skipped, goal, rng)
            assert goal - 0.02 <= problem.share(u, reads) <= goal


def test_groups_with_one_consumer_are_folded() -> None:
    toy = ToySpace.make()
    search = _Cemba(QUICK, Bilevel(toy.space, "plain", "l1"), np.random.default_rng(0))
    search.evolve()
    told = search.told(False)
    assert told.figures["folded_groups"] == 4 and told.figures["lower_evaluations"] == 0
    assert "lower level is the upper one" in told.notes[0]
    assert not any(p.plan.inputs for p in run(QUICK, toy))


def test_layers_that_may_not_select_read_everything() -> None:
    space = replace(forked(), selecting={LayerName("read1"): 1.0})
    search = evolved(space)
    assert search.problem.two_level == (1,)
    assert all(set(search.problem.plan(s.u, s.reads).inputs) <= {"read1"} for s in search.archive.values())


def test_shortcuts_save_evaluations_without_a_worse_answer() -> None:
    """Against the plain nested search of the same size: fewer evaluations below, and an error that is no worse."""
    spent, errors = {}, {}
    plain = {"rho": 1.0, "warm_start": False, "migrate": False}
    for name, options in (("cemba", {}), ("nested", plain), ("cold", {"warm_start": False}), ("all", {"rho": 1.0})):
        runs = [evolved(forked(16, seed=s), s, delta=0.02, generations=3, **options) for s in range(1)]
        spent[name] = sum(r.problem.lower_evaluations for r in runs)
        errors[name] = sum(min(s.error for s in r.archive.values() if s.share <= 0.5) for r in runs)
    assert spent["cemba"] < 0.5 * spent["nested"]
    assert spent["cemba"] < spent["cold"] and spent["cemba"] < spent["all"]
    assert errors["cemba"] <= errors["nested"] * 1.05


def test_selections_beat_filters_alone() -> None:
    """Where consumers care for different channels, the lower level finds what whole filters cannot."""
    space = forked()
    with_inputs = min(s.error for s in evolved(space, delta=0.02, generations=8).archive.values() if s.share <= 0.5)
    without = replace(space, selecting={})
    filters = min(s.error for s in evolved(without, delta=0.02, generations=8).archive.values() if s.share <= 0.5)
    assert with_inputs < filters


def test_what_was_spent_is_told() -> None:
    space = forked()

    def evaluate(ask: Ask) -> list[Score]:
        return [Score(1 - space.share(p)) for p in ask.plans]

    def spent(searcher: BiCnn) -> Mapping[str, float]:
        told: list[Told] = []
        assert drive(searcher.search(space, np.random.default_rng(0)), evaluate, Journal(None, "x"), tell=told.append)
        (figures,) = [one.figures for one in told if one.figures]
        return figures

    figures = spent(QUICK)
    assert 0 < figures["lower_evaluations"] < figures["nested_lower_evaluations"]
    plain = replace(QUICK, rho=1.0, warm_start=False, migrate=False)
    real = spent(plain)["lower_evaluations"]
    assert 0.5 * real <= figures["nested_lower_evaluations"] <= 2 * real


# ---- on networks ---------------------------------------------------------------------------------------------------------


@in_turns(["chain", "dense", "residual", "depthwise", "concat", "option-a", "flatten", "grouped"], of=4, turn=1)
def test_prunes_every_kind_of_coupling(name: str, tmp_path) -> None:
    """Valid plans near the target; cut, proven by the guard, counted, reconstructed; a second run asks for nothing."""
    model, space, evaluator = space_of(name)
    journal = tmp_path / "journal.jsonl"
    searcher = BiCnn(population=6, generations=6, delta=0.02)
    asked: list[Plan] = []

    def evaluate(ask: Ask) -> Sequence[Score]:
        asked.extend(ask.plans)
        return evaluator(ask)

    front = drive(searcher.search(space, np.random.default_rng(0)), evaluate, Journal(journal, "x"))
    assert any(0.5 <= space.share(p) <= 0.6 for p in asked) and {p.plan for p in front} <= set(asked)
    images = inputs(name, 8)
    for point in front:
        check(space.topology, point.plan)
        _, seen = guarded_cut(model, space.topology, point.plan, images)
        assert seen.error <= 1e-5 and point.cost == count(space.topology, point.plan)
    best = min(front, key=lambda p: p.error).plan
    restored = reconstruct(model, cut(model, space.topology, best), space.topology, best, [images.float()])
    assert torch.isfinite(logits(restored.model, images.float())).all()

    def refuse(ask: Ask) -> list[Score]:
        raise AssertionError("asked again")

    assert front == drive(searcher.search(space, np.random.default_rng(0)), refuse, Journal(journal, "x"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in NETS if n not in ("conv3d", "view-constant")])  # no channels-last there
def test_prunes_every_net(name: str) -> None:
    model, space, evaluator = space_of(name, target=0.8)
    front = drive(
        BiCnn(population=4, generations=3, delta=0.05).search(space, np.random.default_rng(0)), evaluator, Journal(None, "")
    )
    for point in front:
        guarded_cut(model, space.topology, point.plan, inputs(name, 3))


def test_a_channel_that_nobody_reads_is_gone() -> None:
    """True filter pruning: where every consumer drops a channel, its producer's filter goes, in the plan and in the network."""
    model, space, _ = space_of("dense")
    problem = Bilevel(space, "plain", "obs")
    u = np.ones(problem.genes.length, dtype=bool)
    group, where = problem.genes.groups[0], problem.genes.slices[0]
    reads = tuple(np.array([not (g == group.id and c == 2) for g, c in x.reader_loss.sources]) for x in problem.consumers)
    tidied, reads = problem.tidy(u, reads)
    assert not tidied[where.start + 2] and tidied.sum() == len(u) - 1
    plan = problem.plan(tidied, reads)
    assert plan.cuts == {group.id: Cut(tuple(c for c in range(group.size) if c != 2))} and not plan.inputs
    assert cut(model, space.topology, plan).get_submodule(group.id).weight.shape[0] == group.size - 1


# ---- contiguous selections -----------------------------------------------------------------------------------------------


def test_two_readers_of_a_group_are_served_by_an_order() -> None:
    space = forked(16, 2)
    rng = np.random.default_rng(0)
    for _ in range(20):
        keep = tuple(sorted(rng.permutation(16)[:12].tolist()))
        inputs_ = {LayerName(f"read{i}"): tuple(sorted(rng.permutation(keep)[:7].tolist())) for i in range(2)}
        plan = Plan({GroupId("make"): Cut(keep)}, inputs_)
        arranged = contiguous(space.topology, plan)
        assert set(slices(space.topology, arranged)) == set(inputs_)
        assert sorted(arranged.cuts[GroupId("make")].keep) == list(keep) and arranged.inputs == plan.inputs


@pytest.mark.parametrize("name", ["dense", "option-a", "two-heads", "concat"])
def test_an_order_changes_nothing_that_is_computed(name: str) -> None:
    model, space, _ = space_of(name)
    problem, rng = Bilevel(space, "plain", "obs"), np.random.default_rng(3)
    images = inputs(name, 4)
    more = 0
    for _ in range(6):
        u = problem.genes.repair(rng.random(problem.genes.length) < 0.8)
        skipped = tuple((rng.random(len(c.index)) < 0.4) & c.free for c in problem.consumers)
        plan = problem.plan(*problem.tidy(u, problem.without(u, skipped)))
        arranged = contiguous(space.topology, plan)
        more += len(slices(space.topology, arranged)) - len(slices(space.topology, plan))
        assert space.share(arranged) == space.share(plan)
        one, other = (simulate(model, space.topology, p).double() for p in (plan, arranged))
        small, _ = guarded_cut(model, space.topology, arranged, images)
        with torch.no_grad():
            wanted, got, cut_ = (m.double()(images) for m in (one, other, small))
        if isinstance(wanted, tuple):
            wanted, got, cut_ = wanted[0], got[0], cut_[0]
        torch.testing.assert_close(got, wanted)
        torch.testing.assert_close(cut_, wanted, atol=1e-6, rtol=1e-5)
        spans = {n for n in arranged.inputs if small.get_submodule(n).span is not None}
        assert spans == set(slices(space.topology, arranged))
    assert more >= 0
