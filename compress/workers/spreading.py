"""Which plans go to which worker, and their scores in the order of the request."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from compress.core import Listen, Warned, ignore
from compress.errors import WorkerError
from compress.search import Ask, Score
from compress.workers.base import Arrived, Lost, RequestPart, Transport

ATTEMPTS = 3
"""How many workers may be lost over the same plans before the request is given up."""


@dataclass(frozen=True, slots=True)
class ScoresArrived:
    """Event: workers scored some plans of a request.

    Attributes:
        done: plans of the request with a score.
        asked: plans in it.
        workers: that share them.
        moved: bytes of the request's parts and answers so far.
    """

    done: int
    asked: int
    workers: int
    moved: int


class _Open:
    """Plans of a request that are not scored yet: those that nobody had, and what lost workers had."""

    def __init__(self, plans: int, width: int) -> None:
        self.plans, self.width = plans, width
        self.next = 0
        self.returned: deque[tuple[range, int]] = deque()

    def __bool__(self) -> bool:
        return bool(self.returned) or self.next < self.plans

    def take(self) -> tuple[range, int]:
        """Positions for one worker and how often they were lost; fewer towards the end, so that nobody is waited for long."""
        if self.returned:
            return self.returned.popleft()
        size = max(1, (self.plans - self.next) // (2 * self.width))
        taken = range(self.next, self.next + size)
        self.next = taken.stop
        return taken, 0


class SpreadEvaluation:
    """Scores a request with all workers of a transport: an ``Evaluate`` of ``compress.search.drive``.

    A plan's score does not depend on who computes it, nor on what else that worker was asked: every part names the plan that
    the whole request is led by. So the answer is that of one worker, for any number of them.

    Args:
        transport: the workers; a recipe is loaded.
        listen: receives :class:`ScoresArrived` and warnings of lost workers.
    """

    def __init__(self, transport: Transport, listen: Listen = ignore) -> None:
        self.transport = transport
        self.listen = listen
        self.gone: set[int] = set()
        """Workers that were lost and are not needed yet."""
        self.lost = 0
        """How many were lost so far."""

    def __call__(self, ask: Ask) -> list[Score]:
        """Scores every plan of a request, in its order.

        Raises:
            WorkerError: several workers in a row were lost over the same plans. Other errors are the evaluation's own. The
                workers are ended then.
        """
        try:
            return self._scores(ask)
        except BaseException:
            self.transport.close()
            raise

    def _scores(self, ask: Ask) -> list[Score]:
        left = _Open(len(ask.plans), self.transport.width)
        busy: dict[int, tuple[range, int]] = {}
        scores: dict[int, Score] = {}
        before = self.transport.moved
        while len(scores) < len(ask.plans):
            for worker in range(self.transport.width):
                if left and worker not in busy:
                    self._give(worker, ask, left, busy)
            heard = self.transport.wait()
            if isinstance(heard, Arrived):
                continue
            had = busy.pop(heard.worker, None)
            if isinstance(heard, Lost):
                self.gone.add(heard.worker)
                self.lost += 1
                if had is not None:
                    left.returned.append(self._again(had, heard.reason))
            elif heard.error is not None:
                raise heard.error
            elif had is not None:
                scores.update(zip(had[0], heard.scores, strict=True))
                moved = self.transport.moved - before
                self.listen(ScoresArrived(len(scores), len(ask.plans), self.transport.width, moved))
        return [scores[i] for i in range(len(ask.plans))]

    def _give(self, worker: int, ask: Ask, left: _Open, busy: dict[int, tuple[range, int]]) -> None:
        if worker in self.gone:
            self.transport.replace(worker)
            self.gone.remove(worker)
        if not self.transport.ready(worker):
            return
        busy[worker] = taken = left.take()
        plans = tuple(ask.plans[i] for i in taken[0])
        self.transport.give(worker, RequestPart(replace(ask, plans=plans), ask.plans[0]))

    def _again(self, had: tuple[range, int], reason: str) -> tuple[range, int]:
        """What a lost worker had, for another one.

        Raises:
            WorkerError: too many were lost over it.
        """
        plans, losses = had[0], had[1] + 1
        if losses >= ATTEMPTS:
            raise WorkerError(f"{losses} workers in a row were lost over the same {_plans(len(plans))}: the last {reason}")
        self.listen(Warned(f"a worker {reason}; its {_plans(len(plans))} go to another"))
        return plans, losses


def _plans(count: int) -> str:
    return "plan" if count == 1 else f"{count} plans"
