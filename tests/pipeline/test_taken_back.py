"""A recovery that makes a network worse is taken back: what goes on is never worse on validation than the step before."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compress.core import Clock, Cut, Measured, Plan, Step, Topology, ignore
from compress.coupling import trace
from compress.data import Data
from compress.evaluation import accuracy, outputs_apart
from compress.networks import Network, state_digest
from compress.pipeline import Result, Run, make_job, pick, prune
from compress.pipeline import stagewise as stagewise_module
from compress.pipeline.compared_run import RunFigures, compared_run
from compress.pipeline.external import ExternalPruner, prune_externally
from compress.pipeline.run import with_task
from compress.pipeline.steps import finetune, guarded_cut, recovered
from compress.recovery import EpochDone
from compress.report import Size, scores
from compress.search import prunable

POISONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "brighter": lambda x: 4 * x + 10,
    "negative": lambda x: -x,
    "noise": lambda x: 30 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)),
    "one image": lambda x: x[:1] + 1e-3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)),
}
FLAGS: dict[str, Any] = {
    "method": "uniform",
    "options": {"points": 3},
    "epochs": 1,
    "batch": 64,
    "latency_seconds": 0.0,
    "calibration": 64,
    "budget": 3_000,
    "exporter": "legacy",
}
TOO_HIGH = 0.7
"""A learning rate that ruins the reference network without making its loss infinite."""


@pytest.fixture(scope="module")
def half(digits: tuple[Network, Data]) -> tuple[Topology, Plan]:
    topology = trace(digits[0].model, torch.zeros(1, 1, 8, 8))
    groups = prunable(topology, ())[0]
    return topology, Plan({g: Cut(tuple(range(max(1, topology.by_id[g].size // 2)))) for g in groups})


def judged(run: Run, model: nn.Module) -> float:
    """Lower is better."""
    if run.scored:
        assert run.data is not None
        return 1 - accuracy(model, run.data.validation).top1
    assert run.held_out is not None
    return outputs_apart(run.network.model, model, run.held_out)


def no_worse(before: float, after: float, *, scored: bool) -> bool:
    """Outputs beyond a constant answer's error of 1 tell no better network from a worse one."""
    return after <= before or (not scored and before >= 1 and after <= 2 * before)


@pytest.fixture(params=["labelled", pytest.param("unlabelled", marks=pytest.mark.slow)])
def images(request: pytest.FixtureRequest, digits: tuple[Network, Data], unlabelled: Data) -> Data:
    return digits[1] if request.param == "labelled" else unlabelled


