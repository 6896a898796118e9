"""Plans of a request on real Ray clusters of two nodes: the scores of one process, whoever dies on the way. `make ray`."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from support.ray_nodes import STORE, NeedsFile, descendants, free_port, small_node, two_nodes
from support.spread_scores import Failing, Hashing, Recipe, request, scores_of
from support.worker_runs import BASE, left_in, small

from compress.core import PhaseDone, Warned
from compress.data import Data
from compress.errors import ConfigError, WorkerError
from compress.networks import Network, network_of
from compress.pipeline import decide, make_job
from compress.workers import RayActors, RayWanted, ScoresArrived, SpreadEvaluation

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("default")]
pytest.importorskip("ray", reason="make ray installs it")

SMALL = {"threads": 1, "memory": 200 << 20}


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def cluster(port: int) -> Iterator[Any]:
    with two_nodes(ray_client_server_port=port) as nodes:
        yield nodes


@pytest.fixture
def actors(cluster: Any) -> Iterator[RayActors]:
    found = RayActors(RayWanted(), **SMALL)
    yield found
    found.close()


def test_an_actor_on_each_node_answers_in_order_and_holds_its_evaluation(actors: RayActors) -> None:
    import ray

    assert actors.width == len(actors.there) == 2 and len({n["NodeID"] for n in ray.nodes() if n["Alive"]}) == 2
    assert os.getpid() not in {a.pid for a in actors.there}
    for count in (1, 2, 21):
        ask, heard = request(count), list[Any]()
        actors.load(Recipe(Hashing()))
        actors.first_loaded()
        before = actors.moved
        assert SpreadEvaluation(actors, heard.append)(ask) == scores_of(ask, ask.plans[0])
        assert heard[-1].moved == actors.moved - before > 0
    pids = {a.pid for a in actors.there}
    assert SpreadEvaluation(actors)(request(4)) == scores_of(request(4), request(4).plans[0])
    assert {a.pid for a in actors.there} == pids


def test_ten_kills_of_actors_change_nothing(actors: RayActors) -> None:
    ask, kills, told = request(30), 0, list[Any]()
    wanted = scores_of(ask, ask.plans[0])
    actors.load(Recipe(Hashing(0.02)))
    evaluate = SpreadEvaluation(actors, told.append)

    def kill(event: object) -> None:
        nonlocal kills
        told.append(event)
        if kills < 10 and isinstance(event, ScoresArrived) and event.done in range(3, 29):
            there = actors.there
            os.kill(there[kills % len(there)].pid, signal.SIGKILL)
            kills += 1

    evaluate.listen = kill
    while kills < 10:
        assert evaluate(ask) == wanted
    assert evaluate(ask) == wanted and evaluate.lost == 10
    assert sum("go to another" in e.text for e in told if isinstance(e, Warned)) > 0


def test_a_killed_node_s_pending_plans_are_scored_by_the_other_and_a_new_node_is_taken(cluster: Any, actors: RayActors) -> None:
    """The node dies with what runs on it: Ray's own process there, and the actor in the middle of its plans."""
    ask, told = request(24), list[Any]()
    actors.load(Recipe(Hashing(0.3)))
    second = cluster.list_all_nodes()[1]

    def kill(event: object) -> None:
        told.append(event)
        if isinstance(event, ScoresArrived) and len([e for e in told if isinstance(e, ScoresArrived)]) == 1:
            cluster.remove_node(second, allow_graceful=False)

    assert SpreadEvaluation(actors, kill)(ask) == scores_of(ask, ask.plans[0])
    lost = [e.text for e in told if isinstance(e, Warned)]
    assert len(lost) == 1 and "go to another" in lost[0], lost
    assert len(actors.there) == 1
    cluster.add_node(**small_node())
    for _ in range(3):
        assert SpreadEvaluation(actors)(ask) == scores_of(ask, ask.plans[0])
    assert len(actors.there) == 2


