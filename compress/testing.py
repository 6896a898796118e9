"""For testing searchers, your own included: a toy network with a known front, and the contract every searcher keeps.

Nothing here imports torch. Subclass :class:`SearcherContract` in a test module and give it a searcher::

    class TestMine(SearcherContract):
        def searcher(self):
            return Mine()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any, ClassVar

import numpy as np

from compress.core import (
    Branch,
    BranchId,
    ChannelGroup,
    Floats,
    GroupId,
    LatencyTable,
    Layer,
    LayerName,
    Member,
    Plan,
    PredictionError,
    Role,
    SkippedModule,
    TensorInfo,
    Topology,
    canonical,
    check,
    count,
    features,
)
from compress.search import (
    Ask,
    Asked,
    ChannelStatistics,
    CostModel,
    Fidelity,
    Front,
    Journal,
    Score,
    Search,
    Searcher,
    Space,
    Stage,
    Target,
    drive,
    reachable,
)


def toy_topology(widths: Sequence[int] = (32, 64, 64, 128), sites: int = 16) -> Topology:
    """A chain of 1x1 convolutions with a linear head, as plain data."""
    names = [f"conv{i}" for i in range(len(widths))]
    sizes = [3, *widths, 10]
    tensors = {f"{n}.weight": TensorInfo((sizes[i + 1], sizes[i], 1, 1), True, sites) for i, n in enumerate(names)}
    tensors["fc.weight"] = TensorInfo((10, sizes[-2]), True, 1)
    layers = [Layer(name=LayerName(n), kind="conv", weight=f"{n}.weight") for n in names]
    layers.append(Layer(name=LayerName("fc"), kind="linear", weight="fc.weight"))
    groups = []
    for i, (name, width) in enumerate(zip(names, widths, strict=True)):
        positions = tuple((c,) for c in range(width))
        reader = layers[i + 1].weight
        members = (Member(f"{name}.weight", 0, Role.WRITES, positions), Member(reader, 1, Role.READS, positions))
        groups.append(ChannelGroup(id=GroupId(name), size=width, members=members))
    return Topology(groups=tuple(groups), tensors=tensors, layers=tuple(layers), example=(3, 4, 4))


def with_blocks(topology: Topology, inner: int = 32) -> Topology:
    """The toy chain with two residual blocks of two 1x1 convolutions behind each of the last two convolutions but one."""
    tensors, layers, groups = dict(topology.tensors), list(topology.layers), list(topology.groups)
    branches = []
    for stream, number in ((s, n) for s in ("conv1", "conv2") for n in (1, 2)):
        name, group = f"{stream}_block{number}", next(g for g in groups if g.id == stream)
        sites = tensors[f"{stream}.weight"].sites
        pieces = (("down", (inner, group.size, 1, 1)), ("up", (group.size, inner, 1, 1)))
        tensors |= {f"{name}.{part}.weight": TensorInfo(shape, True, sites) for part, shape in pieces}
        made = [Layer(name=LayerName(f"{name}.{part}"), kind="conv", weight=f"{name}.{part}.weight") for part, _ in pieces]
        place = next(i for i, x in enumerate(layers) if x.name == stream) + 2 * number - 1
        layers[place:place] = made
        wide, narrow = (tuple((c,) for c in range(n)) for n in (group.size, inner))
        beside = (Member(made[0].weight, 1, Role.READS, wide), Member(made[1].weight, 0, Role.WRITES, wide))
        groups[groups.index(group)] = replace(group, members=(*group.members, *beside))
        inside = (Member(made[0].weight, 0, Role.WRITES, narrow), Member(made[1].weight, 1, Role.READS, narrow))
        groups.append(ChannelGroup(id=GroupId(made[0].name), size=inner, members=inside))
        branches.append(Branch(BranchId(name), (SkippedModule(name),), (f"{name}.up",)))
    return replace(topology, groups=tuple(groups), tensors=tensors, layers=tuple(layers), branches=tuple(branches))


def toy_table(topology: Topology, block: int = 16) -> LatencyTable:
    """A machine that pads channels to blocks: times by multiply-accumulates and numbers written, and a part that stays."""
    prices = np.array([1.0, 40.0, 20.0, 10.0, 3.0, 100.0, 2e-4])
    rows = features(topology, {}, block) * prices
    coefficients = np.tile(prices / rows.sum() * 0.95, (len(topology.layers), 1))
    names = tuple(layer.name for layer in topology.layers)
    numbers = tuple(tuple(row) for row in coefficients.tolist())
    error = PredictionError(0.0, 0.0, 0)
    return LatencyTable(
        topology=topology.digest,
        environment="toy",
        machine="toy",
        runtime="ort-cpu",
        batch=1,
        block=block,
        layers=names,
        coefficients=numbers,
        constant=0.05,
        error=error,
        seconds=1.0,
    )


@dataclass(frozen=True)
class ToySpace:
    """A search problem whose answer is known: errors add up over channels, so the best plan of a width is the ranked one.

    Attributes:
        space: what the searcher is given.
        harm: group -> error that each channel's removal adds.
        noise: standard deviation of the scores' noise.
        lost: branch -> error that leaving it out adds.
    """

    space: Space
    harm: dict[GroupId, Floats]
    noise: float = 0.0
    lost: Mapping[BranchId, float] = field(default_factory=dict)

    @staticmethod
    def make(seed: int = 0, target: Target | None = None, round_to: int = 8, budget: int = 20_000) -> ToySpace:
        """A chain of four groups in two stages; importance is the harm with a little noise."""
        rng = np.random.default_rng(seed)
        topology = toy_topology()
        harm = {g.id: rng.exponential(1.0, g.size) * s for g, s in zip(topology.groups, (4.0, 1.0, 2.0, 0.3), strict=True)}
        importance = {
            name: {g: np.abs(h + rng.normal(0, spread, len(h))) for g, h in harm.items()}
            for name, spread in (("l1", 0.3), ("fpgm", 0.6), ("taylor", 0.1), ("random", 50.0))
        }
        stages = (
            Stage(name="front", groups=(GroupId("conv0"), GroupId("conv1")), fraction=0.4),
            Stage(name="back", groups=(GroupId("conv2"), GroupId("conv3")), fraction=0.6),
        )
        kernels = {g.id: rng.normal(size=(g.size, 6)) * harm[g.id][:, None] for g in topology.groups}
        table = toy_table(topology) if target is not None and target.kind == "latency" else None
        cost = CostModel(topology, target or Target(), table)
        space = Space(
            cost=cost,
            stages=stages,
            statistics=ChannelStatistics(importance=importance, kernels=kernels),
            budget=budget,
            round_to=round_to,
        )
        return ToySpace(space, harm)

    def chunked(self) -> ToySpace:
        """The same, but the network's code chunks the second group into two pieces and the last one into four."""
        topology, pieces = self.space.topology, {"conv1": 2, "conv3": 4}
        groups = tuple(_in_pieces(g, pieces.get(g.id, 1)) for g in topology.groups)
        topology = replace(topology, groups=groups)
        table = toy_table(topology) if self.space.table is not None else None
        cost = CostModel(topology, self.space.target, table)
        return replace(self, space=replace(self.space, cost=cost))

    def with_branches(self, lost: float = 0.0) -> ToySpace:
        """The same with four residual blocks, which may be left out at so much error each; their own channels matter more."""
        topology, rng = with_blocks(self.space.topology), np.random.default_rng(5)
        inside = {g.id: rng.exponential(1.0, g.size) for g in topology.groups if g.id not in self.harm}
        harm = self.harm | inside
        told = self.space.statistics
        importance = {name: {**known, **inside} for name, known in told.importance.items()}
        kernels = {**told.kernels, **{g: rng.normal(size=(len(h), 6)) * h[:, None] for g, h in inside.items()}}
        may = {b.name: lost for b in topology.branches}
        front, back = self.space.stages
        halves = [tuple(n for n in may if n.startswith(stream)) for stream in ("conv1", "conv2")]
        stages = tuple(
            replace(stage, groups=(*stage.groups, *(GroupId(f"{n}.down") for n in names)), branches=names)
            for stage, names in zip((front, back), halves, strict=True)
        )
        table = toy_table(topology) if self.space.table is not None else None
        space = replace(
            self.space,
            cost=CostModel(topology, self.space.target, table),
            stages=stages,
            statistics=replace(told, importance=importance, kernels=kernels, branch_errors=may),
        )
        return replace(self, space=space, harm=harm, lost=may)

    def error(self, plan: Plan) -> float:
        """What a plan costs in accuracy."""
        lost = sum(self.lost[b] * sum(float(h.sum()) for h in self.harm.values()) for b in plan.branches)
        for group, cut in plan.cuts.items():
            gone = np.ones(len(self.harm[group]), dtype=bool)
            gone[list(cut.keep)] = False
            lost += float(self.harm[group][gone].sum())
        return lost / sum(float(h.sum()) for h in self.harm.values())

    def evaluate(self, ask: Ask) -> list[Score]:
        """Scores a request."""
        return [Score(self.error(plan)) for plan in ask.plans]

    def price(self, ask: Ask) -> float:
        """Image-forwards of one plan."""
        if ask.fidelity is not Fidelity.FULL:
            return self.space.stages[ask.stage].part(ask.fidelity) * ask.images
        if ask.recovery == "reconstructed" and self.space.solved_images:
            return float(self.space.solved_images)
        return min(2.0 * ask.images or self.space.full_images, self.space.full_images)


