"""What is measured of channels before a search: no more than is looked at, once, and never something else from a file."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import compress
from compress.core import Progressed
from compress.networks import Network
from compress.pipeline import channel_statistics, make_job, statistics_store
from compress.pipeline.channel_statistics import WantedStatistics, wanted_statistics
from compress.pipeline.preparation import Prepared, prepare
from compress.pipeline.run import Run
from compress.pipeline.searching import search
from compress.search import METHODS

SMALL = {
    "smoea": {"population": 4, "generations": 2},
    "bicnn": {"population": 4, "generations": 2, "lower_generations": 2},
    "cluster": {"population": 4, "generations": 1, "restarts": 1},
}


class Residual(nn.Module):
    """Two blocks around a stream, so that there are groups of both kinds and branches that may go."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 16, 1))
            for _ in range(2)
        )
        self.head = nn.Linear(16, 5)
        self.first = torch.relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(self.stem(x))
        for block in self.blocks:
            x = (x + block(x)).relu()
        return self.head(x.mean((2, 3)))


@pytest.fixture(autouse=True)
def _shared_by_a_test_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics_store, "shared_folder", lambda: tmp_path / "shared")


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return compress.network_of(Residual().eval(), example=torch.zeros(1, 3, 8, 8))


def run_of(network: Network, folder: Path, method: str = "smoea", **flags: Any) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    small = {"value": 0.5, "budget": 2_000, "options": SMALL.get(method, {}), "calibration": 16}
    return Run(network=network, data=None, job=make_job(flags={"method": method, **small, **flags}), folder=folder)


def same(one: Prepared, other: Prepared) -> bool:
    """Whether two preparations know the very same of the channels."""
    ours, theirs = one.space.statistics, other.space.statistics
    pairs = [(ours.curves, theirs.curves), *((ours.importance[n], theirs.importance[n]) for n in ours.importance)]
    equal = all(a.keys() == b.keys() and all(np.array_equal(a[g], b[g]) for g in a) for a, b in pairs)
    return equal and list(ours.importance) == list(theirs.importance) and ours.branch_errors == theirs.branch_errors


