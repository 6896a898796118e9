"""One seed, many named streams."""

from __future__ import annotations

import zlib

import numpy as np


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
