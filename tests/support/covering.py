"""Dear laws over many cases: by default each law meets some of them, in turns, so that every case meets some laws."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def thinned(cases: Iterable[Any], *, of: int, turn: int = 0) -> list[Any]:
    """Cases for a parametrization, of which the law meets some by default and the others in the slow tests.

    Args:
        cases: all of them, in an order that stays; a tuple holds the values of several arguments.
        of: one among so many is met by default.
        turn: which one; laws over the same cases take different turns.
    """
    values = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*v, marks=() if i % of == turn % of else pytest.mark.slow) for i, v in enumerate(values)]


def in_turns(names: Iterable[str], *, of: int, turn: int) -> pytest.MarkDecorator:
    """Parametrizes a law over ``name`` with thinned cases."""
    return pytest.mark.parametrize("name", thinned(names, of=of, turn=turn))
