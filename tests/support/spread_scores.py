"""Evaluations for workers that need no torch: a plan's score is a hash of the plan, and of the request's first one."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.core import Cut, Plan
from compress.core.topology import GroupId
from compress.search import Ask, Fidelity, Score


def plans(count: int) -> tuple[Plan, ...]:
    return tuple(Plan({GroupId("g"): Cut((i, i + 1))}) for i in range(count))


def request(count: int) -> Ask:
    return Ask(plans=plans(count), fidelity=Fidelity.FULL)


def scores_of(ask: Ask, lead: Plan) -> list[Score]:
    texts = [json.dumps([p.to_json(), lead.to_json()], sort_keys=True) for p in ask.plans]
    return [Score(int(hashlib.sha256(t.encode()).hexdigest()[:8], 16) / 2**32) for t in texts]


@dataclass(frozen=True)
class Hashing:
    """Sleeps so long a plan.

    Attributes:
        seconds: a plan.
        deadly: the index of a plan that kills its worker by SIGKILL.
        once: a file: with it, only the worker that makes it dies.
    """

    seconds: float = 0.0
    deadly: int = -1
    once: str = ""

    def __call__(self) -> Hashing:
        return self

    def score(self, ask: Ask, lead: Plan) -> Sequence[Score]:
        for plan in ask.plans:
            time.sleep(self.seconds)
            if plan.cuts and plan.cuts[GroupId("g")].keep[0] == self.deadly and self._dies():
                os.kill(os.getpid(), signal.SIGKILL)
        return scores_of(ask, lead)

    def _dies(self) -> bool:
        if not self.once:
            return True
        try:
            Path(self.once).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


@dataclass(frozen=True)
class Recipe:
    """Makes a :class:`Hashing` in the worker."""

    made: Hashing

    def __call__(self):
        return self.made.score


@dataclass(frozen=True)
class Foreign(Exception):
    """An error that does not survive pickling."""

    where: object = lambda: None


@dataclass(frozen=True)
class Failing:
    """A recipe, or an evaluation, that raises."""

    when: str
    error: type[Exception]

    def __call__(self):
        if self.when == "loading":
            raise self.error("said so")
        return self.fail

    def fail(self, ask: Ask, lead: Plan) -> Sequence[Score]:
        raise self.error("said so")


@dataclass(frozen=True)
class Imported:
    """Scores 1 where a module is loaded in the worker, else 0."""

    module: str

    def __call__(self):
        return self.score

    def score(self, ask: Ask, lead: Plan) -> Sequence[Score]:
        return [Score(float(self.module in sys.modules)) for _ in ask.plans]
