"""How many workers this machine has room for."""

from __future__ import annotations

import math

from compress.errors import ConfigError

_PART = 0.9
"""Of what is free, how much workers may fill."""
_GIB = 2**30


def fitting(each: int, free: int | None) -> int | None:
    """How many workers of so many bytes fit into so many free ones; None where nothing is known."""
    return None if free is None else int(_PART * free // each)


def check_memory(workers: int, each: int, free: int | None) -> None:
    """Refuses more workers than there is memory for.

    Args:
        workers: that are wanted.
        each: bytes that one fills, at the most.
        free: bytes; None where nothing is known.

    Raises:
        ConfigError: they do not fit; the number that does is named.
    """
    most = fitting(each, free)
    if most is None or free is None or workers <= most:
        return
    fit = "not even one fits" if most == 0 else f"{most} fit"
    raise ConfigError(
        f"{workers} workers may fill {workers * each / _GIB:.1f} GiB of memory, {each / _GIB:.1f} GiB each; "
        f"{math.floor(10 * free / _GIB) / 10:.1f} GiB are free: {fit}",
        hint=f"--workers {max(1, most)}",
    )