class Looked(dict[str, Any]):
    """Importance that notes which criteria it is asked for."""

    def __init__(self, importance: Any) -> None:
        super().__init__(importance)
        self.at = set[str]()

    def __getitem__(self, name: str) -> Any:
        self.at.add(name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self.at.add(str(name))
        return super().__contains__(name)


def everything(job: Any, ranking: str) -> WantedStatistics:
    """What was computed before a method could say what it looks at."""
    moments = "obs" in (ranking, job.options.get("criterion")) or METHODS[job.method].moments
    return WantedStatistics(tuple(channel_statistics.CRITERIA), moments)


CASES = [(m, {}) for m in METHODS] + [
    ("cluster", {"options": {**SMALL["cluster"], "keep": "obs"}}),
    ("uniform", {"options": {"criterion": "fpgm"}}),
    ("global", {"options": {"criterion": "obs"}}),
    ("smoea", {"ranking": "taylor", "options": {**SMALL["smoea"], "seeds": ["bn-scale"]}}),
    ("obs", {"options": {"criterion": "l2"}}),
    ("bicnn", {"options": {**SMALL["bicnn"], "criterion": "taylor", "seeds": ["random"], "greedy": True}}),
]
CHEAP = (("smoea", {}), ("obs", {}), ("uniform", {}))


@pytest.mark.parametrize(("method", "flags"), [c if c in CHEAP else pytest.param(*c, marks=pytest.mark.slow) for c in CASES])
def test_computing_less_changes_no_plan(
    method: str, flags: dict[str, Any], network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The front of a search that knows only what it asked for is that of one that knows everything."""
    from compress.pipeline import preparation

    fronts, known = [], []
    for name, wanted in (("less", wanted_statistics), ("all", everything)):
        monkeypatch.setattr(preparation, "wanted_statistics", wanted)
        monkeypatch.setattr(statistics_store, "shared_folder", lambda name=name: tmp_path / f"shared-{name}")
        run = run_of(network, tmp_path / name, method, **flags)
        prepared = prepare(run)
        looked = Looked(prepared.space.statistics.importance)
        known.append(set(looked))
        told = replace(prepared.space.statistics, importance=looked)
        fronts.append(search(run, replace(prepared, space=replace(prepared.space, statistics=told))).front)
    assert fronts[0] == fronts[1] and looked.at <= known[0] <= known[1]
    if method == "uniform":
        assert known[0] == {"l1", *flags.get("options", {}).values()}


def counted(monkeypatch: pytest.MonkeyPatch, *names: str) -> dict[str, int]:
    """How often the dear computations are called from now on."""
    calls = dict.fromkeys(names, 0)

    def watching(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*given: Any, **named: Any) -> Any:
            calls[name] += 1
            return work(*given, **named)

        return counting

    for name in names:
        monkeypatch.setattr(channel_statistics, name, watching(name, getattr(channel_statistics, name)))
    return calls


DEAR = ("collect", "obs_curve", "importance")


def test_what_is_known_is_not_measured_again(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by the same run nor by another one of the same network; by one of other images or weights it is."""
    events: list[Any] = []
    first_run = run_of(network, tmp_path / "one")
    first_run.clock.listen = events.append
    first = prepare(first_run)
    every = [e for e in events if isinstance(e, Progressed)]
    traced, told = every[:5], every[5:]
    assert [(e.done, e.total) for e in traced] == [(number, 4) for number in range(5)]
    assert told[-1].done == pytest.approx(told[-1].total) and len({e.note for e in told}) > 5
    done = [e.done for e in told if e.total == told[0].total]
    assert done == sorted(done) and done[-1] == pytest.approx(told[0].total)
    calls = counted(monkeypatch, *DEAR)
    assert same(prepare(run_of(network, tmp_path / "one")), first) and same(prepare(run_of(network, tmp_path / "two")), first)
    assert prepare(run_of(network, tmp_path / "three", "cluster")).space.statistics.importance.keys() == {"l1"}
    assert calls == dict.fromkeys(DEAR, 0)
    prepare(run_of(network, tmp_path / "one", calibration=12, seed=1))
    assert all(calls.values())
    other = replace(network, model=copy.deepcopy(network.model))
    other.model.first = torch.tanh  # nothing that has a digest tells of it, but the outputs
    calls |= dict.fromkeys(DEAR, 0)
    prepare(run_of(other, tmp_path / "one"))
    assert all(calls.values())


def test_a_killed_measurement_goes_on(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after each record in turn, nothing that was measured before is measured again, and all is the same at the end."""
    whole = prepare(run_of(network, tmp_path / "whole"))
    monkeypatch.setattr(statistics_store, "shared_folder", lambda: tmp_path / "other")
    calls, kills, put = counted(monkeypatch, "collect", "obs_curve"), 0, statistics_store.StatisticsStore.put

    def dies(self: Any, *given: Any) -> None:
        put(self, *given)
        raise KeyboardInterrupt

    monkeypatch.setattr(statistics_store.StatisticsStore, "put", dies)
    while True:
        try:
            found = prepare(run_of(network, tmp_path / "run"))
            break
        except KeyboardInterrupt:
            kills += 1
            assert kills < 99
    assert same(found, whole) and kills > 10
    assert calls["obs_curve"] == len(whole.space.groups)


def test_a_damaged_record_is_measured_again(network: Network, tmp_path: Path) -> None:
    """Cut short, flipped, replaced by another record, by a link, a folder or a pipe: the statistics are what they were."""
    shared = tmp_path / "shared"
    first = prepare(run_of(network, tmp_path / "run"))
    files = sorted((tmp_path / "run" / "statistics").glob("*.safetensors"))
    assert len(files) > 10 and {f.name for f in shared.iterdir()} == {f.name for f in files}
    for number, file in enumerate(files):
        (shared / file.name).unlink()
        data = file.read_bytes()
        file.unlink()
        match number % 6:
            case 0:
                file.write_bytes(data[: len(data) // 2])
            case 1:
                file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
            case 2:
                file.write_bytes(files[number - 1].read_bytes() if number % 4 else b"")
            case 3:
                file.symlink_to("/dev/zero")
            case 4:
                file.mkdir()
            case 5:
                os.mkfifo(file)
    assert same(prepare(run_of(network, tmp_path / "run")), first)


def test_the_cache_of_a_user_is_bounded(tmp_path: Path) -> None:
    """What was used last stays."""
    for number in range(6):
        (tmp_path / f"{number}.safetensors").write_bytes(bytes(100))
        os.utime(tmp_path / f"{number}.safetensors", (number, number))
    statistics_store._trim(tmp_path, 250)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["4.safetensors", "5.safetensors"]


def test_moments_of_several_passes_are_those_of_one(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound on memory costs passes, and changes nothing."""
    first = prepare(run_of(network, tmp_path / "one"))
    monkeypatch.setattr(statistics_store, "shared_folder", lambda: tmp_path / "other")
    monkeypatch.setattr(channel_statistics, "_AT_ONCE", 1)
    calls = counted(monkeypatch, "collect")
    assert same(prepare(run_of(network, tmp_path / "two")), first) and calls["collect"] > 3
