"""Searches that end when they no longer pay: the hypervolume decides, and nothing but the scores decides about that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.covering import in_turns

from compress.search.base import Ask, Origin, Score, Told
from compress.search.bicnn.upper import BiCnn
from compress.search.cluster import Cluster
from compress.search.front import Fidelity
from compress.search.journal import Asked, Journal, drive
from compress.search.smoea import Smoea
from compress.search.stopping import GAIN, Stopping
from compress.testing import ToySpace

EVOLUTIONS = {
    "smoea": Smoea(population=12, generations=30),
    "bicnn": BiCnn(population=6, generations=30),
    "cluster": Cluster(population=6, generations=30, restarts=1),
}
STOPS = 0.1


def area(points: np.ndarray[Any, Any]) -> float:
    """What a set of points dominates of the square below (1, 1), by sweeping over it."""
    found, ceiling = 0.0, 1.0
    for x, y in sorted(points.tolist()):
        if x < 1 and y < ceiling:
            found, ceiling = found + (1 - x) * (ceiling - y), y
    return found


@given(st.integers(0, 999), st.integers(4, 12), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_it_ends_where_the_hypervolume_has_stopped_to_grow(seed: int, generations: int, share: float) -> None:
    """Against an area computed another way; a generation without any finite score changes nothing."""
    rng = np.random.default_rng(seed)
    watch, every = Stopping(share, generations), np.empty((0, 2))
    low = high = np.zeros(2)
    areas: list[float] = []
    for number in range(generations):
        rows = rng.random((5, 2)) * rng.choice([1.0, 0.3])
        rows[0] = np.nan
        every = np.vstack([every, rows[1:]])
        if number == 0:
            low, high = every.min(0), every.max(0)
        areas.append(area((every - low) / (high - low)))
        ended = watch.settled(rows)
        assert watch.reached[-1] == pytest.approx(areas[-1])
        patience = max(3, int(np.ceil(share * generations)))
        waited = number >= patience and number + 1 < generations
        assert ended == (share > 0 and waited and areas[-1] - areas[-1 - patience] < GAIN * areas[-1])
    assert watch.reached == sorted(watch.reached)


def followed(
    name: str, stop_after: float, journal: Journal, refuse: bool = False
) -> tuple[Any, list[Asked], list[Told], list[Ask]]:
    """A search on the toy to its end: its front, its requests, and what it told."""
    toy = ToySpace.make(budget=40_000)
    toy = replace(toy, space=replace(toy.space, stop_after=stop_after))
    asked, told, fresh = list[Asked](), list[Told](), list[Ask]()

    def evaluate(ask: Ask) -> Sequence[Score]:
        assert not refuse, "evaluated again"
        fresh.append(ask)
        return toy.evaluate(ask)

    search = EVOLUTIONS[name].search(toy.space, np.random.default_rng(0))
    front = drive(search, evaluate, journal, price=toy.price, listen=asked.append, tell=told.append)
    return front, asked, told, fresh


@in_turns(EVOLUTIONS, of=3, turn=0)
def test_a_search_that_ends_early_says_so_and_is_replayed_alike(name: str, tmp_path) -> None:
    """Killed after any part of its journal it ends at the same place, with the same front, and evaluates the rest only."""
    whole, every, said, _ = followed(name, 0.0, Journal(None, "x"))
    path = tmp_path / "journal.jsonl"
    front, asked, told, fresh = followed(name, STOPS, Journal(path, "x"))
    ended = [t.ended for t in told if t.ended]
    assert ended and not any(t.ended for t in said) and "hypervolume" in ended[0]
    assert asked[-1].spent < every[-1].spent if name != "bicnn" else "of 31" in ended[0]
    best = [min(p.error for p in points if ToySpace.make().space.share(p.plan) <= 0.5) for points in (front, whole)]
    assert best[0] <= 1.1 * best[1]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: len(lines) // 2]) + lines[len(lines) // 2][:9])
    again, requests, _, rest = followed(name, STOPS, Journal(path, "x"))
    assert again == front and [(a.asked, a.best, a.spent) for a in requests] == [(a.asked, a.best, a.spent) for a in asked]
    assert 0 < sum(len(a.plans) for a in rest) < sum(len(a.plans) for a in fresh)
    assert sorted(path.read_bytes().splitlines()) != [] and followed(name, STOPS, Journal(path, "x"), refuse=True)[0] == front


@pytest.mark.parametrize("name", EVOLUTIONS)
def test_every_plan_of_the_end_has_an_origin(name: str) -> None:
    """What is scored on all images was told of before; a neighbour is one of something that was."""
    front, _, told, asked = followed(name, STOPS, Journal(None, "x"))
    origins = {plan: origin for t in told for plan, origin in t.origins.items()}
    judged = {p for a in asked if a.fidelity is Fidelity.FULL and not a.images for p in a.plans}
    assert judged <= set(origins) and {p.plan for p in front} <= set(origins)
    assert {Origin.CLOSED_FORM.neighbour, Origin.NEAR_CLOSED_FORM.neighbour} == {Origin.NEAR_CLOSED_FORM}
    assert {Origin.EVOLUTION.neighbour, Origin.NEAR_EVOLUTION.neighbour} == {Origin.NEAR_EVOLUTION}
