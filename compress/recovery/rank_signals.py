"""What the first of several processes tells the others outside of collectives: through torch's store, with a heartbeat.

A collective ends after its time-out, a search may take days: until there is something to train the others ask the store.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from compress.core import Ranks, made_by, this_process
from compress.errors import ConfigError, ProcessLost
from compress.recovery.data_parallel import connected, joined, patience

_BEAT_SECONDS, _ASK_SECONDS = 2.0, 0.2
_MEETINGS = itertools.count()
"""Every process counts alike: what was said in a meeting before is not heard again."""


@dataclass
class Signals:
    """One process's end of the talk; alone it says and hears nothing.

    Attributes:
        place: which process this is.
        store: torch's, which all of them reach; None where there is one process.
        meeting: which one it is of this process; what is said in it is for nobody else.
        told: how many messages went by.
    """

    place: Ranks
    store: Any = None
    meeting: int = 0
    told: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    @property
    def first(self) -> bool:
        """Whether this process speaks, and the others listen."""
        return self.place.first

    def tell(self, message: Mapping[str, Any]) -> None:
        """Tells the others; nobody waits."""
        if self.store is not None:
            with connected():
                self.store.set(self._key(f"said/{self.told}"), json.dumps(dict(message)))
            self.told += 1

    def next(self) -> dict[str, Any]:
        """What the first process tells next, however long that takes while its heart beats.

        Raises:
            ProcessLost: it is silent for too long, or its connection broke.
        """
        key, limit = self._key(f"said/{self.told}"), patience()
        beat, heard = b"", time.monotonic()
        with connected():
            while not self.store.check([key]):
                now = self.store.get(self._beat(0)) if self.store.check([self._beat(0)]) else b""
                if now != beat:
                    beat, heard = now, time.monotonic()
                if time.monotonic() - heard > limit:
                    raise ProcessLost(f"the first process has been silent for {limit:g} seconds")
                time.sleep(_ASK_SECONDS)
            self.told += 1
            found: dict[str, Any] = json.loads(self.store.get(key))
        return found

    def start(self) -> None:
        """A training begins: the first process says so, the others wait until it does.

        Raises:
            ProcessLost: the first process ended without one.
        """
        if self.first:
            self.tell({"train": "now"})
        elif "train" not in self.next():
            raise ProcessLost("the first process ended before the training, and has said why")

    def compare(self, facts: Mapping[str, str]) -> None:
        """All processes have to have equal facts; the first one says what differs.

        Raises:
            ConfigError: in the first process: what differs, and where.
            ProcessLost: in the others; or a process does not come.
        """
        with connected():
            self.store.set(self._key(f"facts/{self.place.rank}"), json.dumps(dict(facts)))
            if not self.first:
                return
            limit, begun = patience(), time.monotonic()
            for rank in range(1, self.place.world):
                key = self._key(f"facts/{rank}")
                while not self.store.check([key]):
                    if time.monotonic() - begun > limit:
                        raise ProcessLost(f"process {rank} of {self.place.world} has not come within {limit:g} seconds")
                    time.sleep(_ASK_SECONDS)
                theirs = json.loads(self.store.get(key))
                for name in sorted({*facts, *theirs}):
                    if facts.get(name) != theirs.get(name):
                        raise ConfigError(
                            f"the processes do not agree: {name} is {str(facts.get(name))[:80]} in process 0 and "
                            f"{str(theirs.get(name))[:80]} in process {rank}",
                            hint="give all of them the same command, files and versions, on every machine",
                        )

    def beat(self) -> None:
        """Lets the heart beat until :meth:`end`."""
        threading.Thread(target=self._beats, daemon=True, name="compress heartbeat").start()

    def end(self) -> None:
        """Stops it."""
        self._ended.set()

    def _beats(self) -> None:
        number = 0
        while not self._ended.wait(_BEAT_SECONDS if number else 0.0):
            number += 1
            try:
                self.store.set(self._beat(self.place.rank), str(number))
            except (RuntimeError, ValueError, OSError):
                return  # the others are gone: whoever needs them will say so

    def _beat(self, rank: int) -> str:
        return self._key(f"beat/{rank}")

    def _key(self, name: str) -> str:
        return f"compress/{self.meeting}/{name}"


@contextmanager
def meeting(facts: Mapping[str, str]) -> Iterator[Signals]:
    """The processes of a launcher meet, compare what they are given, and talk; the others hear how the first one ends.

    Args:
        facts: what has to be equal in all of them, by name; versions of torch and of this library are compared besides.

    Raises:
        ConfigError: they are given different things, or the environment names no process.
        ProcessLost: a process does not come.
    """
    place = this_process()
    if place.alone:
        yield Signals(place=place)
        return
    device = joined().device.type
    store = torch.distributed.distributed_c10d._get_default_store()
    signals = Signals(place=place, store=store, meeting=next(_MEETINGS))
    signals.beat()
    library = made_by()
    ended = "failed"
    try:
        signals.compare({"torch": torch.__version__, "compress": library.version + library.commit, "device": device, **facts})
        yield signals
        ended = "done"
    finally:
        if place.first:
            signals.tell({"ended": ended})
        signals.end()