def test_more_actors_than_there_is_room_for_join_later(cluster: Any) -> None:
    told = list[Any]()
    actors = RayActors(RayWanted(actors=3), **SMALL, listen=told.append)
    try:
        assert (actors.width, len(actors.there)) == (3, 2)
        assert ["has room for 2 of 3 actors" in e.text for e in told] == [True]
        actors.load(Recipe(Hashing(0.1)))
        assert SpreadEvaluation(actors)(request(9)) == scores_of(request(9), request(9).plans[0])
        third = cluster.add_node(**small_node())
        for _ in range(4):
            assert SpreadEvaluation(actors)(request(20)) == scores_of(request(20), request(20).plans[0])
        assert len(actors.there) == 3
        cluster.remove_node(third)
    finally:
        actors.close()


def test_a_plan_that_kills_every_actor_is_given_up(actors: RayActors) -> None:
    actors.load(Recipe(Hashing(deadly=0)))
    with pytest.raises(WorkerError, match=r"3 workers in a row were lost over the same plan: the last on .* died"):
        SpreadEvaluation(actors)(request(1))


@pytest.mark.parametrize(("when", "error", "shown"), [("loading", ConfigError, "said so"), ("scoring", MemoryError, "memory")])
def test_what_an_actor_raises_is_told(actors: RayActors, when: str, error: type[Exception], shown: str) -> None:
    actors.load(Failing(when, error))
    with pytest.raises((ConfigError, WorkerError), match=shown):
        SpreadEvaluation(actors)(request(2))