def test_no_recovery_ends_worse_than_the_step_before(
    digits: tuple[Network, Data], images: Data, half: tuple[Topology, Plan], tmp_path_factory: pytest.TempPathFactory
) -> None:
    network, (topology, plan) = digits[0], half
    clean = images.calibration.images(64)
    held_out = None if images.labelled else images.validation.images(128)
    refused: set[str] = set()
    went_on: set[str] = set()

    @example("brighter", 0.02)
    @example("noise", 0.02)
    @example("none", TOO_HIGH)
    @settings(max_examples=max(1, settings().max_examples // 3))
    @given(st.sampled_from(sorted(POISONS)), st.sampled_from([0.02, TOO_HIGH]))
    def law(poison: str, lr: float) -> None:
        job = make_job(flags={**FLAGS, "lr": lr})
        folder = tmp_path_factory.mktemp("run")
        run = Run(
            network=with_task(network, images, ignore), data=images, job=job, folder=folder, clock=Clock(), held_out=held_out
        )
        small, _ = guarded_cut(network.model, topology, plan, clean)
        run.judge(small, "cut")
        restored = recovered(run, network.model, small, topology, plan, POISONS[poison](clean))
        trained = finetune(run, restored)
        errors = [judged(run, m) for m in (small, restored, trained)]
        assert all(no_worse(*pair, scored=run.scored) for pair in pairwise(errors)), f"worse on the way: {errors}"
        steps = run.log.steps
        assert [s.when for s in steps] == ["cut", "batch norm", "reconstructed", "fine-tuned"]
        going_on = [1 - s.score if run.scored else s.score for s in steps if s.kept]
        assert all(no_worse(*pair, scored=run.scored) for pair in pairwise(going_on))
        assert going_on[-1] == pytest.approx(errors[-1])
        for step in steps:
            assert step.kept != any(n.startswith(f"taken back: {step.when}:") for n in run.log.notes)
        if not steps[-1].kept:
            assert trained is restored
        refused.update(
            f"{s.when} at lr {lr}" if s.when == "fine-tuned" else f"{s.when} on {poison}" for s in steps if not s.kept
        )
        went_on.update(s.when for s in steps if s.kept)

    law()
    assert {"reconstructed on brighter", f"fine-tuned at lr {TOO_HIGH}"} <= refused, "nothing was poisoned enough to tell"
    assert went_on == {"cut", "batch norm", "reconstructed", "fine-tuned"}, "what helps goes on"


def finished_at(network: Network, data: Data | None, folder: Path, **flags: Any) -> Result:
    return prune(network, data, make_job(flags={**FLAGS, **flags}), folder)


@pytest.mark.slow
def test_a_ruinous_training_is_taken_back_and_said(digits: tuple[Network, Data], tmp_path: Path) -> None:
    """The run ends with the network that it would have ended with untrained, and the report shows what was refused."""
    result = finished_at(*digits, tmp_path / "r", lr=TOO_HIGH)
    untrained = finished_at(*digits, tmp_path / "untrained", epochs=0)
    assert state_digest(result.model.state_dict()) == state_digest(untrained.model.state_dict())
    report = result.report
    steps = {s.when: s for s in report.steps}
    assert not steps["fine-tuned"].kept and report.refused == {s for s in steps if not steps[s].kept}
    assert steps["fine-tuned"].score < max(s.score for s in report.steps if s.kept)
    assert any(n.startswith("taken back: fine-tuned: accuracy ") for n in report.notes)
    rows = {row[0]: row for row in scores(report)}
    assert "fine-tuned, taken back" in rows and rows["fine-tuned, taken back"][2] == "–"
    final = report.measured("final", "test")
    last = [s.when for s in report.steps if s.kept][-1]
    assert final is not None and rows[last][2].startswith(f"{100 * final.value:.2f} %")
    page = (tmp_path / "r" / "report.html").read_text()
    assert "fine-tuned, taken back" in page and "taken back" in (tmp_path / "r" / "report.md").read_text()
    picked = pick(*digits, tmp_path / "r", index=0)
    assert "fine-tuned" in picked.report.refused


@pytest.mark.slow
def test_a_killed_run_decides_the_same(digits: tuple[Network, Data], tmp_path: Path) -> None:
    whole = finished_at(*digits, tmp_path / "whole", lr=TOO_HIGH, epochs=2)

    def kill(event: Any) -> None:
        if isinstance(event, EpochDone):
            raise KeyboardInterrupt

    job = make_job(flags={**FLAGS, "lr": TOO_HIGH, "epochs": 2})
    with pytest.raises(KeyboardInterrupt):
        prune(*digits, job, tmp_path / "killed", listen=kill)
    again = prune(*digits, job, tmp_path / "killed")
    assert again.report.steps == whole.report.steps and not again.report.steps[-1].kept
    assert state_digest(again.model.state_dict()) == state_digest(whole.model.state_dict())


def test_without_images_other_inputs_than_the_solved_ones_decide(digits: tuple[Network, Data], tmp_path: Path) -> None:
    report = finished_at(digits[0], None, tmp_path / "r").report
    assert [s.when for s in report.steps] == ["cut", "batch norm", "reconstructed"]
    kept = [s.score for s in report.steps if s.kept]
    assert kept == sorted(kept, reverse=True) and kept[-1] > 0


@pytest.mark.slow
def test_stages_take_back_too(digits: tuple[Network, Data], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage's training is refused by itself; what the stages leave is never worse than its own cut."""
    logs: list[list[Step]] = []
    real = stagewise_module._seen
    monkeypatch.setattr(stagewise_module, "_seen", lambda run: logs.append(run.log.steps) or real(run))
    flags = {"method": "smoea", "options": {"population": 4, "generations": 1}, "stage_epochs": 1, "epochs": 0}
    result = finished_at(*digits, tmp_path / "r", lr=TOO_HIGH, **flags)
    assert logs and any(not s.kept for steps in logs for s in steps)
    for steps in logs:
        kept = [s.score for s in steps if s.kept]
        assert steps[0].when == "cut" and kept == sorted(kept)
    assert any("(taken back)" in note for note in result.report.notes)


def test_somebody_elses_pruner_is_treated_alike(digits: tuple[Network, Data], tmp_path: Path) -> None:
    network, data = digits
    job = make_job(flags={**FLAGS, "lr": TOO_HIGH})
    run = Run(network=with_task(network, data, ignore), data=data, job=job, folder=tmp_path / "arm", clock=Clock())
    row = prune_externally(run, data, ExternalPruner("same", "tests:same", lambda model, *_: model))
    assert row.validation["fine-tuned"] == row.validation["batch norm"] == row.validation["cut"]
    assert [s.kept for s in run.log.steps if s.when == "fine-tuned"] == [False]


def test_a_comparison_shows_the_networks_that_went_on(tmp_path: Path) -> None:
    found = [
        Measured(w, "validation", x, 0, 1, 9)
        for w, x in (("base", 0.9), ("cut", 0.5), ("batch norm", 0.4), ("fine-tuned", 0.7))
    ]
    steps = [Step("cut", 0.5), Step("batch norm", 0.4, kept=False), Step("fine-tuned", 0.7)]
    size = Size(1, 1)
    figures = RunFigures(before=size, after=size, accuracy=found, steps=steps, latency=(), seconds={})
    assert compared_run("m", 0, tmp_path, figures).validation == {"cut": 0.5, "batch norm": 0.5, "fine-tuned": 0.7}


def test_what_is_not_finite_is_never_kept(digits: tuple[Network, Data], unlabelled: Data, tmp_path: Path) -> None:
    network = digits[0]
    broken = nn.Sequential(network.model, _NaN())
    run = Run(network=network, data=unlabelled, job=make_job(flags=FLAGS), folder=tmp_path, held_out=torch.randn(4, 1, 8, 8))
    run.judge(network.model, "cut")
    assert run.better(network.model, broken, "batch norm") is network.model
    run.judge(broken, "cut")
    assert run.better(broken, network.model, "batch norm") is network.model


class _NaN(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * float("nan")


@pytest.mark.parametrize(
    ("last", "score", "stays"),
    [
        (0.4, 0.5, False),
        (0.99, 1.01, False),
        (1.8, 2.39, True),
        (1.8, 3.7, False),
        (1.8, float("nan"), False),
        (1.8, 0.2, True),
    ],
)
def test_outputs_beyond_a_constant_answer_take_nothing_back(
    digits: tuple[Network, Data], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: float, score: float, stays: bool
) -> None:
    run = Run(
        network=digits[0],
        data=None,
        job=make_job(flags=FLAGS),
        folder=tmp_path,
        clock=Clock(),
        held_out=torch.zeros(2, 1, 8, 8),
    )
    run.log.steps.append(Step("cut", last))
    monkeypatch.setattr("compress.pipeline.run.outputs_apart", lambda *_: score)
    before, after = nn.Identity(), nn.Identity()
    assert run.better(before, after, "batch norm") is (after if stays else before)
    assert run.log.steps[-1].kept is stays
