"""Arms of known speed, and settings that are soon done."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from compress.latency.protocol import Settings


def chain(depth: int) -> nn.Module:
    torch.manual_seed(0)
    middle = [layer for _ in range(depth) for layer in (nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())]
    return nn.Sequential(nn.Conv2d(3, 16, 3), *middle, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval()


@dataclass
class Spin:
    """A session that takes a known time: a loop on the CPU, or mere waiting."""

    seconds: float
    waits: bool = False
    calls: list[int] = field(default_factory=list)
    input_shape: tuple[int | None, ...] = (None, 3, 4, 4)
    input_dtype = np.dtype(np.float32)
    output_names = ("y",)
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    fallback: str = ""
    threads: str = "1"
    parity: str = ""
    answer: float = 0.0
    seen: list[bytes] = field(default_factory=list)

    @property
    def placement(self) -> dict[str, int]:
        return {}

    @property
    def metadata(self) -> dict[str, str]:
        return {"parity": self.parity} if self.parity else {}

    @property
    def options(self) -> dict[str, str]:
        return {"threads": self.threads}

    def run(self, array: np.ndarray) -> tuple[np.ndarray, ...]:
        self.seen.append(array.tobytes())
        self._work()
        return (np.full(3, self.answer),)

    def prepare(self, array: np.ndarray, transfer: str = "e2e") -> Callable[[], object]:
        return self._work

    def _work(self) -> None:
        self.calls.append(gc.isenabled())
        if self.waits:
            time.sleep(self.seconds)
            return
        end = time.thread_time() + self.seconds
        while time.thread_time() < end:
            pass


QUICK = Settings(budget_seconds=60, precision=100.0, min_rounds=12, loads=1)
