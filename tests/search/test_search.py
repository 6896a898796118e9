from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans
from support.covering import thinned
from support.nets import traced
from support.spaces import knowing
from threadpoolctl import threadpool_info, threadpool_limits

from compress.core.cost import Cost
from compress.core.plan import Plan
from compress.errors import ConfigError
from compress.pipeline.front import choose
from compress.search.base import Ask, Score, Told
from compress.search.closed_forms import closed_forms, closed_forms_elsewhere
from compress.search.cluster import Cluster, _Decoder, clustered, crowding_distance, features
from compress.search.front import Fidelity, Point, knee, non_dominated
from compress.search.journal import Journal, drive
from compress.search.methods import METHODS
from compress.search.obs import Allocated
from compress.search.smoea import Smoea
from compress.search.space import ChannelStatistics, CostModel, Space, Stage, Target
from compress.search.stage_combination import controller
from compress.search.uniform import Uniform
from compress.search.widths import allowed, even_widths, nearest, plan_of, reachable, scaled, share_at
from compress.testing import SearcherContract, ToySpace, hypervolume, run, toy_table


class TestUniform(SearcherContract):
    def searcher(self) -> Uniform:
        return Uniform()


class TestSmoea(SearcherContract):
    leaves_branches_out = True

    def searcher(self) -> Smoea:
        return Smoea(population=12, generations=6)


class TestSmoeaOnOutputs(TestSmoea):
    def searcher(self) -> Smoea:
        return replace(super().searcher(), objective="outputs")


class TestCluster(SearcherContract):
    leaves_branches_out = True

    def searcher(self) -> Cluster:
        return Cluster(population=6, generations=2, restarts=1)


@pytest.mark.parametrize("searcher", [Smoea(population=12, generations=6), Cluster(population=6, generations=3, restarts=1)])
def test_widths_so_coarse_that_little_is_left_to_choose(searcher: Smoea | Cluster) -> None:
    toy = ToySpace.make(round_to=64, target=Target("macs", 0.8))
    assert run(searcher, toy)


SMALL = {"population": 4, "generations": 2, "lower_generations": 2, "restarts": 1, "points": 4}


def extremes() -> list[tuple[str, str, float]]:
    """(method, parameter, value) for every number, at the ends of what a job lets it be."""
    found = []
    for method, how in METHODS.items():
        for parameter in fields(how.searcher):
            default = getattr(how.make(), parameter.name)
            trials = (0, 1, 2) if type(default) is int else (0.0, 1.0) if type(default) is float else ()
            for value in trials:
                with suppress(ConfigError):
                    how.make(**{parameter.name: value})
                    found.append((method, parameter.name, value))
    return found


@pytest.mark.parametrize(("method", "name", "value"), thinned(extremes(), of=3))
def test_what_a_job_accepts_can_be_searched_with(method: str, name: str, value: float) -> None:
    how = METHODS[method]
    small = {k: v for k, v in SMALL.items() if k in {f.name for f in fields(how.searcher)}}
    toy = ToySpace.make(round_to=8)
    front = run(how.make(**{**small, name: value}), toy)
    assert front and min(toy.space.share(p.plan) for p in front) <= 0.5


def test_a_low_target_is_met() -> None:
    toy = ToySpace.make(round_to=1, target=Target("macs", 0.02))
    assert any(0.0 < toy.space.share(p.plan) <= 0.02 for p in run(Smoea(population=12, generations=4), toy))


def test_crowding_is_infinite_at_the_ends_only() -> None:
    points = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [4.0, 4.0]])
    distance = crowding_distance(points)
    assert np.isinf(distance[[0, 3]]).all()
    assert distance[1] == pytest.approx(2 * 2 / 4) and distance[2] == pytest.approx(2 * 3 / 4)


