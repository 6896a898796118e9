"""Pruning stage by stage with training in between: SMOEA's own order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from compress.coupling.tracer import trace
from compress.data import Data
from compress.errors import ConfigError
from compress.networks import checkpoint
from compress.networks.network import Network
from compress.pipeline import stagewise
from compress.pipeline.conclusion import Result
from compress.pipeline.job import make_job
from compress.pipeline.picking import pick
from compress.pipeline.pruning import prune
from compress.pipeline.searching import Searched
from compress.recovery.training_events import EpochDone
from compress.surgery.cutting import cut

QUICK: dict[str, Any] = {
    "method": "smoea",
    "stage_epochs": 1,
    "epochs": 1,
    "budget": 6_000,
    "latency_seconds": 0.0,
    "calibration": 64,
    "exporter": "legacy",
    "options": {"population": 8, "generations": 3},
}


@pytest.fixture(scope="module")
def finished(digits: tuple[Network, Data], tmp_path_factory: pytest.TempPathFactory) -> Result:
    return prune(*digits, make_job(flags=QUICK), tmp_path_factory.mktemp("runs") / "staged")


def test_every_stage_is_trained_and_the_target_is_met(finished: Result) -> None:
    report = finished.report
    seen = {m.when: m.value for m in report.scores if m.split == "validation"}
    assert list(seen) == ["base", "cut", "trained by stages", "fine-tuned"]
    assert seen["cut"] < seen["trained by stages"] - 0.02, "the cut alone has the unpruned network's weights"
    assert 0.2 < report.reached <= 0.5 and report.guard["error"] < 1e-9
    stages = [n for n in report.notes if "left; validation" in n]
    assert len(stages) >= 2 and all("reconstructed" in n and "fine-tuned" in n for n in stages)
    assert "stage by stage" in report.search["chosen"] and f"left {report.reached:.3f}" in report.search["chosen"]
    assert report.search["image_forwards"] <= report.search["budget"] <= 6_000


class _Killed(BaseException):
    pass


@pytest.mark.slow
def test_a_run_killed_in_a_later_stage_ends_with_the_same_weights(
    digits: tuple[Network, Data], finished: Result, tmp_path: Path
) -> None:
    done = 0

    def kill(event: Any) -> None:
        nonlocal done
        done += isinstance(event, EpochDone)
        if done == 2:
            raise _Killed

    with pytest.raises(_Killed):
        prune(*digits, make_job(flags=QUICK), tmp_path / "r", listen=kill)
    again = prune(*digits, make_job(flags=QUICK), tmp_path / "r")
    assert again.plan == finished.plan
    one, two = (checkpoint.state_digest(r.model.state_dict()) for r in (finished, again))
    assert one == two


@pytest.mark.parametrize("method", ["uniform", pytest.param("smoea", marks=pytest.mark.slow)])
def test_without_training_stage_by_stage_is_at_once(
    method: str, digits: tuple[Network, Data], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The law behind it: the stages' plans, each found on an already cut network, cut the unpruned one to the very same."""
    found = []

    def kept(*given: Any) -> Searched:
        found.append(stagewise.progressive(*given))
        return found[-1]

    monkeypatch.setattr("compress.pipeline.deciding.progressive", kept)
    monkeypatch.setattr(stagewise, "finetune", lambda run, small, **more: small)
    flags = {**QUICK, "method": method, "recover": "none", "epochs": 0}
    flags["options"] = QUICK["options"] if method == "smoea" else {}
    result = prune(*digits, make_job(flags=flags), tmp_path / "r")
    topology = trace(digits[0].model, torch.zeros(1, 1, 8, 8))
    at_once = cut(digits[0].model, topology, result.plan).state_dict()
    assert found[0].front[0].plan == result.plan and len(result.plan.cuts) > 1
    by_stages = found[0].trained.state_dict()
    assert list(at_once) == list(by_stages) and all(torch.equal(at_once[k], by_stages[k]) for k in at_once)


def test_what_cannot_be_done_stage_by_stage_is_refused(digits: tuple[Network, Data], finished: Result, tmp_path: Path) -> None:
    for wrong in ({"method": "bicnn"}, {"method": "csgd"}, {"realise": "csgd"}, {"target": "max_drop", "value": 1.0}):
        with pytest.raises(ConfigError, match="stage by stage"):
            make_job(flags={**QUICK, "options": {}, **wrong})
    with pytest.raises(ConfigError, match="stage_epochs is -1"):
        make_job(flags={"stage_epochs": -1})
    with pytest.raises(ConfigError, match="no training images"):
        prune(digits[0], None, make_job(flags=QUICK), tmp_path / "r")
    with pytest.raises(ConfigError, match="weights for its own plan only"):
        pick(*digits, finished.folder, macs=0.7)
