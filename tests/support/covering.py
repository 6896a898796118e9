"""Dear laws over many networks: by default each law meets some of them, in turns, so that every network meets some laws."""

from __future__ import annotations

from collections.abc import Iterable

import pytest


def in_turns(names: Iterable[str], *, of: int, turn: int) -> pytest.MarkDecorator:
    """Parametrizes a law over ``name``.

    Args:
        names: all networks, in an order that stays.
        of: one network among so many is met by default; the law meets the others in the slow tests.
        turn: which one; laws over the same networks take different turns.
    """
    chosen = [n if i % of == turn % of else pytest.param(n, marks=pytest.mark.slow) for i, n in enumerate(names)]
    return pytest.mark.parametrize("name", chosen)
