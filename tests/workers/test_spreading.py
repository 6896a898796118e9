"""Plans of a request on several processes: the scores of one, whoever dies on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.spread_scores import Failing, Foreign, Hashing, Imported, Recipe, request, scores_of

from compress.core import Warned
from compress.errors import ConfigError, WorkerError
from compress.search import Ask
from compress.workers import Answered, Arrived, Lost, RequestPart, ScoresArrived, SpreadEvaluation, WorkerProcesses


class InTurn:
    """A transport without processes: the worker that was asked last answers first, and some are lost."""

    def __init__(self, width: int, losses: set[int]) -> None:
        self.width, self.losses, self.given = width, losses, 0
        self.waiting: list[tuple[int, RequestPart, bool]] = []
        self.closed, self.moved = False, 0

    def load(self, recipe: object) -> None: ...

    def ready(self, worker: int) -> bool:
        return True

    def give(self, worker: int, part: RequestPart) -> None:
        assert worker not in [w for w, *_ in self.waiting]
        self.waiting.append((worker, part, self.given in self.losses))
        self.given += 1
        self.moved += len(part.ask.plans)

    def wait(self) -> Answered | Lost:
        worker, part, lost = self.waiting.pop()
        return Lost(worker, "is lost") if lost else Answered(worker, tuple(scores_of(part.ask, part.lead)))

    def replace(self, worker: int) -> None: ...

    def close(self) -> None:
        self.closed = True


class Arriving(InTurn):
    """Workers that come one by one, as actors do that look for a place; so do those in place of lost ones."""

    def __init__(self, width: int, losses: set[int]) -> None:
        super().__init__(width, losses)
        self.there, self.coming = set[int](), deque(range(width))

    def ready(self, worker: int) -> bool:
        return worker in self.there

    def give(self, worker: int, part: RequestPart) -> None:
        assert worker in self.there
        super().give(worker, part)

    def wait(self) -> Answered | Lost | Arrived:
        if self.coming and (not self.waiting or self.given % 3 == 2):
            self.there.add(self.coming[0])
            return Arrived(self.coming.popleft())
        heard = super().wait()
        if isinstance(heard, Lost):
            self.there.remove(heard.worker)
        return heard

    def replace(self, worker: int) -> None:
        self.coming.append(worker)


@pytest.mark.parametrize("kind", [InTurn, Arriving])
@pytest.mark.parametrize("width", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("losses", [set(), {0}, {1, 2, 5}])
def test_scores_are_those_of_one_worker(kind: type[InTurn], width: int, losses: set[int]) -> None:
    """In any order of answers, whatever is lost, and whoever comes late."""
    for count in (1, 2, 5, 40):
        ask, heard = request(count), []
        transport = kind(width, losses)
        assert SpreadEvaluation(transport, heard.append)(ask) == scores_of(ask, ask.plans[0])
        arrived = [e for e in heard if isinstance(e, ScoresArrived)]
        assert (arrived[-1].done, arrived[-1].asked) == (count, count)
        assert arrived[-1].moved == transport.moved >= count
        assert len(arrived) + len([e for e in heard if isinstance(e, Warned)]) == transport.given


def test_three_losses_over_the_same_plans_are_enough() -> None:
    transport = InTurn(1, {0, 1, 2})
    with pytest.raises(WorkerError, match="3 workers in a row were lost over the same plan"):
        SpreadEvaluation(transport)(request(1))
    assert transport.closed


@pytest.fixture(scope="module")
def pair() -> Iterator[WorkerProcesses]:
    workers = WorkerProcesses(2)
    yield workers
    workers.close()


def scored(workers: WorkerProcesses, recipe: object, ask: Ask) -> list[float]:
    workers.load(recipe)
    return [s.error for s in SpreadEvaluation(workers)(ask)]


def test_processes_answer_in_order_and_survive_kills(pair: WorkerProcesses, tmp_path: Path) -> None:
    """One recipe after another in the same workers; one of them kills itself in the middle of a request."""
    ask = request(21)
    wanted = [s.error for s in scores_of(ask, ask.plans[0])]
    before = pair.pids
    assert scored(pair, Recipe(Hashing()), ask) == wanted and pair.pids == before
    assert scored(pair, Recipe(Hashing(deadly=7, once=str(tmp_path / "died"))), ask) == wanted
    assert (tmp_path / "died").exists()
    assert scored(pair, Recipe(Hashing()), ask) == wanted and len(set(before) - set(pair.pids)) == 1
    assert scored(pair, Recipe(Hashing(0.2)), request(2))
    os.kill(pair.pids[1], signal.SIGKILL)  # an idle one, while the other works; who asks next does not know of it
    for few in (request(1), request(2)):
        assert SpreadEvaluation(pair)(few) == scores_of(few, few.plans[0])
    assert scored(pair, Imported("torch"), request(4)) == [0.0] * 4  # what scores without torch does not wait for it


@pytest.mark.slow
def test_fifty_kills_from_outside_change_nothing(pair: WorkerProcesses) -> None:
    ask, kills = request(30), 0
    wanted = scores_of(ask, ask.plans[0])
    pair.load(Recipe(Hashing(0.01)))
    while kills < 50:

        def kill(event: object) -> None:
            nonlocal kills
            if isinstance(event, ScoresArrived) and event.done in range(9, 13):
                os.kill(pair.pids[kills % 2], signal.SIGKILL)
                kills += 1

        assert SpreadEvaluation(pair, kill)(ask) == wanted


def test_a_plan_that_kills_every_worker_is_given_up() -> None:
    workers = WorkerProcesses(1)
    workers.load(Recipe(Hashing(deadly=0)))
    with pytest.raises(WorkerError, match="killed by signal 9, as the system does when memory runs out") as told:
        SpreadEvaluation(workers)(request(1))
    assert "--workers 1" in told.value.hint


@pytest.mark.parametrize(
    ("when", "error", "shown"),
    [
        ("loading", ConfigError, "said so"),
        pytest.param("scoring", MemoryError, "not enough memory", marks=pytest.mark.slow),
        pytest.param("scoring", Foreign, "Foreign", marks=pytest.mark.slow),
    ],
)
def test_what_a_worker_raises_is_told(when: str, error: type[Exception], shown: str) -> None:
    workers = WorkerProcesses(1)
    workers.load(Failing(when, error))
    with pytest.raises((ConfigError, WorkerError), match=shown):
        SpreadEvaluation(workers)(request(2))


SCRIPT = """
import sys
from compress.workers import SpreadEvaluation, WorkerProcesses
from support.spread_scores import Hashing, Recipe, request
if __name__ == "__main__":
    workers = WorkerProcesses(2)
    workers.load(Recipe(Hashing(60.0)))
    workers.first_loaded()
    print(*workers.pids, flush=True)
    SpreadEvaluation(workers)(request(8))
