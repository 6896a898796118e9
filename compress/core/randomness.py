"""One seed, many named streams; and the single place that seeds torch globally and puts it back."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(seed: int, *path: str | int) -> int:
    """The seed of a named stream: the same in every process, unrelated to its neighbours.

    Args:
        seed: the one seed of a run, not negative.
        path: what the stream is for, e.g. ``("shuffle", epoch)``.

    Returns:
        An integer in [0, 2**63).
    """
    key = tuple(zlib.crc32(part.encode()) if isinstance(part, str) else part for part in path)
    state = np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)
    return int(state[0]) >> 1


@contextmanager
def seeded(seed: int) -> Iterator[Callable[[int], object]]:
    """Inside, torch's global generators start from ``seed``; afterwards they are what they were before.

    Yields:
        A function that seeds them again, so that a loop can make each step's noise depend on its position alone.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield torch.manual_seed
