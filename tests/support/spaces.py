"""Search spaces that know something else of their channels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from compress.search.space import Space


def knowing(space: Space, **statistics: Any) -> Space:
    """The space with some of its statistics replaced."""
    return replace(space, statistics=replace(space.statistics, **statistics))
