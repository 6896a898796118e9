"""The search alone, and the surgery alone: the same decision as a whole run's, gone on with where it was stopped."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.branching import asking

import compress
from compress.core import Warned, count
from compress.data import Data
from compress.errors import ConfigError
from compress.networks import Network
from compress.pipeline import Decision, Job, decide, make_job, pick, prune
from compress.search import Origin

SMALL: dict[str, Any] = {
    "method": "smoea",
    "options": {"population": 6, "generations": 2},
    "epochs": 0,
    "latency_seconds": 0.0,
    "budget": 3_000,
    "calibration": 64,
    "recover": "bn",
    "exporter": "legacy",
}
JOB = make_job(flags=SMALL)
ROOT = Path(__file__).parents[2]
WRITTEN = {"front.json", "front.svg", "job.json", "journal.jsonl", "plan.json", "statistics", ".lock"}


@pytest.fixture(scope="module")
def decision(digits: tuple[Network, Data], tmp_path_factory: pytest.TempPathFactory) -> tuple[Decision, Path]:
    folder = tmp_path_factory.mktemp("decided") / "run"
    return decide(*digits, JOB, folder), folder


def test_nothing_but_the_decision_is_written(decision: tuple[Decision, Path]) -> None:
    found, folder = decision
    assert {p.name for p in folder.iterdir()} <= WRITTEN and (folder / "plan.json").exists()
    assert found.plan in [point.plan for point in found.front] and "within the budget" in found.why
    assert found.found_by in set(Origin)


def test_the_surgery_gives_what_was_counted(digits: tuple[Network, Data], decision: tuple[Decision, Path]) -> None:
    """Every point of the front is a network of the size that it says, and the caller's network stays as it is."""
    model, found = digits[0].model, decision[0]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for point in found.front:
        small = compress.cut(model, found.topology, point.plan)
        assert sum(p.numel() for p in small.parameters()) == point.cost.params == count(found.topology, point.plan).params
        assert small(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_same_call_again_only_reads(digits: tuple[Network, Data], decision: tuple[Decision, Path]) -> None:
    found, folder = decision
    events: list[Any] = []
    assert decide(*digits, JOB, folder, listen=events.append) == found and not events
    with pytest.raises(ConfigError, match="seed"):
        decide(*digits, make_job(flags={**SMALL, "seed": 1}), folder)


def test_a_killed_search_goes_on_and_a_run_takes_it_over(
    digits: tuple[Network, Data], decision: tuple[Decision, Path], tmp_path: Path
) -> None:
    """Stopped after two requests, its journal only grows; a run on the same folder evaluates nothing again."""
    asked = 0

    def stop(event: Any) -> None:
        nonlocal asked
        asked += type(event).__name__ == "Asked"
        if asked == 2:
            raise KeyboardInterrupt

    journal = tmp_path / "run" / "journal.jsonl"
    with pytest.raises(KeyboardInterrupt):
        decide(*digits, JOB, tmp_path / "run", listen=stop)
    held = journal.read_bytes()
    found = decide(*digits, JOB, tmp_path / "run")
    grown = journal.read_bytes()
    assert found == decision[0] and held and grown.startswith(held) and len(grown) > len(held)
    result = prune(*digits, JOB, tmp_path / "run")
    assert result.plan == found.plan and journal.read_bytes() == grown
    assert any(found.why in note for note in result.report.notes)
    told = result.report.search
    assert told["found_by"] in list(Origin) and 0 <= told["found_after"] <= told["image_forwards"] <= 1.05 * told["budget"]
    assert any(f"found by {told['found_by']}, after" in note for note in result.report.notes)


def test_a_job_that_trains_between_decisions_is_refused(digits: tuple[Network, Data], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no decision without it"):
        decide(*digits, Job(stage_epochs=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_the_document_shows_runs(tmp_path: Path) -> None:
    """docs/own-loop.md, its files in a folder of the test."""
    shown = re.search(r"test_deciding.py -->\n```python\n(.*?)```", (ROOT / "docs" / "own-loop.md").read_text(), re.DOTALL)
    assert shown is not None
    code = shown[1].replace("runs/decided", str(tmp_path / "run")).replace("models/checkpoints", f"{ROOT}/models/checkpoints")
    assert code != shown[1]
    names: dict[str, Any] = {}
    exec(code, names)
    assert (tmp_path / "run" / "front.json").exists()
    assert sum(p.numel() for p in names["small"].parameters()) < sum(p.numel() for p in names["network"].model.parameters())


def test_a_value_that_the_code_asks_for_is_said_by_every_way_to_a_plan(tmp_path: Path) -> None:
    """The search, the search read again, and another point of its front."""
    network = compress.network_of(asking(lambda y: bool(y.max() > 20))(), example=torch.zeros(1, 3, 8, 8))
    job = make_job(flags={**SMALL, "method": "uniform", "options": {}, "target": "macs", "value": 0.7})
    for told in (decide, decide, partial(pick, index=0, epochs=0)):
        events: list[object] = []
        arguments = (network, None, tmp_path / "run") if isinstance(told, partial) else (network, None, job, tmp_path / "run")
        told(*arguments, listen=events.append)  # type: ignore[operator]
        assert [e for e in events if isinstance(e, Warned) and "asks for a value at" in e.text], told
