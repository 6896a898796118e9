"""Finalists of whole runs: resumed where they were killed, told in the report, off where they are not wanted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.tasked import trained

from compress.core import ignore
from compress.data import Data
from compress.errors import ConfigError
from compress.networks import Network, network_of
from compress.pipeline import Run, decide, make_job, pick, prune, with_task
from compress.pipeline.deciding import Decided, decided
from compress.pipeline.finalists import why_none
from compress.pipeline.steps import finalists_share, rate_for, rounds_of, schedule_for
from compress.recovery import steps_per_epoch
from compress.report.schema import validate

JOB: dict[str, Any] = {
    "method": "obs",
    "batch": 16,
    "lr": 0.01,
    "epochs": 1,
    "budget": 2_000,
    "calibration": 32,
    "latency_seconds": 0.0,
    "exporter": "legacy",
    "finalists": 3,
}


def lines(folder: Path) -> list[dict[str, Any]]:
    """The journal."""
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def settled(network: Network, data: Data, folder: Path, **flags: Any) -> Decided:
    """The decision of a run and all that it rests on."""
    folder.mkdir()
    return decided(
        Run(network=with_task(network, data, ignore), data=data, job=make_job(flags={**JOB, **flags}), folder=folder)
    )


@pytest.fixture(scope="module")
def whole(digits: tuple[Network, Data], tmp_path_factory: pytest.TempPathFactory) -> Decided:
    """With finalists."""
    return settled(*digits, tmp_path_factory.mktemp("finalists") / "whole")


def test_a_run_killed_among_its_finalists_goes_on_and_ends_alike(
    whole: Decided, digits: tuple[Network, Data], tmp_path: Path
) -> None:
    wanted = lines(whole.run.folder)
    assert [e["fidelity"] for e in wanted].count("trained") == 5

    def kill(event: Any) -> None:
        if type(event).__name__ == "Asked" and event.fidelity == "trained":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decide(*digits, make_job(flags=JOB), tmp_path, listen=kill)
    half = lines(tmp_path)
    assert 0 < sum(e["fidelity"] == "trained" for e in half) < 5
    again = decide(*digits, make_job(flags=JOB), tmp_path)
    found = lines(tmp_path)
    assert again.plan == whole.plan and again.why == whole.why and again.found_by
    assert found[: len(half)] == half, "nothing is evaluated anew"
    assert [(e["key"], e["error"]) for e in found] == [(e["key"], e["error"]) for e in wanted]


def test_without_finalists_the_plan_is_the_one_that_would_have_been_taken(
    whole: Decided, digits: tuple[Network, Data], tmp_path: Path
) -> None:
    plain = settled(*digits, tmp_path / "plain", finalists=0)
    assert whole.finalists is not None and plain.finalists is None
    rows = whole.finalists.rows
    assert rows[0].plan == plain.plan.digest
    searched = lines(plain.run.folder)
    assert not any(e["fidelity"] == "trained" for e in searched)
    assert [e["key"] for e in searched] == [e["key"] for e in lines(whole.run.folder)][: len(searched)], "the same search"
    assert [row.plan for row in rows if row.won] == [whole.plan.digest]
    assert sorted(len(row.scores) for row in rows) == [1, 2, 2] and whole.finalists.steps == 3 * 4 + 2 * 8
    trained = [entry for entry in lines(whole.run.folder) if entry["fidelity"] == "trained"]
    assert all(entry["interval"][0] <= entry["error"] <= entry["interval"][1] for entry in trained)
    assert whole.finalists.steps * 16 <= len(digits[1].train or ()) / 2
    assert all(row.macs <= 0.5 for row in rows) and "short trainings" in whole.why


def test_a_method_without_any_trains_as_much_longer(digits: tuple[Network, Data], tmp_path: Path) -> None:
    """So that a comparison costs all methods the same training; where nobody asks for finalists, nothing changes."""
    train = digits[1].train
    assert train is not None
    asked = {"uniform": 3, "obs": 3, "global": None, "csgd": 0}
    shares = {}
    for method, finalists in asked.items():
        flags = {**JOB, "method": method, "finalists": finalists}
        run = Run(network=digits[0], data=digits[1], job=make_job(flags=flags), folder=tmp_path)
        shares[method] = finalists_share(run, train)
    steps = len(train) // 16
    assert shares == {"uniform": pytest.approx((3 * 4 + 2 * 8) / steps, rel=0.02), "obs": 0, "global": 0, "csgd": 0}


@given(few=st.integers(1, 2_000), more=st.integers(0, 500), lr=st.floats(1e-4, 1.0))
def test_the_learning_rate_goes_by_the_steps(few: int, more: int, lr: float) -> None:
    job = make_job(flags={"lr": lr})
    short, long = rate_for(job, few), rate_for(job, few + more)
    assert lr / 10 * (1 - 1e-9) <= short <= long <= lr and (few < 300 or short == lr) and (few >= 300 or short < lr)
    assert rate_for(make_job(flags={"lr": lr, "lr_by_budget": False}), few) == lr


@pytest.mark.slow
def test_the_report_shows_them_and_pick_needs_none(digits: tuple[Network, Data], tmp_path: Path) -> None:
    result = prune(*digits, make_job(flags=JOB), tmp_path / "run")
    report = result.report
    assert report.finalists is not None and result.plan.digest in [row.plan for row in report.finalists.rows if row.won]
    old = {k: v for k, v in report.to_json().items() if k != "finalists"}
    assert validate(old).finalists is None, "a report of an earlier version"
    chosen = json.loads((result.folder / "front.json").read_text())["chosen"]
    picked = pick(*digits, result.folder, index=chosen, epochs=0)
    assert picked.plan == result.plan and picked.report.finalists is None


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ({"batch": 700}, "too short"),
        *(
            pytest.param(flags, why, marks=pytest.mark.slow)
            for flags, why in (
                ({"method": "uniform", "options": {"points": 2}}, "no others to choose from"),
                ({"target": "max_drop", "value": 20.0, "options": {"points": 2}}, "no size is wanted"),
            )
        ),
    ],
)
def test_where_there_are_none_the_run_says_why(
    flags: dict[str, Any], why: str, digits: tuple[Network, Data], tmp_path: Path
) -> None:
    found = settled(*digits, tmp_path / "run", **flags)
    assert found.finalists is None
    assert any("no finalists were trained" in note and why in note for note in found.run.log.notes)


def test_unasked_they_take_a_sixth_of_the_training_at_the_most(digits: tuple[Network, Data], tmp_path: Path) -> None:
    network, data = digits
    assert data.train is not None
    for epochs in (1, 2, 3, 5, None):
        for asked in (None, 3):
            job = make_job(flags={**JOB, "epochs": epochs, "finalists": asked})
            run = Run(network=with_task(network, data, ignore), data=data, job=job, folder=tmp_path)
            few = asked is None and epochs in (1, 2)
            assert ("fewer than 3 epochs" in why_none(run)) == few and bool(rounds_of(run, data.train)) != few
            if asked is None:
                steps = sum(r.plans * r.steps for r in rounds_of(run, data.train))
                schedule = schedule_for(run, data.train)
                assert steps <= schedule.epochs * steps_per_epoch(len(data.train), schedule) / 6


def test_finalists_without_training_are_refused() -> None:
    with pytest.raises(ConfigError, match="nothing is trained"):
        make_job(flags={"epochs": 0, "finalists": 8})
    for wrong in (1, -1, 65):
        with pytest.raises(ConfigError, match="finalists"):
            make_job(flags={"finalists": wrong})


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("multilabel", True),
        *(
            pytest.param(name, targets, marks=pytest.mark.slow)
            for name in ("multilabel", "regression:metric=RMSE,unit=px", "outputs")
            for targets in (False, True)
            if (name, targets) != ("multilabel", True)
        ),
    ],
)
def test_every_task_has_finalists(name: str, targets: bool, tmp_path: Path) -> None:
    """By the task's own loss and figure where there are targets, by imitation of the outputs where there are none."""
    one = trained(name)
    network = network_of(one.model, example=torch.zeros(2, 1, 12, 12), task=one.task)
    job = make_job(flags={**JOB, "round_to": 4, "batch": 4, "value": 0.6})
    found = decide(network, one.data(targets=targets), job, tmp_path / "run")
    entries = [e for e in lines(tmp_path / "run") if e["fidelity"] == "trained"]
    assert len(entries) >= 2 and found.plan
    scored = targets and name != "outputs"
    for entry in entries:
        assert ("interval" in entry) == scored
        assert not scored or entry["interval"][0] <= entry["error"] <= entry["interval"][1]
