"""Values that JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any


def finite_json(value: Any, instead: Callable[[float], Any] = lambda number: None) -> Any:
    """The same data with lists for tuples and text for keys, and without the numbers that JSON does not have.

    Args:
        value: nested mappings, lists, tuples, numbers and texts.
        instead: what stands for NaN and the infinities; null unless said otherwise.
    """
    if isinstance(value, Mapping):
        return {str(key): finite_json(item, instead) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_json(item, instead) for item in value]
    return instead(value) if isinstance(value, float) and not math.isfinite(value) else value
