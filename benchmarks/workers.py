"""What workers gain and cost: two of one thread against one, on two networks; memory; and a simulated width.

    python benchmarks/workers.py [--parts resnet56 resnet50 width] [--rounds 3] [--work DIR] [--fresh]
        [--out benchmarks/results/workers.json]

*resnet56*, *resnet50*: SMOEA's search at a small budget on a network with random weights (32 and 224 px, random images),
everything prepared once and kept in the work folder. Each arm searches anew, in turn, round by round: in this process with one
thread (``here``) and with all (``threads``), on one worker (``one``) and on two (``two``) of one thread each. Reported are the
quotients of one round's seconds, their median and extremes; the seconds in which workers start and load are told apart. The
fronts of all arms but ``threads`` have to be the same. Memory is the largest proportional and resident set of a worker while it
works, beside the bound that a run reckons with.

*width*: the same generator, its scores drawn and slept for instead of computed, by workers that never import torch, over the
real pipes. Efficiency is what was slept over workers times wall time. A request of 41 plans cannot use more than 41 workers,
nor 32 fully: ``most`` is what the sizes of the requests allow, ``generator`` the seconds of the searcher itself, and
``beside_generator`` the efficiency, of what is possible, without these.

A round that is done is kept, and not repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from compress.core import Plan, capture, write_json
from compress.search import Ask, Fidelity, Front, Journal, Score, Search, Told, drive
from compress.workers import SpreadEvaluation, WorkerProcesses

if TYPE_CHECKING:
    from compress.evaluation import Evaluator
    from compress.search import Space

OUT = Path(__file__).parent / "results" / "workers.json"
SEARCHES = {"resnet56": (32, 128, 3_000), "resnet50": (224, 32, 300)}
"""Pixels, images, and image-forwards of the search."""
WIDTHS = (1, 2, 8, 32, 64)
REQUESTS = 12
"""That a simulated search is stopped after."""


@dataclass(frozen=True)
class Sleeper:
    """A worker's recipe and evaluation: draws a score from the plan, and sleeps.

    Attributes:
        seconds: a plan.
    """

    seconds: float

    def __call__(self) -> Callable[[Ask, Plan], Sequence[Score]]:
        return self.score

    def score(self, ask: Ask, lead: Plan) -> list[Score]:
        assert "torch" not in sys.modules
        time.sleep(self.seconds * len(ask.plans))
        return [Score(int(p.digest, 16) / 16**16) for p in ask.plans]


@dataclass(frozen=True)
class PreparedEvaluator:
    """A worker's recipe: the evaluator of a prepared search.

    Attributes:
        path: of :func:`prepared`'s file.
        threads: torch computes with.
    """

    path: str
    threads: int

    def __call__(self) -> Evaluator:
        from compress.evaluation import Stored

        evaluator: Evaluator = Stored(self.path, self.threads)()[0]
        return evaluator


# ---- a search that is prepared once -----------------------------------------------------------------------------------


def prepared(name: str, work: Path) -> tuple[Evaluator, Space]:
    """What the search stands on, from the work folder where it is there."""
    import torch
    import torchvision
    from compress_models import MODELS

    from compress.data import data_from
    from compress.evaluation import store
    from compress.networks import network_of
    from compress.pipeline import Run, make_job, prepare

    file = work / f"{name}.pt"
    size, images, budget = SEARCHES[name]
    if not file.exists():
        torch.manual_seed(0)
        model = MODELS[name]() if name in MODELS else torchvision.models.get_model(name, weights=None)
        shown = torch.randn(2 * images, 3, size, size)
        network = network_of(model.eval(), example=shown[:1], name=name, task="outputs")
        zeros = torch.zeros(len(shown), 1)
        data = data_from(validation=(shown[:images], zeros[:images]), calibration=(shown[images:], zeros[images:]))
        job = make_job(flags={"budget": budget, "calibration": images})
        with tempfile.TemporaryDirectory() as folder:
            found = prepare(Run(network=network, data=data, job=job, folder=Path(folder)))
        store(file, (found.evaluator, found.space), "the search")
    evaluator, space = torch.load(file, weights_only=False)
    return evaluator, space


def searcher(space: Space) -> Search:
    """SMOEA with three generations a stage, and no early end."""
    import numpy as np

    from compress.search import METHODS

    return METHODS["smoea"].make(generations=3, stop_after=0.0).search(space, np.random.default_rng(0))


def digest(front: Front) -> str:
    """Of a front: plans and errors."""
    text = json.dumps([[p.plan.to_json(), p.error] for p in front], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def sampled(pids: Sequence[int]) -> Iterator[dict[str, int]]:
    """The largest proportional and resident set of any of these processes while the block runs, in MiB."""
    found, ended = {"pss": 0, "rss": 0}, threading.Event()

    def look() -> None:
        while not ended.wait(0.25):
            for pid in pids:
                try:
                    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                except OSError:
                    continue
                sizes = {
                    line.split(":")[0].lower(): int(line.split()[1]) >> 10
                    for line in lines
                    if line.split(":")[0] in ("Pss", "Rss")
                }
                for kind, size in sizes.items():
                    found[kind] = max(found[kind], size)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        ended.set()
        watcher.join()


def arm(name: str, network: str, work: Path) -> dict[str, Any]:
    """One search by one arm."""
    from compress.networks import computing_with

    evaluator, space = prepared(network, work)
    threads = (os.cpu_count() or 1) if name == "threads" else 1
    count = {"one": 1, "two": 2}.get(name, 0)
    began = time.perf_counter()
    workers = WorkerProcesses(count) if count else None
    if workers is not None:
        workers.load(PreparedEvaluator(str(work / f"{network}.pt"), threads))
        SpreadEvaluation(workers)(Ask(plans=(Plan(),) * 2 * count, fidelity=Fidelity.FULL, images=2))
    started = time.perf_counter() - began
    evaluate: Any = evaluator if workers is None else SpreadEvaluation(workers)
    pids = (os.getpid(),) if workers is None else workers.pids
    try:
        with computing_with(threads), sampled(pids) as memory:
            began, cpu = time.perf_counter(), time.process_time()
            front = drive(searcher(space), evaluate, Journal(None, network), price=evaluator.price, budget=space.budget)
            wall, own = time.perf_counter() - began, time.process_time() - cpu
    finally:
        if workers is not None:
            workers.close()
    return {
        "seconds": wall,
        "own_cpu": own,
        "start": started,
        "front": digest(front),
        "mib": memory,
        "load": os.getloadavg()[0],
    }


def searching(network: str, given: argparse.Namespace, kept: dict[str, Any]) -> None:
    """Rounds of all arms in turn."""
    from compress.networks import network_of
    from compress.pipeline.worker_choice import footprint

    evaluator, _ = prepared(network, given.work)
    size, images, budget = SEARCHES[network]
    import torch

    of = footprint(network_of(evaluator.model, example=torch.zeros(1, 3, size, size), task="outputs"))
    rows = kept.setdefault(network, {"budget": budget, "images": images, "pixels": size, "rounds": []})
    rows["bound_mib"] = of.worker_bytes(images) >> 20
    arms = ["here", "one", "two", "threads"]
    for number in range(len(rows["rounds"]), given.rounds):
        turn = arms if number % 2 == 0 else arms[::-1]
        found = {name: arm(name, network, given.work) for name in turn}
        alike = {name: row["front"] for name, row in found.items() if name != "threads"}
        assert len(set(alike.values())) == 1, alike
        rows["rounds"].append(found)
        rows["quotients"] = {
            "here / two": spread_of(rows["rounds"], "here", "two"),
            "one / two": spread_of(rows["rounds"], "one", "two"),
            "one / here": spread_of(rows["rounds"], "one", "here"),
            "threads / two": spread_of(rows["rounds"], "threads", "two"),
        }
        write_json(given.out, kept)
        print(network, number + 1, json.dumps(rows["quotients"]), flush=True)


def spread_of(rounds: Sequence[Any], above: str, below: str) -> dict[str, float]:
    """Least, median and largest quotient of two arms' seconds in one round."""
    found = [r[above]["seconds"] / r[below]["seconds"] for r in rounds]
    return {"least": min(found), "median": statistics.median(found), "most": max(found)}


