"""MACs against latency: the statistics on known numbers, and a real front made real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from compress_cli.app import app
from hypothesis import given
from hypothesis import strategies as st
from support.pages import Page, comparison
from typer.testing import CliRunner

from compress.core.cost import Cost
from compress.core.plan import Plan
from compress.errors import ConfigError
from compress.pipeline.front_latency import spread
from compress.report import store
from compress.report.candidates import FrontPoint
from compress.report.fronts import front_latency, slower_with_less, spearman, told
from compress.search.front import Fidelity, Point

DIGITS = Path(__file__).parents[2] / "models" / "checkpoints" / "digits-net.safetensors"


def front(*macs: int) -> tuple[Point, ...]:
    return tuple(Point(Plan(), 0.1, Cost(m, m), Fidelity.FULL) for m in macs)


@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=9, unique=True))
def test_rank_correlation_asks_for_the_order_only(values: list[float]) -> None:
    assert spearman(values, [v**3 for v in values]) == pytest.approx(1)
    assert spearman(values, [-v for v in values]) == pytest.approx(-1)
    assert spearman(values, [1.0] * len(values)) is None and spearman(values[:2], values[:2]) is None


@given(st.lists(st.tuples(st.floats(0.1, 1), st.floats(0.1, 2), st.floats(0, 0.2)), max_size=8))
def test_a_pair_is_told_only_where_the_intervals_are_apart(rows: list[tuple[float, float, float]]) -> None:
    points = [FrontPoint(i, macs, macs, mid, mid - half, mid + half) for i, (macs, mid, half) in enumerate(rows)]
    found = dict(slower_with_less(points))
    for p in points:
        beaten = [q for q in points if q.macs > p.macs and q.high < p.low]
        assert (p.index in found) == bool(beaten)
        if beaten:
            assert points[found[p.index]].latency == min(q.latency for q in beaten)


def test_shares_and_intervals_are_those_of_the_ratios() -> None:
    result = comparison({"base": 100e-6, "base again": 100e-6, "point 0": 50e-6, "point 4": 80e-6})
    found = front_latency(result, [(0, "point 0", 0.2, 0.3), (4, "point 4", 0.1, 0.5)])
    first, second = found.points
    assert first.latency == pytest.approx(0.5) and first.low < 0.5 < first.high
    assert (first.low, first.high) == pytest.approx((0.5 / 1.01, 0.5 / 0.99))
    assert second.index == 4 and found.slower == ((4, 0),) and found.by_macs is None
    assert "too few" in told(found)


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=20, unique=True), st.integers(2, 25), st.data())
def test_points_are_spread_with_the_ends_and_the_chosen_one(macs: list[int], points: int, data: st.DataObject) -> None:
    found = front(*sorted(macs))
    chosen = data.draw(st.integers(0, len(found) - 1))
    taken = spread(found, points, chosen)
    assert list(taken) == sorted(set(taken)) and {0, len(found) - 1, chosen} <= set(taken)
    assert len(taken) == max(min(points, len(found)), len({0, len(found) - 1, chosen}))
    assert spread(found, None, chosen) == tuple(range(len(found)))


@pytest.mark.parametrize(("size", "points"), [(1, None), (5, 1), (5, 0)])
def test_one_network_is_no_front(size: int, points: int | None) -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        spread(front(*range(1, size + 1)), points, 0)


@pytest.mark.parametrize(
    "arguments",
    [
        ["a.onnx", "--front"],
        [".", ".", "--front"],
        [".", "--front", "--batch", "1,2"],
        [".", "--front", "--runtime", "cpu,cuda"],
    ],
)
def test_what_cannot_be_a_front_is_a_matter_of_usage(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["bench", *arguments, "--front"])
    assert result.exit_code == 2 and "--front" in result.stderr


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", str(tmp_path), "--front"])
    assert result.exit_code == 3 and "job.json cannot be read" in result.stderr


@pytest.mark.slow
def test_a_real_front(tmp_path: Path) -> None:
    run = tmp_path / "run"
    quick = ["--data", "digits", "--budget", "600", "--epochs", "0", "--latency-seconds", "1", "--exporter", "legacy"]
    assert CliRunner().invoke(app, ["prune", str(DIGITS), *quick, "--out", str(run), "-q"]).exit_code in (0, 6)
    result = CliRunner().invoke(app, ["bench", str(run), "--front", "--points", "3", "--seconds", "5", "--json"])
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    points = found["points"]
    held = json.loads((run / "front.json").read_text())["points"]
    assert 2 <= len(points) <= 3 and all(p["macs"] == pytest.approx(held[p["index"]]["macs_share"]) for p in points)
    assert all(0 < p["low"] <= p["latency"] <= p["high"] for p in points)
    report = store.read_report(run)
    assert report.front_latency is not None and len(report.front_latency.points) == len(points)
    raw = json.loads((run / "front-latency.json").read_text())["measurement"]
    assert len(raw["arms"]) == len(points) + 2 and not (run / "front").exists()
    assert "plot-front-latency" in Page((run / "report.html").read_text()).ids