def test_the_third_feature_follows_from_the_first_two() -> None:
    kernels = np.random.default_rng(0).normal(0.3, 1.0, (20, 30))
    mean, variance = kernels.mean(1), kernels.var(1)
    cosine = mean / np.sqrt(mean**2 + variance)
    assert features(kernels)[:, 2] == pytest.approx((cosine - cosine.mean()) / cosine.std())


@pytest.mark.parametrize("keep", ["crowding", "random", "l1", "obs"])
@pytest.mark.parametrize("rule", ["one_per_cluster", "ratio_per_cluster"])
def test_the_table_keeps_what_a_width_says(keep: str, rule: str) -> None:
    toy = ToySpace.make()
    method = Cluster(keep=keep, rule=rule, restarts=1)  # type: ignore[arg-type]
    table = method.tabulate(toy.space, np.random.default_rng(0))
    for rows in table.values():
        for width, kept in rows.items():
            assert len(kept) == len(set(kept.tolist())) == width


def test_one_survivor_stands_for_each_cluster() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(8, 12)) * 10
    kernels = np.repeat(centres, 4, axis=0) + rng.normal(size=(32, 12)) * 1e-3
    method = Cluster(restarts=5)
    kept = method._kept(kernels, np.abs(kernels).sum(1), 8, rng)
    assert len({int(k) // 4 for k in kept}) == 8


def test_clusters_are_found_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several would add their partial sums in the order in which they end, and the labels would differ from run to run."""
    seen: list[int] = []

    class Watched(KMeans):
        def fit(self, *data: Any) -> Any:
            seen.extend(pool["num_threads"] for pool in threadpool_info())
            return super().fit(*data)

    monkeypatch.setattr("sklearn.cluster.KMeans", Watched)
    with threadpool_limits(2):
        assert 2 in [pool["num_threads"] for pool in threadpool_info()]
        clustered(np.random.default_rng(0).normal(size=(30, 3)), 4, 2)
        assert 2 in [pool["num_threads"] for pool in threadpool_info()]
    assert set(seen) == {1}


def test_inside_a_cluster_the_readers_decide_where_they_are_asked() -> None:
    toy = ToySpace.make()
    space = knowing(toy.space, importance={**toy.space.statistics.importance, "obs": toy.harm})
    table = Cluster(keep="obs", rule="ratio_per_cluster", clusters=1, restarts=1).tabulate(space, np.random.default_rng(0))
    for (group, _), rows in table.items():
        for width, kept in rows.items():
            assert set(kept.tolist()) == set(np.argsort(-toy.harm[group])[:width].tolist())


def test_clustering_is_not_behind_equal_shares_where_few_images_mislead() -> None:
    """Scores on some images are noise here, those of all images the truth."""
    toy, rng = ToySpace.make(), np.random.default_rng(0)

    def evaluate(ask: Ask) -> list[Score]:
        return [Score(float(rng.random())) for _ in ask.plans] if ask.images else toy.evaluate(ask)

    method = Cluster(population=6, generations=2, restarts=1)
    table = method.tabulate(toy.space, rng)
    even = _Decoder(method, toy.space, table, 0.5)(np.ones(len(toy.space.groups)))
    best = min(run(method, toy, evaluate=evaluate), key=lambda p: p.error)
    assert toy.error(best.plan) <= toy.error(even)


@pytest.mark.parametrize("value", [0.5, 0.8])
@pytest.mark.parametrize("seed", range(4))
def test_smoea_is_not_behind_l1_where_few_images_mislead(seed: int, value: float) -> None:
    """Scores on some images are noise, those of all images the truth; the ranking is bad, and few plans can be judged."""
    toy, rng = ToySpace.make(seed, Target("macs", value)), np.random.default_rng(seed)
    toy = replace(toy, space=replace(toy.space, ranking="random"))

    def evaluate(ask: Ask) -> list[Score]:
        return [Score(0.05 + toy.error(p) + rng.normal(0, 0.1 if ask.images else 0)) for p in ask.plans]

    found = run(Smoea(population=10, generations=5, judged=2), toy, seed, evaluate)
    best, _ = choose(found, toy.space.target, toy.space.share, 0.0)
    assert toy.error(best.plan) <= toy.error(Uniform("l1").plan(toy.space, value))
    assert best.error == pytest.approx(0.05 + toy.error(best.plan))


def misleading(toy: ToySpace, rng: np.random.Generator) -> Callable[[Ask], list[Score]]:
    """Scores on some images are the truth and chance, those on all images the truth."""
    return lambda ask: [Score(toy.error(p) + abs(rng.normal(0, 1 if ask.images else 0))) for p in ask.plans]


@pytest.mark.parametrize("seed", range(4))
def test_smoea_is_not_behind_obs_where_few_images_mislead(seed: int) -> None:
    """What obs would choose from is judged as well, the networks with fewer branches among it."""
    toy, rng = ToySpace.make(seed, Target("macs", 0.5)).with_branches(0.01), np.random.default_rng(seed)

    mine, theirs = (
        choose(run(method, toy, seed, misleading(toy, rng)), toy.space.target, toy.space.share, 0.0)[0]
        for method in (Smoea(population=10, generations=3, judged=20), Allocated())
    )
    assert mine.error <= theirs.error


@pytest.mark.parametrize("seed", range(4))
def test_smoea_is_not_behind_the_closed_form_where_two_plans_are_judged(seed: int) -> None:
    """A small budget judges no more than two: the evolution's best on few images, and what obs would take; l1 misleads too."""
    toy, rng = ToySpace.make(seed, Target("macs", 0.5)).with_branches(0.01), np.random.default_rng(seed)
    known = dict(toy.space.statistics.importance)
    misled = replace(toy.space.statistics, importance={**known, "l1": known["random"]})
    toy = replace(toy, space=replace(toy.space, ranking="taylor", statistics=misled))

    found = run(Smoea(population=10, generations=3, judged=2), toy, seed, misleading(toy, rng))
    best, _ = choose(found, toy.space.target, toy.space.share, 0.0)
    assert best.error <= toy.error(Allocated().plan(toy.space, 0.5))


def test_a_closed_form_far_below_the_target_is_never_taken_for_it() -> None:
    """It is there to be picked later; that it scores as well is luck on few images."""
    toy = ToySpace.make(0, Target("macs", 0.6)).with_branches(0.01)
    elsewhere = {p for p in closed_forms_elsewhere(toy.space, Smoea().spread) if toy.space.share(p) < 0.6}
    far = elsewhere - {*closed_forms(toy.space)}
    front = run(Smoea(population=10, generations=3), toy, 0, lambda ask: [Score(0.0 if p in far else 0.1) for p in ask.plans])
    taken, _ = choose(front, toy.space.target, toy.space.share, 0.0)
    assert far and taken.plan not in far


@pytest.mark.parametrize("helps", [True, False])
def test_smoea_says_where_its_evolution_added_nothing(helps: bool) -> None:
    """A closed form is the best where errors are as low for no other plan; else nothing is said."""
    toy = ToySpace.make(1, Target("macs", 0.5)).with_branches(0.01)
    forms, told = {*closed_forms(toy.space)}, list[Told]()

    def evaluate(ask: Ask) -> list[Score]:
        return [Score(toy.error(p) + (1.0 if (p in forms) is helps else 0.0)) for p in ask.plans]

    search = Smoea(population=10, generations=3).search(toy.space, np.random.default_rng(1))
    drive(search, evaluate, Journal(None, "n"), tell=told.append)
    notes = [note for one in told for note in one.notes]
    assert bool(notes) is not helps and all("--method obs" in note for note in notes)


@pytest.mark.parametrize("kind", ["macs", "latency"])
def test_smoeas_front_is_not_behind_the_closed_forms_where_branches_may_go(kind: str) -> None:
    """What was scored on few images, or recovered worse, does not hide them; each of its points was judged in earnest."""
    toy, rng = ToySpace.make(0, Target(kind, 0.6)).with_branches(0.01), np.random.default_rng(0)

    front = run(Smoea(population=10, generations=3), toy, 0, misleading(toy, rng))
    plans = closed_forms_elsewhere(toy.space, Smoea().spread)
    shares = [toy.space.share(p) for p in plans]
    assert min(shares) < 0.6 < max(shares) and len(plans) > 4 and any(p.branches for p in plans)
    for plan, share in zip(plans, shares, strict=True):
        assert min(p.error for p in front if toy.space.share(p.plan) <= share) <= toy.error(plan)


def test_every_method_is_under_the_contract() -> None:
    import test_auto
    import test_bicnn
    import test_csgd_clusters
    import test_global_ranking
    import test_obs

    from compress.search.methods import METHODS

    assert test_auto and test_bicnn and test_csgd_clusters and test_obs and test_global_ranking
    tested = {type(cls().searcher()) for cls in SearcherContract.__subclasses__()}
    assert {m.searcher for m in METHODS.values()} <= tested


def test_smoea_beats_uniform_on_the_toy() -> None:
    better = 0
    for seed in range(5):
        toy = ToySpace.make(seed)
        front = run(Smoea(population=20, generations=15), toy, seed)
        mine = min(toy.error(p.plan) for p in front if toy.space.share(p.plan) <= toy.space.target.value)
        uniform = min(toy.error(p.plan) for p in run(Uniform(), toy, seed))
        better += mine < uniform
    assert better == 5


@pytest.mark.parametrize("round_to", [1, 8, 32])
@pytest.mark.parametrize("target", [0.3, 0.5, 0.8])
def test_the_controller_hands_out_the_whole_target_and_no_more(target: float, round_to: int) -> None:
    """What a stage gets leaves the later ones enough to cut; what is left at the end goes to the last one to the full."""
    space = ToySpace.make(target=Target("macs", target), round_to=round_to).space
    first = controller(space, 0, Plan())
    assert target <= first <= 1.0
    spent = even_widths(replace(space, stages=space.stages[:1]), first)
    assert controller(space, 1, plan_of(space, spent)) == target


@pytest.mark.parametrize("size", [1, 8, 15, 16, 17, 24, 60, 64])
def test_allowed_widths(size: int) -> None:
    widths = allowed(size, 8)
    assert widths[-1] == size and 0 not in widths
    assert all(w % 8 == 0 or w == size or size < 16 for w in widths)
    for width in np.linspace(0, size, 23):
        got = nearest(width, size, 8)
        assert got in widths and all(abs(got - width) <= abs(w - width) for w in widths)


@pytest.mark.parametrize("name", ["residual", "concat-flatten", "option-a", "shared"])
@pytest.mark.parametrize("kind", ["macs", "params", "latency"])
def test_what_widths_cost_does_not_depend_on_the_channels_kept(name: str, kind: str) -> None:
    """A count needs no statistics: any channels of an orbit cost the same."""
    topology = traced(name)[1]
    cost = CostModel(topology, Target(kind, 0.5), toy_table(topology))
    groups = tuple(g.id for g in topology.groups)
    rng = np.random.default_rng(0)
    drawn = ChannelStatistics(importance={"l1": {g.id: rng.random(g.size) for g in topology.groups}})
    space = Space(cost=cost, stages=(Stage(name="all", groups=groups, fraction=1.0),), statistics=drawn, budget=0, round_to=2)
    for ratio in np.linspace(0, 1, 9).tolist():
        assert share_at(cost, groups, ratio, 2) == space.share(plan_of(space, scaled(space, ratio)))


def test_reachable_is_a_lower_bound() -> None:
    toy = ToySpace.make()
    least = reachable(toy.space.cost, toy.space.groups, toy.space.round_to)
    assert all(toy.space.share(p.plan) >= least for p in run(Smoea(population=12, generations=4), toy))


def test_knee_and_non_dominated() -> None:
    def point(macs: int, error: float) -> Point:
        return Point(Plan(), error, Cost(macs, 1), Fidelity.FULL)

    points = [point(10, 0.9), point(20, 0.2), point(30, 0.18), point(40, 0.17), point(35, 0.5), point(5, float("nan"))]
    front = non_dominated(points)
    assert [p.cost.macs for p in front] == [10, 20, 30, 40]
    assert front[knee(front)].cost.macs == 20
    assert knee(front[:1]) == 0 and knee(front[1:3]) == 1, "between two points there is no knee: the more accurate one"
    above = [point(10, 0.9), point(20, 0.85), point(30, 0.1)]
    assert knee(non_dominated(above)) == 2, "nor where all points lie above the line"


def test_a_torn_journal_line_is_forgotten(tmp_path) -> None:
    toy = ToySpace.make()
    path = tmp_path / "journal.jsonl"
    whole = drive(Uniform().search(toy.space, np.random.default_rng(0)), toy.evaluate, Journal(path, "x"))
    data = path.read_bytes()
    for cut in (1, 7, len(data) // 2, len(data) - 3):
        path.write_bytes(data[:cut])
        again = drive(Uniform().search(toy.space, np.random.default_rng(0)), toy.evaluate, Journal(path, "x"))
        assert again == whole
        assert path.read_bytes().count(b"\n") == data.count(b"\n")


@pytest.mark.parametrize("seconds", ["NaN", "Infinity", "-1", "1e300", '"long"', "true"])
def test_a_journal_cannot_make_time_up(seconds: str, tmp_path) -> None:
    """Lines without a checksum are those of older versions; what they say of time has to be a time."""
    toy, path = ToySpace.make(), tmp_path / "journal.jsonl"
    drive(Uniform().search(toy.space, np.random.default_rng(0)), toy.evaluate, Journal(path, "x"))
    key = next(iter(Journal(path, "x").scores))
    path.write_text(f'{{"key": "{key}", "error": 0.0, "seconds": {seconds}}}\n{{"key": "old", "error": 0.5}}\n')
    read = Journal(path, "x")
    assert read.scores == {"old": Score(0.5)} and read.earlier == {"old": 0.0}


@pytest.mark.parametrize("ends", ["1", "[0.1]", "[0.1, true]", '["a", "b"]', "[0.1, 0.2, 0.3]"])
def test_an_interval_is_two_numbers(tmp_path, ends: str) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(f'{{"key": "a", "error": 0.5, "interval": {ends}}}\n{{"key": "b", "error": 0.5, "interval": [0.4, 0.6]}}\n')
    assert Journal(path, "x").scores == {"b": Score(0.5, (0.4, 0.6))}


def test_another_context_is_another_score(tmp_path) -> None:
    toy = ToySpace.make()
    path = tmp_path / "journal.jsonl"
    asked = []

    def evaluate(ask):
        asked.append(len(ask.plans))
        return toy.evaluate(ask)

    for context in ("a", "b", "a"):
        drive(Uniform().search(toy.space, np.random.default_rng(0)), evaluate, Journal(path, context))
    assert len(asked) == 2


def test_more_budget_is_no_worse() -> None:
    small = hypervolume(
        ToySpace.make(1, Target("max_drop", 0.2)), run(Smoea(generations=3), ToySpace.make(1, Target("max_drop", 0.2)))
    )
    large = hypervolume(
        ToySpace.make(1, Target("max_drop", 0.2)),
        run(Smoea(generations=20), ToySpace.make(1, Target("max_drop", 0.2), budget=400_000)),
    )
    assert large >= small - 0.02


def test_same_front_in_another_process() -> None:
    code = (
        "from compress.testing import *; from compress.search.smoea import Smoea; import sys;"
        "print([p.plan.digest for p in run(Smoea(population=12, generations=4), ToySpace.make(), 5)]);"
        "assert 'torch' not in sys.modules"
    )
    runs = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(runs) == 1 and runs.pop().startswith("['")
