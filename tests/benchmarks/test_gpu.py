"""The GPU script: its clock, its tables, and all of it in its smallest form on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import gpu

    return gpu


def slowly(seconds: float) -> Iterator[dict[str, Any]]:
    yield {"planned": [f"step {n}" for n in range(100)]}
    for n in range(100):
        time.sleep(seconds)
        yield {"n": n}


def test_a_part_ends_in_time_and_says_what_it_left(gpu: ModuleType) -> None:
    part = gpu.Part("latency x", 0.5, lambda: slowly(0.1))
    found = gpu.done(part, time.monotonic() + 60)
    assert found["seconds"] <= 0.6 and 2 <= len(found["rows"]) <= 5
    assert found["stopped"].startswith(
        f"time: stopped after {len(found['rows'])} steps, not done: step {len(found['rows']) - 1}"
    )
    whole = gpu.done(gpu.Part("latency x", 50.0, lambda: iter([{"a": 1}, {"a": 2}])), time.monotonic() + 60)
    assert whole["rows"] == [{"a": 1}, {"a": 2}] and not whole["stopped"]


def test_a_step_that_does_not_end_is_cut_off_and_an_error_costs_one_part(gpu: ModuleType) -> None:
    found = gpu.done(gpu.Part("latency x", 50.0, lambda: slowly(30.0)), time.monotonic() + 0.3)
    assert found["stopped"] == "time: cut off in step 2" and len(found["rows"]) == 1

    def failing() -> Iterator[dict[str, Any]]:
        yield {"a": 1}
        raise RuntimeError("no memory is left")

    found = gpu.done(gpu.Part("x", 50.0, failing), time.monotonic() + 60)
    assert found["rows"] == [{"a": 1}] and found["stopped"] == "RuntimeError: no memory is left"


def test_a_latency_part_that_goes_on_adds_to_what_it_has(gpu: ModuleType) -> None:
    before = {"rows": [{"shares": {}, "planned": ["x", "y"]}, {"runtime": "x"}], "seconds": 3.0, "stopped": "time: stopped"}
    found = {"rows": [{"shares": {}, "planned": ["y"]}, {"runtime": "y"}], "seconds": 2.0, "stopped": ""}
    whole = gpu.together(before, found)
    assert [row.get("runtime") for row in whole["rows"]] == [None, "x", "y"] and not whole["stopped"]
    assert whole["seconds"] == 5.0 and gpu.together(None, found) == found
    cut = {"rows": [{"method": "l1"}], "seconds": 1.0, "stopped": "time: cut off in step 2"}
    assert gpu.together(cut, found | {"rows": [{"method": "l1"}, {"method": "obs"}]})["rows"][0] == {"method": "l1"}


def test_what_a_part_lacks_is_said(gpu: ModuleType, tmp_path: Path) -> None:
    part = gpu.Part("trained resnet56 smoea", 1.0, lambda: iter(()))
    given = Namespace(data=None, models=None, plans=tmp_path, tiny=False)
    assert gpu.missing_for(part, given) == "no --data"
    given.data = tmp_path
    assert "resnet56-smoea.json" in gpu.missing_for(part, given)
    (tmp_path / "resnet56-smoea.json").write_text("{}")
    assert gpu.missing_for(part, given) == "no --models"
    given.tiny = True
    assert not gpu.missing_for(part, given) and not gpu.missing_for(gpu.Part("latency x", 1.0, lambda: iter(())), given)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=1800)


@pytest.mark.slow
def test_the_whole_script_in_its_smallest_form_goes_on_where_it_stopped(tmp_path: Path) -> None:
    rng, images = np.random.default_rng(0), tmp_path / "images.npz"
    held = {f"{part}_x": rng.integers(0, 256, (32, 32, 32, 3)).astype(np.uint8) for part in ("train", "val")}
    np.savez(images, **held, **{f"{part}_y": rng.integers(0, 10, 32) for part in ("train", "val")})  # type: ignore[arg-type]
    out = tmp_path / "tiny.json"
    how = ["--device", "cpu", "--tiny", "--networks", "mobilenet_v2", "--minutes", "25", "--out", out]
    ended = run(*how)
    assert ended.returncode == 0, ended.stderr
    first = json.loads(out.read_text())
    assert {*first["parts"]} == {"latency mobilenet_v2", "asked mobilenet_v2", "layers mobilenet_v2"}
    assert set(first["skipped"].values()) == {"no --data"} and all(name.startswith("trained") for name in first["skipped"])
    assert not [part["stopped"] for part in first["parts"].values() if part["stopped"]]
    shares, *clocked = first["parts"]["latency mobilenet_v2"]["rows"]
    assert [row["batch"] for row in clocked] == [1, 2] and all(set(row["arms"]) == set(shares["shares"]) for row in clocked)
    assert all(abs(share - float(arm.split("%")[0]) / 100) < 0.05 for arm, share in shares["shares"].items() if "%" in arm)
    assert {row.get("kind") for row in first["parts"]["asked mobilenet_v2"]["rows"]} == {None, "widths", "branches"}
    ended = run(*how, "--data", images)
    assert ended.returncode == 0, ended.stderr
    again = json.loads(out.read_text())
    assert all(again["parts"][name] == part for name, part in first["parts"].items()) and not again["skipped"]
    for method in ("smoea", "l1"):
        part = again["parts"][f"trained resnet56 {method}"]
        assert len(part["rows"]) == 1, (method, part["stopped"])
        (row,) = part["rows"]
        assert row["epochs"] >= 1 and 0 <= row["top-1"] <= 1 and row["validation images"] == 32
    told = again["parts"]["trained resnet56 csgd"]["stopped"]  # two steps pull no filters together, and that is said
    assert "cannot make filters equal" in told and "train for at least" in told
    assert "| torch-cpu | 1 |" in ended.stdout and ended.stdout == out.with_suffix(".md").read_text() + "\n"


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_without_a_card_it_says_what_can_be_done(tmp_path: Path) -> None:
    ended = run("--out", tmp_path / "gpu.json")
    assert ended.returncode == 1 and "--device cpu --tiny" in ended.stderr and not (tmp_path / "gpu.json").exists()
