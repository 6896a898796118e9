"""The benchmark at equal latency: resumed part by part, its table says what was not met, and all of it runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.resumed import in_parts, tiny

ROOT = Path(__file__).parents[2]
ARMS = ["uniform l1", "Torch-Pruning, round_to 8, 1 blocks of each stage out", "PRACTISE's greedy blocks", "obs"]


@pytest.fixture(scope="module")
def equal_latency() -> ModuleType:
    pytest.importorskip("torch_pruning")
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import equal_latency

    return equal_latency


def test_a_part_is_computed_once_and_none_when_the_time_is_up(equal_latency: ModuleType, tmp_path: Path) -> None:
    file, asked = tmp_path / "r.json", []

    def compute() -> int:
        asked.append(1)
        return 7

    for _ in range(2):  # the second time it is read from the file
        results = equal_latency.Results(file, float("inf"), {"images": 1})
        assert results.part(("shares", "0.5", "x"), compute) == 7
    assert asked == [1]
    late = equal_latency.Results(file, 0.0, {"images": 1})
    assert late.part(("shares", "0.5", "x"), compute) == 7
    with pytest.raises(equal_latency.Part):
        late.part(("shares", "0.5", "y"), compute)
    with pytest.raises(SystemExit, match="another protocol"):
        equal_latency.Results(file, 0.0, {"images": 2})


def test_the_table_marks_what_is_not_as_fast_and_pairs_by_image(equal_latency: ModuleType) -> None:
    runs = {"Torch-Pruning, round_to 1": "1001" * 100, "obs": "1101" * 100}
    rows = {name: {"latency": x, "low": x, "high": x} for name, x in zip(runs, (0.503, 0.52), strict=True)}
    held: dict[str, Any] = {"protocol": {"macs": 100}}
    trained = {n: {"0": {"before": right, "after": right, "macs": 50}} for n, right in runs.items()}
    held["shares"] = {"0.5": {"in turn": {"rows": rows}, "runs": trained}}
    theirs, mine = equal_latency.table(held).splitlines()[2:]
    assert "not within" not in theirs and "not within 1 %" in mine
    assert "+25.00 (" in mine and theirs.endswith("|  |") and "50.00" in theirs and "75.00" in mine


def test_networks_of_another_result_are_trained_as_many_steps_more(equal_latency: ModuleType, tmp_path: Path) -> None:
    protocol = {"network": "n", "data": {"train": "t-200", "test": "s"}, "images": 200, "epochs": 1, "macs": 1, "tiny": False}
    found = {"obs": {"plan": {}, "trained": 0.0}, "smoea": {"plan": {}, "trained": 0.5}, "none": None}
    share = {"found": found, "in turn": {"rows": {}}, "runs": {"obs": {"0": {}}}}
    file = tmp_path / "r.json"
    file.write_text(json.dumps({"protocol": protocol, "shares": {"0.5": share}}))
    whole = {**protocol, "data": {"train": "t", "test": "s"}, "images": None, "epochs": 5}
    taken = equal_latency.networks_of(file, whole, 400)["shares"]["0.5"]
    assert "runs" not in taken and taken["in turn"] == {"rows": {}}, "trained by another protocol: never taken over"
    assert {name: how and how["trained"] for name, how in taken["found"].items()} == {"obs": 0.0, "smoea": 0.25, "none": None}
    for strange in ({"network": "m"}, {"data": {"train": "u-200", "test": "s"}}):
        with pytest.raises(SystemExit, match="same network and data"):
            equal_latency.networks_of(file, {**whole, **strange}, 400)


def test_results_of_several_commands_are_put_together(equal_latency: ModuleType, tmp_path: Path) -> None:
    files = [tmp_path / f"{n}.json" for n in range(3)]
    for number, file in enumerate(files):
        part = {f"arm {number}": {"0": number}, "arm": {f"{number}": 1}, "in turn": {"rounds": 9, "rows": {f"{number}": 1}}}
        file.write_text(json.dumps({"protocol": {"images": number // 2}, "runs": part}))
    results = equal_latency.Results(tmp_path / "all.json", float("inf"), {"images": 0})
    results.take(files[:2])
    assert json.loads(results.path.read_text()) == results.held
    measured = {"rounds": 9, "rows": {"0": 1}}  # one measurement's, never rows of two
    assert results.held["runs"] == {"arm 0": {"0": 0}, "arm 1": {"0": 1}, "arm": {"0": 1, "1": 1}} | {"in turn": measured}
    with pytest.raises(SystemExit, match="another protocol"):
        results.take(files[2:])


def test_other_conditions_have_their_own_columns(equal_latency: ModuleType) -> None:
    rows = [{"rows": {"obs": {"latency": x, "low": x - 0.01, "high": x + 0.01}}} for x in (0.5, 0.25)]
    held = {"shares": {"0.5": {"in turn": rows[0], "in turn, int8": rows[1]}}}
    (line,) = equal_latency.conditions_table(held).splitlines()[3:]
    assert line == "| 0.5 | obs | 0.500 (0.490 to 0.510) |  |  | 0.250 (0.240 to 0.260) |"
    del held["shares"]["0.5"]["in turn, int8"]
    assert equal_latency.conditions_table(held) == ""


@pytest.mark.slow
def test_tiny_from_end_to_end(equal_latency: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = tiny(tmp_path, "--seeds", "0", "--conditions", "batch 8", "int8", "--arms", *ARMS)
    told = in_parts(equal_latency.main, call, capsys)
    held = json.loads((tmp_path / "equal-latency-digits-net.json").read_text())
    share = held["shares"]["0.67"]
    there = [n for n in ARMS if share["found"][n] is not None]
    assert len(there) >= 3 and set(share["runs"]) == set(there) == set(share["in turn"]["rows"])
    for name in there:
        assert 0.1 < share["in turn"]["rows"][name]["latency"] < 1.2 and name in told
        assert all(0 < share[f"in turn, {c}"]["rows"][name]["latency"] < 2 for c in ("batch 8", "int8"))
        assert len(share["runs"][name]["0"]["after"]) == 359, "digits' test images"
