"""Work for processes side by side: no torch, so that they start quickly."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.core import Listen, Warned
from compress.errors import SearchError
from compress.workers import alone


@dataclass(frozen=True)
class Deeds:
    """Recipe: an item is the name of what is to be done and a number; what was done stands in the folder."""

    folder: str

    def __call__(self) -> Callable[[Any, Listen], None]:
        return self.do

    def do(self, item: tuple[str, int], listen: Listen) -> None:
        name, number = item
        getattr(self, name)(number, listen)
        with (Path(self.folder) / f"{name}-{number}.done").open("a") as file:
            file.write(f"{os.getpid()}\n")

    def note(self, number: int, listen: Listen) -> None:
        listen(Warned(f"item {number}"))

    def fail(self, number: int, listen: Listen) -> None:
        raise SearchError(f"no candidate {number} could be scored", hint="give others")

    def die_once(self, number: int, listen: Listen) -> None:
        self._once(number)

    def die_alone(self, number: int, listen: Listen) -> None:
        with alone():
            self._once(number)

    def die(self, number: int, listen: Listen) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _once(self, number: int) -> None:
        marker = Path(self.folder) / f"died-{number}"
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def count(self, number: int, listen: Listen) -> None:
        """Ticks for as long as others clock."""
        ticks = []
        while len(list(Path(self.folder).glob("clocked-*"))) < 2:
            ticks.append(time.monotonic())
            time.sleep(0.002)
        (Path(self.folder) / f"ticks-{number}").write_text("\n".join(map(str, ticks)))

    def clock(self, number: int, listen: Listen) -> None:
        time.sleep(0.2)
        with alone():
            began = time.monotonic()
            time.sleep(0.5)
            ended = time.monotonic()
        (Path(self.folder) / f"clocked-{number}").write_text(f"{began} {ended}")

    def linger(self, number: int, listen: Listen) -> None:
        (Path(self.folder) / f"pid-{number}").write_text(str(os.getpid()))
        while len(list(Path(self.folder).glob("pid-*"))) < 2:  # else the other one is stopped before it begins
            time.sleep(0.01)
        with alone():
            time.sleep(60)


if __name__ == "__main__":
    from compress.workers import side_by_side

    for _ in side_by_side(Deeds(sys.argv[1]), [("linger", 0), ("linger", 1)], 2):
        pass