# ---- a width that this machine does not have --------------------------------------------------------------------------


def shortened(search: Search, requests: int) -> Search:
    """The same search, ended after so many requests; its front is empty then."""
    scores: Any = None
    asked = 0
    while asked < requests:
        try:
            question = search.send(scores)
        except StopIteration:
            break
        asked += not isinstance(question, Told)
        scores = yield question
    return ()


def width(given: argparse.Namespace, kept: dict[str, Any]) -> None:
    """The same requests on more and more sleeping workers."""
    _, space = prepared("resnet56", given.work)
    rows = kept.setdefault("width", {"sleep": given.sleep, "requests": REQUESTS, "rows": {}})
    sizes: list[int] = []
    draw = Sleeper(0.0)
    began = time.perf_counter()

    def drawn(ask: Ask) -> list[Score]:
        sizes.append(len(ask.plans))
        return [Score(int(p.digest, 16) / 16**16) for p in ask.plans]

    drive(shortened(searcher(space), REQUESTS), drawn, Journal(None, "width"))
    rows["generator"] = time.perf_counter() - began
    rows["plans"] = sizes
    for count in WIDTHS:
        if str(count) in rows["rows"]:
            continue
        workers = WorkerProcesses(count)
        workers.load(draw)
        SpreadEvaluation(workers)(Ask(plans=(Plan(),) * 8 * count, fidelity=Fidelity.FULL))
        workers.load(Sleeper(given.sleep))
        began = time.perf_counter()
        drive(shortened(searcher(space), REQUESTS), SpreadEvaluation(workers), Journal(None, "width"))
        wall = time.perf_counter() - began
        workers.close()
        slept, rounds = given.sleep * sum(sizes), given.sleep * sum(math.ceil(n / count) for n in sizes)
        rows["rows"][str(count)] = {
            "wall": wall,
            "efficiency": slept / count / wall,
            "most": slept / count / rounds,
            "of_what_is_possible": rounds / wall,
            "beside_generator": rounds / max(wall - rows["generator"], 1e-9),
        }
        write_json(given.out, kept)
        print("width", count, json.dumps(rows["rows"][str(count)]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["resnet56", "resnet50", "width"], choices=[*SEARCHES, "width"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sleep", type=float, default=0.1, help="seconds a plan in the simulated width")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-workers"), help="prepared searches are kept here")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured of these parts")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    given.work.mkdir(parents=True, exist_ok=True)
    kept: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {}
    for part in given.parts:
        if given.fresh:
            kept.pop(part, None)
        kept["environment"] = capture(threads=1).to_json()
        if part == "width":
            width(given, kept)
        else:
            searching(part, given, kept)
    write_json(given.out, kept)


if __name__ == "__main__":
    main()
