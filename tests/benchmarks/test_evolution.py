"""What SMOEA's front is worth, and C-SGD in steps: their tables say what was measured, and all of it runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from support.resumed import in_parts, tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def evolution() -> ModuleType:
    pytest.importorskip("torch_pruning")
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import evolution

    return evolution


def test_a_share_takes_the_most_accurate_point_within_it(evolution: ModuleType) -> None:
    points = [{"share": x, "error": e} for x, e in ((0.4, 0.5), (0.5, 0.1), (0.6, 0.2), (0.8, 0.05))]
    assert evolution.within(points, 0.3) is None
    assert [evolution.within(points, share)["error"] for share in (0.4, 0.5, 0.7, 1.0)] == [0.5, 0.1, 0.1, 0.05]


def test_differences_are_paired_with_the_closed_forms(evolution: ModuleType) -> None:
    plans = [{"branches": [name], "cuts": {}, "inputs": {}} for name in ("a", "b")]
    digests = [evolution.Plan.from_json(p).digest for p in plans]
    searched = [
        {"found_by": "x", "cpu_seconds": 10 * n, "points": [{"plan": p, "share": 0.4, "error": 0.1}]}
        for n, p in enumerate(plans, 1)
    ]
    held = {
        "plans": dict(zip(digests, ("1100" * 50, "1110" * 50), strict=True)),
        "obs": {"0": {f"{share:g}": searched[0] for share in evolution.shares_of(0.67)}},
        "smoea": {"0.5": {"0": searched[1]}},
    }
    obs, mine = evolution.table(held, 0.67).splitlines()[2:]
    assert obs.startswith("| `obs`, each by itself | 60 |") and obs.count(" 50.00 ") == len(evolution.shares_of(0.67))
    assert mine.startswith("| 0.5 | 20 | x (1) | 75.00 (+25.00, ")


@pytest.mark.slow
def test_the_front_from_end_to_end(evolution: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = tiny(tmp_path, "--seeds", "0", "--parts", "0.5", "--evolved", "0.5")
    assert "| part of the budget |" in in_parts(evolution.main, call, capsys)
    held = json.loads((tmp_path / "evolution-digits-net.json").read_text())
    assert set(held["obs"]["0"]) == {f"{share:g}" for share in evolution.shares_of(0.67)}
    assert held["smoea"]["0.5, 0.5 for the evolution"]["0"]["found_by"] and len(held["plans"]) > len(evolution.shares_of(0.67))


@pytest.mark.slow
def test_csgd_in_steps_from_end_to_end(evolution: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import csgd_steps

    told = in_parts(csgd_steps.main, tiny(tmp_path), capsys)
    assert told.count(" of the widths, ") == 3
    held = json.loads((tmp_path / "csgd-steps-digits-net.json").read_text())["steps"]
    assert held["13/16"]["macs"] > held["11/16"]["macs"] > held["10/16"]["macs"]
    assert all(step["test"]["final"] > 0.97 for step in held.values())
