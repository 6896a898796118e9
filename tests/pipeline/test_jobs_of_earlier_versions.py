"""A run that was begun before branches could go, finalists were trained, or a search ended early, goes on as it was begun."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from compress.pipeline.job import Job, make_job, stored_values
from compress.pipeline.run_folder import as_held, claim

NEWER = ("branches", "prefer_fast", "prefer_large", "finalists", "stop_after", "lr_by_budget")


def held(folder: Path, job: Job) -> None:
    """What an earlier version wrote."""
    values = {name: value for name, value in job.to_json().items() if name not in NEWER}
    (folder / "job.json").write_text(json.dumps({"job": values, "identity": {}}))


def test_a_stored_job_that_says_nothing_of_branches_keeps_them() -> None:
    values = {name: value for name, value in Job().to_json().items() if name not in NEWER}
    old = make_job(flags=stored_values(values))
    assert not (old.branches or old.prefer_fast or old.prefer_large or old.leaves_branches_out)
    assert old.stop_after == old.finalists == 0
    new = make_job(flags=stored_values(Job().to_json()))
    assert new.branches and new.prefer_fast and new.prefer_large and new.leaves_branches_out


def test_an_earlier_run_goes_on_as_it_was(tmp_path: Path) -> None:
    held(tmp_path, Job())
    found = as_held(tmp_path, Job(), fresh=False)
    assert found == replace(
        Job(), branches=False, prefer_fast=False, prefer_large=False, finalists=0, stop_after=0.0, lr_by_budget=False
    )
    with claim(tmp_path, found, {}, fresh=False):  # it is the same job
        pass


def test_a_run_of_this_version_and_a_fresh_one_are_as_asked(tmp_path: Path) -> None:
    assert as_held(tmp_path, Job(), fresh=False) == Job()
    held(tmp_path, Job())
    assert as_held(tmp_path, Job(), fresh=True) == Job()
    (tmp_path / "job.json").write_text(json.dumps({"job": Job().to_json(), "identity": {}}))
    assert as_held(tmp_path, Job(), fresh=False) == Job()


def test_uniform_and_csgd_keep_their_meaning() -> None:
    for flags in ({"method": "uniform"}, {"method": "csgd"}, {"realise": "csgd"}, {"stage_epochs": 1}):
        assert not make_job(flags=flags).leaves_branches_out, flags
