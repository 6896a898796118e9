"""Results that are kept part by part, so that a command goes on, and several at a time are put together."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.core import write_json


class Part(Exception):
    """The time is up."""


@dataclass
class Results:
    """What is kept, and the time that is left.

    Attributes:
        path: of the file.
        end: no part is begun after it, by the monotonic clock.
        protocol: of what the parts were computed by; a file of another one is refused.
    """

    path: Path
    end: float
    protocol: Mapping[str, Any]

    def __post_init__(self) -> None:
        self.held: dict[str, Any] = {"protocol": dict(self.protocol)}
        if self.path.exists():
            self.held = self.read(self.path)

    def read(self, path: Path) -> dict[str, Any]:
        """A result of this protocol."""
        held: dict[str, Any] = json.loads(path.read_text())
        if held["protocol"] != self.protocol:
            sys.exit(f"{path} is of another protocol: {held['protocol']}, now it is {dict(self.protocol)}; remove it")
        return held

    def take(self, others: Sequence[Path]) -> None:
        """Takes over what other results of this protocol hold, and writes it."""
        for other in others:
            self.held = merged(self.held, self.read(other))
        if others:
            write_json(self.path, self.held)

    def part(self, path: Sequence[str], compute: Callable[[], Any]) -> Any:
        """What stands there, or is computed now and written at once.

        Raises:
            Part: no part is begun any more.
        """
        place = self.held
        for name in path[:-1]:
            place = place.setdefault(name, {})
        if path[-1] not in place:
            if time.monotonic() > self.end:
                raise Part
            print(" / ".join(path), flush=True)
            place[path[-1]] = compute()
            write_json(self.path, self.held)
        return place[path[-1]]


def merged(one: Any, other: Any) -> Any:
    """Two results of one protocol put together; a part, or a measurement of all, that both have is the first one's."""
    if isinstance(one, dict) and isinstance(other, dict) and "rounds" not in one:
        return {key: merged(one.get(key, other.get(key)), other.get(key, one.get(key))) for key in {**one, **other}}
    return one


def text_of(right: Sequence[bool]) -> str:
    """One letter an image, so that a result stays short."""
    return "".join("01"[int(x)] for x in right)


def bits(text: str) -> Any:
    """Which images are right, (images,)."""
    return np.array([letter == "1" for letter in text])
