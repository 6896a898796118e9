"""What binds a layer on a card at small batches: often not its work, but that the host hands it over piece by piece.

Pure functions on measured times.
"""

from __future__ import annotations

WAITS = 0.5
"""Of a layer's time: where the device works for less than this share, it waits for launches."""


def launch_bound(seconds: float, alone: float | None) -> bool:
    """Whether a layer's time follows its launches, and not its widths.

    Args:
        seconds: what it takes as the network runs, from its first kernel's turn to its last one's end.
        alone: what its kernels take when no launch stands between them; None where that was not measured.
    """
    return alone is not None and alone < WAITS * seconds


def said_of_launches(seconds: float, alone: float) -> str:
    """The same with numbers."""
    return f"{alone * 1e6:.1f} µs of work in {seconds * 1e6:.1f} µs"
