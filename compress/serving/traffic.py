"""Requests that arrive when they arrive: an open loop, whose latencies count from the scheduled time of sending.

A closed loop, where a client waits for one answer before it asks again, measures a slow server at the few moments
when it happens to be free ("coordinated omission", Gil Tene). Here the times of sending are drawn beforehand, and a
request that must wait for a free connection has been waiting all the same.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.errors import CompressError, ConfigError

Times = NDArray[np.float64]
Send = Callable[[int], None]
"""Asks a server for request number i and returns when the answer is complete; raises CompressError where there is none."""
Connect = Callable[[], AbstractContextManager[Send]]
"""Opens one connection; each is used by one thread."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What became of the requests of one trial.

    Attributes:
        rate: requests a second that were scheduled.
        latencies: seconds from each scheduled time to its answer, in order; infinite where it failed or was not sent
            any more. Only as many as were decided.
        failures: what servers said, each once.
        scheduled: how many requests the trial would have had.
        lateness: median seconds between the scheduled time and the real one while connections were free: the client's own.
    """

    rate: float
    latencies: Times
    failures: tuple[str, ...]
    scheduled: int
    lateness: float

    def late(self, bound: float) -> int:
        """Requests slower than the bound."""
        return int((self.latencies > bound).sum())

    def keeps(self, quantile: float, bound: float) -> bool:
        """Whether that share of the whole trial was answered within the bound."""
        return len(self.latencies) == self.scheduled and self.late(bound) <= allowed(self.scheduled, quantile)


def allowed(count: int, quantile: float) -> int:
    """How many of so many requests may be late for a share to be in time: 10 of 1,000 for the 99th percentile."""
    return math.floor(count * (1 - quantile) + 1e-9)


def poisson(rate: float, count: int, rng: np.random.Generator) -> Times:
    """Seconds from the start at which requests are to be sent: independent arrivals, MLPerf's server scenario."""
    return np.asarray(np.cumsum(rng.exponential(1 / rate, size=count)), dtype=np.float64)


def offer(connect: Connect, schedule: Times, *, connections: int, bound: float = math.inf, quantile: float = 0.99) -> Traffic:
    """Send at the scheduled times.

    Args:
        connect: opens a connection; ``connections`` threads use one each.
        schedule: from :func:`poisson`.
        connections: most requests under way at once. Further ones wait, and their waiting counts.
        bound: seconds; once too many requests are beyond it for ``quantile``, the trial is lost and stops early.
        quantile: see ``bound``.

    Raises:
        CompressError: a connection cannot be opened.
        ConfigError: no connections.
    """
    if connections < 1:
        raise ConfigError(f"{connections} connections, 1 or more is wanted", hint="leave --connections at its default")
    with ExitStack() as stack:
        sends = [stack.enter_context(connect()) for _ in range(connections)]
        state = _Trial(schedule, bound, allowed(len(schedule), quantile))
        threads = [threading.Thread(target=state.work, args=(send,), daemon=True) for send in sends]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    decided = ~np.isnan(state.latencies)
    lateness = float(np.median(state.lateness)) if state.lateness else 0.0
    return Traffic(
        rate=len(schedule) / float(schedule[-1]),
        latencies=state.latencies[decided],
        failures=tuple(sorted(state.failures)),
        scheduled=len(schedule),
        lateness=lateness,
    )


class _Trial:
    """What the threads of one trial share."""

    def __init__(self, schedule: Times, bound: float, most_late: int) -> None:
        self.schedule, self.bound, self.most_late = schedule, bound, most_late
        self.latencies: Times = np.full(len(schedule), np.nan)
        self.lateness: list[float] = []
        self.failures: set[str] = set()
        self.lock, self.next, self.late = threading.Lock(), 0, 0
        self.started = time.perf_counter()

    @property
    def lost(self) -> bool:
        return self.late > self.most_late

    def work(self, send: Send) -> None:
        """One connection: take the next request, wait until it is due, send it."""
        while (index := self._take()) is not None:
            due = self.started + float(self.schedule[index])
            ahead = due - time.perf_counter()
            if ahead > 0:
                time.sleep(ahead)
                self.lateness.append(time.perf_counter() - due)
                if self.lost:
                    return
            failure = ""
            try:
                send(index)
            except CompressError as error:
                failure = error.message
            latency = math.inf if failure else time.perf_counter() - due
            with self.lock:
                self.latencies[index] = latency
                self.late += latency > self.bound
                if failure:
                    self.failures.add(failure)

    def _take(self) -> int | None:
        """The next request, or none: all are taken, or the trial is lost."""
        with self.lock:
            if self.next >= len(self.schedule) or self.lost:
                return None
            self.next += 1
            return self.next - 1


def highest(passes: Callable[[float], bool], start: float, *, step: float, least: float = 0.0, most: int = 40) -> float:
    """The highest rate that passes, on a geometric grid around a first guess; widened until one side passes and one fails.

    Args:
        passes: tries a rate; noisy near the answer, which is why a caller repeats the whole search.
        start: a rate near the answer; draw it with some noise, or every search tries the same few rates.
        step: ratio of neighbouring rates, above 1.
        least: rates below this are not tried: a trial takes the longer the slower it is.
        most: tries; the best that passed is returned then.

    Returns:
        The rate, or 0 where none passed.
    """
    tries, reach, low, high = 0, 4, 0.0, math.inf
    rate = start
    while tries < most and (low == 0.0 or high == math.inf):  # a bracket
        tries += 1
        if passes(rate):
            low, rate = rate, rate * step**reach
        elif rate <= least:
            return 0.0
        else:
            high, rate = rate, max(least, rate / step**reach)
        reach *= 2 if tries > 1 else 1
    while low > 0.0 and tries < most and high / low > step * (1 + 1e-9):
        tries += 1
        middle = low * step ** max(1, round(math.log(high / low, step) / 2))
        if passes(middle):
            low = middle
        else:
            high = middle
    return low
