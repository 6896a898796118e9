"""How a width factor scales a layer."""

from __future__ import annotations


def scaled(channels: int, width: float) -> int:
    """Channels of a layer at a width factor: rounded, at least one."""
    return max(1, round(channels * width))