def _in_pieces(group: ChannelGroup, count: int) -> ChannelGroup:
    size = group.size // count
    pieces = tuple(tuple(range(i * size, (i + 1) * size)) for i in range(count))
    return replace(group, coupled_counts=(pieces,) if count > 1 else ())


def run(searcher: Searcher, toy: ToySpace, seed: int = 0, evaluate: Callable[[Ask], Sequence[Score]] | None = None) -> Front:
    """A searcher on a toy space, to the end."""
    search: Search = searcher.search(toy.space, np.random.default_rng(seed))
    return drive(search, evaluate or toy.evaluate, Journal(None, "toy"))


def hypervolume(toy: ToySpace, front: Front, reference: tuple[float, float] = (1.0, 1.0)) -> float:
    """The area of (MACs share, error) that a front dominates, below the reference point."""
    area, ceiling = 0.0, reference[1]
    whole = count(toy.space.topology).macs
    for point in front:
        x, y = point.cost.macs / whole, toy.error(point.plan)
        if y < ceiling:
            area += (reference[0] - x) * (ceiling - y)
            ceiling = y
    return area


def _note_spent(spent: list[float], event: Asked) -> None:
    spent.append(event.spent)


class SearcherContract:
    """What every searcher promises. Subclasses give ``searcher()``; pytest runs the rest."""

    beats_random = True
    leaves_branches_out = False
    _kept: ClassVar[Front]

    def searcher(self) -> Searcher:
        """The searcher under test."""
        raise TypeError("a subclass gives the searcher under test")

    def front(self) -> Front:
        """What it finds on the default toy, once for all that is asked of it: nothing but the seed decides (a test below)."""
        kind = type(self)
        if "_kept" not in vars(kind):
            kind._kept = run(self.searcher(), ToySpace.make())
        return kind._kept

    def test_plans_are_valid_and_counted(self) -> None:
        """Every point fits the network and carries its true cost."""
        toy = ToySpace.make()
        for point in self.front():
            check(toy.space.topology, point.plan)
            assert point.cost == count(toy.space.topology, point.plan)

    def test_front_is_sorted_and_non_dominated(self) -> None:
        """Cheapest first, every further point better."""
        front = self.front()
        assert front
        macs = [p.cost.macs for p in front]
        errors = [p.error for p in front]
        assert macs == sorted(set(macs)) and errors == sorted(set(errors), reverse=True)

    def test_target_is_met(self) -> None:
        """MACs and params: a point within the budget and not far below it (the toy's widths are stairs of 0.04)."""
        for kind in ("macs", "params"):
            for value in (0.35, 0.5, 0.75):
                toy = ToySpace.make(target=Target(kind, value))
                shares = [toy.space.share(p.plan) for p in run(self.searcher(), toy)]
                assert any(value - 0.05 <= s <= value for s in shares), (kind, value, shares)

    def test_latency_is_met(self) -> None:
        """A latency from a table, which is a stair: a point within it and not far below, the front sorted by it."""
        for value in (0.4, 0.6):
            toy = ToySpace.make(target=Target("latency", value))
            front = run(self.searcher(), toy)
            shares = [toy.space.share(p.plan) for p in front]
            assert any(value - 0.1 <= s <= value for s in shares), (value, shares)
            assert shares == sorted(shares)

    def test_widths_are_aligned(self) -> None:
        """Every kept width is a multiple of ``round_to`` or whole."""
        for point in self.front():
            for group, cut in point.plan.cuts.items():
                assert len(cut.keep) % 8 == 0, group

    def test_coupled_counts_are_kept(self) -> None:
        """Where code chunks channels, no plan that is asked about keeps more of one piece than of another."""
        for target in (Target(), Target("max_drop", 0.05), Target("latency", 0.6)):
            for round_to in (8, 1):
                toy = ToySpace.make(target=target, budget=5_000, round_to=round_to).chunked()

                def evaluate(ask: Ask, toy: ToySpace = toy) -> list[Score]:
                    for plan in ask.plans:
                        check(toy.space.topology, plan)
                    return toy.evaluate(ask)

                front = run(self.searcher(), toy, evaluate=evaluate)
                assert front and any("conv3" in p.plan.cuts for p in front)
                for point in front:
                    check(toy.space.topology, point.plan)

    def test_plans_with_branches_are_said_once(self) -> None:
        """Where branches may go, every plan that is asked about fits and is canonical; those that cost nothing go."""
        for target in (Target(), Target("latency", 0.5), Target("max_drop", 0.05)):
            toy = ToySpace.make(target=target, budget=5_000).with_branches()

            def evaluate(ask: Ask, toy: ToySpace = toy) -> list[Score]:
                for plan in ask.plans:
                    check(toy.space.topology, plan)
                    assert plan == canonical(toy.space.topology, plan)
                return toy.evaluate(ask)

            front = run(self.searcher(), toy, evaluate=evaluate)
            if target.kind != "max_drop":
                best = min((p for p in front if toy.space.share(p.plan) <= target.value), key=lambda p: p.error)
                assert bool(best.plan.branches) == self.leaves_branches_out, best.plan.branches

    def test_branches_reach_further_than_widths(self) -> None:
        """A target below what the narrowest widths take is met where branches may go."""
        for kind in ("macs", "latency") if self.leaves_branches_out else ():
            toy = ToySpace.make(target=Target(kind), round_to=32, budget=5_000).with_branches(0.01)
            low, least = (reachable(toy.space.cost, toy.space.groups, 32, gone) for gone in ((), toy.space.branches))
            value = (low + least) / 2
            toy = replace(toy, space=replace(toy.space, cost=replace(toy.space.cost, target=Target(kind, value))))
            assert least < value < low
            assert min(toy.space.share(p.plan) for p in run(self.searcher(), toy)) <= value

    def test_branches_that_may_not_go_stay(self) -> None:
        """Of a network with branches none goes that the space does not name, and none that matters more than channels."""
        toy = ToySpace.make(budget=5_000).with_branches(lost=0.9)
        front = run(self.searcher(), toy)
        assert not min((p for p in front if toy.space.share(p.plan) <= 0.5), key=lambda p: p.error).plan.branches
        statistics = replace(toy.space.statistics, branch_errors={})
        stages = tuple(replace(stage, branches=()) for stage in toy.space.stages)
        none = replace(toy, space=replace(toy.space, statistics=statistics, stages=stages))
        assert not any(p.plan.branches for p in run(self.searcher(), none))

    def test_same_seed_same_front(self) -> None:
        """Nothing but the seed decides."""
        assert run(self.searcher(), ToySpace.make(), 3) == run(self.searcher(), ToySpace.make(), 3)

    def test_replay_asks_nothing(self, tmp_path: Any) -> None:
        """A finished journal answers everything, and the front is the same."""
        toy = ToySpace.make()
        path = tmp_path / "journal.jsonl"
        first = drive(self.searcher().search(toy.space, np.random.default_rng(1)), toy.evaluate, Journal(path, "x"))

        def refuse(ask: Ask) -> Sequence[Score]:
            raise AssertionError("evaluated again")

        again = drive(self.searcher().search(toy.space, np.random.default_rng(1)), refuse, Journal(path, "x"))
        assert first == again

    def test_survives_nan_and_ties(self) -> None:
        """Scores that are not numbers lose; all-equal scores are no trouble."""
        toy = ToySpace.make()

        def sometimes(ask: Ask) -> list[Score]:
            return [Score(float("nan") if i % 3 == 0 else toy.error(p)) for i, p in enumerate(ask.plans)]

        assert all(np.isfinite(p.error) for p in run(self.searcher(), toy, evaluate=sometimes))
        run(self.searcher(), toy, evaluate=lambda ask: [Score(0.5) for _ in ask.plans])

    def test_keeps_its_budget(self) -> None:
        """Image-forwards stay within what was given, for every kind of target, where scores recovered for real are dear too."""
        for kind, value in (("macs", 0.5), ("max_drop", 0.05)):
            depths = (False, True) if self.leaves_branches_out and kind == "macs" else (False,)
            for (budget, solved), branches in product(((3_000, 0), (20_000, 0), (20_000, 3_000)), depths):
                toy = ToySpace.make(target=Target(kind, value), budget=budget)
                toy = toy.with_branches(0.01) if branches else toy
                toy = replace(toy, space=replace(toy.space, solved_images=solved))
                spent: list[float] = []
                search = self.searcher().search(toy.space, np.random.default_rng(0))
                drive(search, toy.evaluate, Journal(None, "b"), price=toy.price, listen=partial(_note_spent, spent))
                assert spent[-1] <= budget * 1.02, (kind, budget, solved, branches, spent[-1])

    def test_an_allowed_drop_is_asked_of_all_images(self) -> None:
        """Every point of a front that an accuracy is looked up in was scored on all images there are."""
        toy, asked = ToySpace.make(target=Target("max_drop", 0.05)), dict[Plan, float]()

        def evaluate(ask: Ask) -> list[Score]:
            scores = toy.evaluate(ask)
            if ask.fidelity is Fidelity.FULL and ask.images == 0:
                asked.update((p, s.error) for p, s in zip(ask.plans, scores, strict=True))
            return scores

        front = run(self.searcher(), toy, evaluate=evaluate)
        assert all(asked.get(p.plan) == p.error for p in front)

    def test_beats_random(self) -> None:
        """At the target's cost the plan found is better than random channels at uniform widths, over five seeds."""
        if not self.beats_random:
            return
        from compress.search import Uniform

        wins = 0
        for seed in range(5):
            toy = ToySpace.make(seed)
            mine = min(toy.error(p.plan) for p in run(self.searcher(), toy, seed) if toy.space.share(p.plan) <= 0.5)
            blind = replace(toy, space=replace(toy.space, ranking="random"))
            random = min(toy.error(p.plan) for p in run(Uniform(criterion="random"), blind, seed))
            wins += mine < random
        assert wins == 5
