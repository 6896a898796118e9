"""Centripetal SGD as the way to make a plan real: from any searcher's widths to a network that lost nothing by its trim."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from compress_models import MODELS

from compress.core.plan import Plan
from compress.core.restriction import widths as widths_of
from compress.coupling.tracer import trace
from compress.data import Data
from compress.errors import ConfigError, GuardError, SearchError, TrainError
from compress.networks import checkpoint
from compress.networks.network import Network, network_of
from compress.pipeline import csgd
from compress.pipeline.conclusion import Result
from compress.pipeline.job import Job, make_job
from compress.pipeline.picking import pick
from compress.pipeline.pruning import prune
from compress.recovery.training_events import EpochDone

QUICK: dict[str, Any] = {
    "method": "csgd",
    "epochs": 6,
    "batch": 32,
    "latency_seconds": 0.0,
    "exporter": "legacy",
}
SHORT = {**QUICK, "epochs": 3}
"""Still enough to make filters equal: of runs in which the accuracy is not asked."""


@pytest.fixture(scope="module")
def finished(digits: tuple[Network, Data], tmp_path_factory: pytest.TempPathFactory) -> Result:
    return prune(*digits, make_job(flags=QUICK), tmp_path_factory.mktemp("runs") / "csgd")


def test_the_trim_changes_no_prediction(finished: Result) -> None:
    report = finished.report
    validation = {m.when: m for m in report.scores if m.split == "validation"}
    assert list(validation) == ["base", "C-SGD", "averaged", "cut"], "no recovery, no fine-tuning"
    assert validation["cut"].value == validation["averaged"].value >= validation["base"].value - 0.03
    told = " ".join(report.notes)
    assert re.search(r"averaging the clusters exactly changed \d+ of 270 predictions, the outputs by \d\.\de-0[67]", told)
    assert re.search(r"the trim changed 0 of 270 predictions, the outputs by \d\.\de-0[67]", told)
    assert "raised from the paper's 0.003" in told
    assert report.guard["error"] < 1e-9 and 0.45 < report.reached <= 0.5


def test_the_files_are_those_of_the_clusters(digits: tuple[Network, Data], finished: Result) -> None:
    plan = Plan.from_json(json.loads((finished.folder / "plan.json").read_text()))
    assert plan == finished.plan and all(cut.fold for cut in plan.cuts.values())
    again = checkpoint.load(finished.folder / "model.safetensors", zoo=MODELS)
    images = digits[1].calibration.images(4)
    with torch.no_grad():
        assert torch.equal(again.model(images), finished.model.eval()(images))


class _Killed(BaseException):
    pass


@pytest.mark.slow  # the training's own law runs by default (test_centripetal_sgd), and so does a run killed between stages
def test_a_killed_run_ends_with_the_same_weights(digits: tuple[Network, Data], finished: Result, tmp_path: Path) -> None:
    def kill(event: Any) -> None:
        if isinstance(event, EpochDone) and event.epoch == 4:
            raise _Killed

    with pytest.raises(_Killed):
        prune(*digits, make_job(flags=QUICK), tmp_path / "r", listen=kill)
    again = prune(*digits, make_job(flags=QUICK), tmp_path / "r")
    one, two = (checkpoint.state_digest(r.model.state_dict()) for r in (finished, again))
    assert one == two


@pytest.mark.slow
def test_any_searchers_widths_are_made_real(digits: tuple[Network, Data], tmp_path: Path) -> None:
    flags = {**SHORT, "method": "obs", "realise": "csgd", "budget": 5000, "value": 0.4, "recover": "bn"}
    result = prune(*digits, make_job(flags=flags), tmp_path / "r")
    topology = trace(digits[0].model, torch.zeros(1, 1, 8, 8))
    held = json.loads((tmp_path / "r" / "front.json").read_text())
    searched = Plan.from_json(held["points"][held["chosen"]]["plan"])
    assert widths_of(topology, result.plan) == widths_of(topology, searched) and not any(c.fold for c in searched.cuts.values())
    assert all(cut.fold for cut in result.plan.cuts.values())
    told = " ".join(result.report.notes)
    assert "the trim changed 0 of" in told and "recover bn had no effect" in told
    assert "brain surgeon" in result.report.citation and "Centripetal SGD" in result.report.citation


@pytest.mark.slow
def test_another_budget_of_the_same_run(digits: tuple[Network, Data], finished: Result) -> None:
    more = pick(*digits, finished.folder, macs=0.7)
    assert 0.6 < more.report.reached <= 0.7 and "the trim changed 0 of" in " ".join(more.report.notes)


@pytest.mark.slow
def test_a_wide_network_is_squeezed_to_its_original_widths(digits: tuple[Network, Data], tmp_path: Path) -> None:
    network, data = digits
    wide = network_of(MODELS["digits_net"](width=1.5).eval(), network.preprocessing)
    job = make_job(settings=["options.squeeze=1.5"], flags={**SHORT, "accept_chance": True})
    assert (job.target, job.value) == ("macs", 1.0)
    result = prune(wide, data, job, tmp_path / "r")
    wanted = {k: v.shape for k, v in network.model.state_dict().items()}
    assert {k: v.shape for k, v in result.model.state_dict().items()} == wanted
    share = result.report.reached
    with pytest.raises(SearchError, match=f"keeps {share:.3f} of the macs, 0.3 was wanted"):
        pick(wide, data, result.folder, macs=0.3)
    assert not (result.folder / "picks").exists()


def test_what_cannot_be_drawn_is_refused_before_any_work(digits: tuple[Network, Data], tmp_path: Path) -> None:
    network, data = digits
    job = make_job(flags=QUICK)
    for without in (None, replace(data, train=None)):
        with pytest.raises(ConfigError, match="no training images"):
            prune(network, without, job, tmp_path / "r")
    with pytest.raises(TrainError, match="cannot make filters equal"):
        prune(network, data, replace(job, eps=0.003), tmp_path / "r")
    with pytest.raises(TrainError, match="cannot make filters equal"):
        prune(network, data, replace(job, epochs=1, batch=128), tmp_path / "r")
    assert not (tmp_path / "r").exists()
    with pytest.raises(ConfigError, match="epochs is 0"):
        make_job(flags={**QUICK, "epochs": 0})
    with pytest.raises(ConfigError, match="eps is -1"):
        make_job(flags={"eps": -1.0})
    with pytest.raises(ConfigError, match="realise is cut"):
        make_job(flags={**QUICK, "realise": "cut"})
    assert make_job(flags=QUICK).realise == "csgd" and Job().realise == "cut"


def test_a_trim_that_changes_an_output_is_refused(
    digits: tuple[Network, Data], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clusters are averaged before the trim: were another network trimmed, the outputs would tell."""
    real = csgd.guarded_cut

    def other(model: Any, *rest: Any) -> Any:
        small, seen = real(model, *rest)
        next(small.parameters()).data.mul_(1.01)
        return small, seen

    monkeypatch.setattr(csgd, "guarded_cut", other)
    with pytest.raises(GuardError, match="the trim changed the outputs"):
        prune(*digits, make_job(flags=SHORT), tmp_path / "r")
    assert not (tmp_path / "r" / "model.onnx").exists()