"""
UNGUARDED = """
from compress.workers import WorkerProcesses, refuse_unguarded
from support.spread_scores import Hashing, Recipe
refuse_unguarded()
workers = WorkerProcesses(1)
workers.load(Recipe(Hashing()))
workers.first_loaded()
"""


def started(tmp_path: Path, script: str) -> subprocess.Popen[str]:
    file = tmp_path / "script.py"
    file.write_text(script)
    here = os.pathsep.join(p for p in sys.path if p)
    environment = {**os.environ, "PYTHONPATH": here}
    return subprocess.Popen(
        [sys.executable, str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_workers_end_with_their_parent(tmp_path: Path, number: signal.Signals) -> None:
    """Also in the middle of a long score."""
    with started(tmp_path, SCRIPT) as parent:
        assert parent.stdout is not None
        pids = [int(p) for p in parent.stdout.readline().split()]
        assert len(pids) == 2 and all(map(alive, pids))
        time.sleep(0.3)  # in the middle of a score
        os.kill(parent.pid, number)
        parent.wait(10)
        ends = time.monotonic() + 10
        while any(map(alive, pids)) and time.monotonic() < ends:
            time.sleep(0.05)
        assert not any(map(alive, pids))


def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    with started(tmp_path, UNGUARDED) as parent:
        _, said = parent.communicate(timeout=60)
    assert parent.returncode != 0 and 'if __name__ == "__main__":' in said
