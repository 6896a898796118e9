"""Workers killed while they hold plans, again and again: whether a score is lost, or another one.

    python benchmarks/worker_kills.py [--parts processes actors nodes] [--kills 50 20 5]
        [--out benchmarks/results/worker_kills.json]

SMOEA's quick requests for the digits network are noted once, with their scores by this process. Then two workers of one thread
score them, over and over, until so many were killed: by SIGKILL, a random time (up to 20 ms) after one was given plans, so
that the kill comes while it waits for them, in the middle of a score, or just after it. *processes*: spawned ones. *actors*: of
a Ray cluster of two nodes on this machine, one CPU and 80 MiB of store each. *nodes*: the second of them as a whole, Ray's
process and with it the actor, the moment that this actor is given plans; another node is added afterwards. Plans that were lost
once in a request are spared: a third time in a row ends a run, as it should.

Counted are kills, those of them that took pending plans along, scores that came, and scores that were missing or differ in any
bit from this process's. *actors* and *nodes* want the extra ``ray``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from compress.core import Plan, Warned, capture, write_json
from compress.search import METHODS, Ask, Journal, Score, drive
from compress.workers import RayActors, RayWanted, RequestPart, SpreadEvaluation, WorkerProcesses

if TYPE_CHECKING:
    from compress.evaluation import Evaluator
    from compress.search import Space

OUT = Path(__file__).parent / "results" / "worker_kills.json"
PARTS = ("processes", "actors", "nodes")
QUICK = 0.5
"""CPU seconds that a request may take one process: kills come between parts, and there are to be many."""
LATEST = 0.02
"""Seconds after a part was given out."""
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}


@dataclass(frozen=True)
class Noted:
    """A request and its scores by one process."""

    ask: Ask
    scores: tuple[Score, ...]


def prepared() -> tuple[Evaluator, Space]:
    from compress_models import MODELS

    from compress.data import open_data
    from compress.networks import checkpoint, network_from
    from compress.pipeline import Run, make_job, prepare

    file = Path(__file__).parents[1] / "models" / "checkpoints" / "digits-net.safetensors"
    network = network_from(checkpoint.load(file, zoo=MODELS))
    data = open_data("digits", preprocessing=network.preprocessing, num_classes=10)
    job = make_job(flags={"budget": 20_000, "calibration": 128})
    with tempfile.TemporaryDirectory() as folder:
        found = prepare(Run(network=network, data=data, job=job, folder=Path(folder)))
    return found.evaluator, found.space


def noted(evaluator: Evaluator, space: Space) -> list[Noted]:
    """Every request of a search that has some plans to share."""
    import numpy as np

    found: list[Noted] = []

    def score(ask: Ask) -> Sequence[Score]:
        began = time.process_time()
        scores = tuple(evaluator(ask))
        if len(ask.plans) >= 6 and time.process_time() - began < QUICK:
            found.append(Noted(ask, scores))
        return scores

    search = METHODS["smoea"].make(population=24, generations=3).search(space, np.random.default_rng(0))
    drive(search, score, Journal(None, "kills"), price=evaluator.price, budget=space.budget)
    return found


class Deadly:
    """A transport that kills a worker some time after it was given plans; else the one that it was made of."""

    def __init__(self, inner: Any, kills: int) -> None:
        self.inner, self.left, self.chance = inner, kills, random.Random(0)
        self.given = Counter[tuple[Plan, ...]]()
        self.killed = set[int]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def give(self, worker: int, part: RequestPart) -> None:
        self.inner.give(worker, part)
        self.given[part.ask.plans] += 1
        if self.left and self.given[part.ask.plans] == 1 and self.chance.random() < 0.3 and self.kill(worker):
            self.left -= 1

    def kill(self, worker: int) -> bool:
        pid = self.inner.pids[worker]
        if not pid or pid in self.killed:  # nobody dies twice, though a signal to a process that nobody waited for arrives
            return False
        time.sleep(self.chance.uniform(0, LATEST))
        self.killed.add(pid)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True


class NodesDie(Deadly):
    """Kills the second node while its actor holds plans, and adds another one."""

    def __init__(self, inner: Any, kills: int, cluster: Any) -> None:
        super().__init__(inner, kills)
        self.cluster = cluster

    def kill(self, worker: int) -> bool:
        node = self.cluster.list_all_nodes()[-1]
        if not self.inner.pids[worker] or parent(self.inner.pids[worker]) != node.all_processes["raylet"][0].process.pid:
            return False
        self.cluster.remove_node(node, allow_graceful=False)
        self.cluster.add_node(**NODE)
        return True


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def killing(transport: Deadly, path: Path, requests: Sequence[Noted]) -> dict[str, Any]:
    from compress.evaluation import Stored

    pending: list[str] = []
    kills, began = transport.left, time.perf_counter()
    transport.load(Stored(str(path), 1))
    evaluate = SpreadEvaluation(transport, lambda e: pending.append(e.text) if isinstance(e, Warned) else None)
    asked = wrong = missing = 0
    try:
        while transport.left or evaluate.lost < kills:  # the last one is heard of when something is asked again
            one = requests[asked % len(requests)]
            transport.given.clear()
            scores = evaluate(one.ask)
            missing += len(one.scores) - len(scores)
            wrong += sum(a != b for a, b in zip(scores, one.scores, strict=False))
            asked += 1
    finally:
        transport.close()
    return {
        "kills": kills,
        "lost_workers": evaluate.lost,
        "with_pending_plans": len(pending),
        "requests": asked,
        "scores": sum(len(requests[i % len(requests)].scores) for i in range(asked)),
        "missing": missing,
        "wrong": wrong,
        "seconds": time.perf_counter() - began,
    }


@contextmanager
def two_nodes() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        cluster.add_node(**NODE)
        os.environ["RAY_ADDRESS"] = cluster.address
        yield cluster
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        cluster.shutdown()


def measured(part: str, kills: int, path: Path, requests: Sequence[Noted]) -> dict[str, Any]:
    if part == "processes":
        return killing(Deadly(WorkerProcesses(2), kills), path, requests)
    with two_nodes() as cluster:
        actors = RayActors(RayWanted(), threads=1, memory=500 << 20)
        return killing(Deadly(actors, kills) if part == "actors" else NodesDie(actors, kills, cluster), path, requests)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--parts", nargs="+", default=["processes", "actors", "nodes"], choices=["processes", "actors", "nodes"]
    )
    parser.add_argument("--kills", nargs="+", type=int, default=[50, 20, 5], help="of each part")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    from compress.evaluation import store
    from compress.networks import computing_with

    kept: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {}
    with tempfile.TemporaryDirectory() as folder, computing_with(1):
        evaluator, space = prepared()
        path = Path(folder) / "evaluator.pt"
        store(path, evaluator, "the evaluator")
        requests = noted(evaluator, space)
        for part, kills in zip(given.parts, given.kills, strict=True):
            kept[part] = measured(part, kills, path, requests)
            kept["environment"] = capture(threads=1).to_json()
            write_json(given.out, kept)
            print(part, json.dumps(kept[part]), flush=True)


if __name__ == "__main__":
    main()