@pytest.mark.parametrize("method", ["smoea", "bicnn", "cluster"])
def test_journal_plan_and_front_are_those_of_one_process(
    cluster: Any, port: int, digits: tuple[Network, Data], tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one process, two, Ray's actors, one of which is killed in the middle, and of Ray's actors asked through its client."""
    monkeypatch.setattr("compress.pipeline.scoring.RayActors", Noted)
    left = {}
    for name, workers in {"one": 1, "two": 2, "ray": "ray", "client": f"ray://127.0.0.1:{port}/2"}.items():
        heard = list[Any]()
        decide(*digits, small(method, workers=workers), tmp_path / name, listen=partial(_hear, heard, name == "ray"))
        left[name] = left_in(tmp_path / name)
        assert ("workers" in [e.name for e in heard if isinstance(e, PhaseDone)]) == (workers != 1)
        assert not list((tmp_path / name).glob(".workers*"))
        assert (name == "ray") == any("go to another" in e.text for e in heard if isinstance(e, Warned))
    assert left["one"]["journal"].count('"key"') > 10
    assert all(other == left["one"] for other in left.values())


class Noted(RayActors):
    """Remembers which were made: a run keeps its own to itself."""

    made: ClassVar[list[RayActors]] = []

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.made.append(self)


def _hear(heard: list[Any], killing: bool, event: Any) -> None:
    """Kills an actor when the first part of a request arrives, and others are not given out yet."""
    heard.append(event)
    if killing and isinstance(event, ScoresArrived) and event.done <= event.asked // 3 and "killed" not in heard:
        heard.append("killed")
        os.kill(Noted.made[-1].there[0].pid, signal.SIGKILL)


def test_a_ray_that_the_caller_has_joined_stays_joined(cluster: Any) -> None:
    import ray

    ray.init(address="auto", log_to_driver=False)
    try:
        actors = RayActors(RayWanted(), **SMALL)
        actors.load(Recipe(Hashing()))
        assert SpreadEvaluation(actors)(request(5)) == scores_of(request(5), request(5).plans[0])
        actors.close()
        assert ray.is_initialized()
    finally:
        ray.shutdown()


def test_nobody_at_the_address_is_told_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"no Ray head can be reached at 127\.0\.0\.1:\d+: Connection refused") as told:
        RayActors(RayWanted(f"127.0.0.1:{free_port()}"), **SMALL)
    assert "ray start --head" in told.value.hint and time.monotonic() - began < 5


def test_a_cluster_without_room_is_told(cluster: Any) -> None:
    with pytest.raises(ConfigError, match=r"no node of the Ray cluster has 3 CPUs and 0\.2 GiB"):
        RayActors(RayWanted(), threads=3, memory=200 << 20)


def test_nobody_finds_a_place(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named actors are waited for: a cluster may start nodes for them."""
    monkeypatch.setenv("COMPRESS_RAY_SECONDS", "3")
    with pytest.raises(WorkerError, match=r"no actor found a place .*: each wants 3 CPUs and 0\.2 GiB"):
        RayActors(RayWanted(actors=1), threads=3, memory=200 << 20)


def test_nodes_unlike_each_other_are_refused() -> None:
    """The second one's torch is kept from the newest instructions, as an older processor would keep it."""
    if torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2"):
        pytest.skip("this machine has no newer instructions to keep a node from")
    with two_nodes({"ATEN_CPU_CAPABILITY": "avx2"}), pytest.raises(ConfigError, match=r"round otherwise: .*AVX"):
        RayActors(RayWanted(), **SMALL)


def test_nodes_that_are_all_unlike_this_machine_have_keys_of_their_own(digits: tuple[Network, Data], tmp_path: Path) -> None:
    """Scores of here and there are never mixed: the journal holds none twice, and none of the other's is taken."""
    if torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2"):
        pytest.skip("this machine has no newer instructions to keep nodes from")
    heard = list[Any]()
    with two_nodes(both={"ATEN_CPU_CAPABILITY": "avx2"}):
        for workers in (1, "ray"):
            folder = tmp_path / str(workers)
            decide(*digits, small("smoea", workers=workers), folder, listen=heard.append)
    assert any("compute with" in e.text and "AVX2" in e.text for e in heard if isinstance(e, Warned))
    here, there = ((tmp_path / name / "journal.jsonl").read_text().splitlines() for name in ("1", "ray"))
    keys = [{json.loads(line)["key"] for line in lines if '"key"' in line} for lines in (here, there)]
    assert len(keys[0]) > 10 and len(keys[1]) > 10 and not keys[0] & keys[1]


def test_a_node_without_the_module_is_told(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text(ONLY_HERE)
    monkeypatch.syspath_prepend(tmp_path)
    network = network_of(importlib.import_module("only_here").Net().eval(), example=torch.zeros(1, 3, 16, 16))
    with pytest.raises(ConfigError, match=r"the node .* cannot make what it is sent: No module named 'only_here'") as told:
        decide(network, None, make_job(flags={**BASE, "workers": "ray"}), tmp_path / "run")
    assert "--working-dir" in told.value.hint


def test_a_node_without_the_file_is_told(tmp_path: Path) -> None:
    network = network_of(NeedsFile().eval(), example=torch.zeros(1, 3, 16, 16))
    missing = tmp_path / "labels.txt"
    with two_nodes({"NEEDED_FILE": str(missing)}), pytest.raises(ConfigError, match=r"the node .* lacks a file: .*labels\.txt"):
        decide(network, None, make_job(flags={**BASE, "workers": "ray"}), tmp_path / "run")
    assert not list((tmp_path / "run").glob(".workers*"))


ONLY_HERE = """
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    def forward(self, x):
        return self.body(x)
"""
OTHER_VERSION = """
import sys, ray
ray.__version__ = "2.9.0"
from ray.scripts.scripts import main
sys.argv = ["ray", *sys.argv[1:]]
main()
"""


def test_another_ray_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another version, as the head says."""
    port, folder = free_port(), tempfile.mkdtemp(prefix="ray-")  # short: Ray's sockets lie below it
    start = ["start", "--head", f"--port={port}", "--num-cpus=1", "--include-dashboard=false", f"--object-store-memory={STORE}"]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [sys.executable, "-c", OTHER_VERSION, *start, "--block", f"--temp-dir={folder}"]
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    run = subprocess.Popen(command, **silent)
    try:
        found, ends = "nothing", time.monotonic() + 60
        while "Version mismatch" not in found and time.monotonic() < ends:  # it is not reached at first
            time.sleep(1)
            with pytest.raises(ConfigError) as told:
                RayActors(RayWanted(), **SMALL)
            found = str(told.value)
        assert "Ray cannot be joined: Version mismatch" in found and "2.9.0" in found
        assert "the same Ray and the same Python" in told.value.hint
    finally:
        for pid in (*descendants(run.pid), run.pid):
            os.kill(pid, signal.SIGKILL)
        run.wait(30)
        shutil.rmtree(folder, ignore_errors=True)
