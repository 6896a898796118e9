"""Costs follow from rates, and the page shows what the command makes of the committed results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
positive = st.floats(1e-3, 1e4)


@pytest.fixture(scope="module")
def cost() -> Any:
    sys.path.insert(0, str(ROOT))
    from benchmarks import cost

    sys.path.remove(str(ROOT))
    return cost


@given(positive, positive, st.floats(0.01, 1))
def test_a_million_requests_use_up_the_hours_that_are_paid_for(cost: Any, rate: float, price: float, busy: float) -> None:
    hours = cost.cost(rate, price, busy) / price
    assert hours * 3600 * busy * rate == pytest.approx(1e6)


def test_reports_and_loads_are_read(cost: Any) -> None:
    load = {
        "arms": [{"name": "base", "typical": 2.0}, {"name": "pruned", "typical": 6.0}],
        "ratios": {"pruned": {"ratio": 3.0, "low": 2.0, "high": 4.0}},
    }
    assert list(cost.rates(load, "")) == [cost.Rates("pruned", 2.0, 3.0, 2.0, 4.0)]
    clock = {"runtime": "ort-cpu", "batch": 4, "base_p50": 0.5, "speedup": 2.0, "low": 1.5, "high": 2.5}
    (found,) = cost.rates({"name": "net", "latency": [clock]}, "")
    assert found == cost.Rates("net, ort-cpu, batch 4", 8.0, 2.0, 1.5, 2.5)
    assert cost.row(found, 0.36, 0.5) == "| net, ort-cpu, batch 4 | 8.00 → 16.0 | 25.0 | **12.5** (10.0 to 16.7)"


def test_the_page_shows_the_committed_results(cost: Any) -> None:
    page = (ROOT / "docs" / "decide.md").read_text()
    files = [(cost.FOLDER / "results" / name, what, accuracy) for name, what, accuracy in cost.OURS]
    assert f"{cost.BEGIN}{cost.table(files, 0.05, 0.5)}{cost.END}" in page
