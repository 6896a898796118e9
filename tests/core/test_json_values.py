"""What is written as JSON is JSON, and says the same."""

from __future__ import annotations

import json
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from compress.core.json_values import finite_json

NUMBERS = st.floats() | st.integers()
DATA = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(DATA)
def test_it_is_strict_json(data: Any) -> None:
    plain = finite_json(data)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain == finite_json(plain)


@given(st.floats())
def test_what_json_has_not_is_replaced_and_nothing_else(number: float) -> None:
    inside = {3: (number, [number])}
    shown = number if math.isfinite(number) else str(number)
    assert finite_json(inside, str) == {"3": [shown, [shown]]}
