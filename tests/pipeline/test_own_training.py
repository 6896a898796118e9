"""Runs whose training is the user's own loop: resumed, judged, refused where it is wrong, imported only when it is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from compress_cli.app import app
from support import loops
from torch import nn
from typer.testing import CliRunner

from compress.data import Data
from compress.errors import ConfigError, TrainError
from compress.networks import Network, state_digest
from compress.pipeline import MethodComparison, compare_methods, entry, make_job, pick, prune
from compress.recovery import PAPER_EPS

ROOT = Path(__file__).parents[2]
FILE = ROOT / "models" / "checkpoints" / "digits-net.safetensors"
QUICK: dict[str, Any] = {
    "method": "uniform",
    "options": {"points": 3},
    "recover": "bn",
    "epochs": 1,
    "batch": 64,
    "latency_seconds": 0.0,
    "calibration": 64,
    "budget": 3_000,
    "exporter": "legacy",
}
CSGD: dict[str, Any] = {"method": "csgd", "epochs": 6, "batch": 32, "latency_seconds": 0.0, "exporter": "legacy"}


class Counting:
    """A loop that tells how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, model: nn.Module, teacher: nn.Module, data: Any, budget: Any, hooks: Any) -> nn.Module:
        self.calls += 1
        assert budget.folder.is_dir() and (budget.epochs, budget.batch, budget.lr) == (1, 64, 0.02)
        return loops.train(model, teacher, data, budget, hooks)


def test_a_killed_run_goes_on_with_what_its_loop_gave(digits: tuple[Network, Data], tmp_path: Path) -> None:
    """The loop is asked once; without it, or with another one, the run is not gone on with, and nothing is imported."""
    loop, job, folder = Counting(), make_job(flags=QUICK), tmp_path / "run"

    def kill(event: Any) -> None:
        if getattr(event, "name", "") == "export":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune(*digits, job, folder, train=loop, listen=kill)
    name = json.loads((folder / "job.json").read_text())["job"]["train"]
    assert loop.calls == 1 and name.endswith(":Counting")
    for again in (job, replace(job, train=name)):
        with pytest.raises(ConfigError, match="Counting") as caught:
            prune(*digits, again, folder)
        assert f"--train {name}" in caught.value.hint
    with pytest.raises(ConfigError, match=r"train = .*Counting.*, now it is 'support\.loops:train'"):
        prune(*digits, job, folder, train=loops.train)
    result = prune(*digits, job, folder, train=loop)
    assert loop.calls == 1 and result.report.steps[-1].when == "fine-tuned" and result.report.job["train"] == name
    assert prune(*digits, job, folder, train=loop).report == result.report
    with pytest.raises(ConfigError, match="is not imported"):
        pick(*digits, folder, index=0)
    assert not pick(*digits, folder, index=0, epochs=0).report.measured("fine-tuned", "validation")
    assert pick(*digits, folder, index=0, train=loop).report.measured("fine-tuned", "validation") and loop.calls == 2


@pytest.mark.slow
def test_a_ruinous_loop_is_taken_back(digits: tuple[Network, Data], tmp_path: Path) -> None:
    result = prune(*digits, make_job(flags=QUICK), tmp_path / "r", train=loops.ruins)
    assert "fine-tuned" in result.report.refused
    without = prune(*digits, make_job(flags={**QUICK, "epochs": 0}), tmp_path / "w")
    assert state_digest(result.model.state_dict()) == state_digest(without.model.state_dict())


def test_what_can_be_known_is_refused_before_any_work(digits: tuple[Network, Data], tmp_path: Path) -> None:
    network, data = digits
    job, folder = make_job(flags=QUICK), tmp_path / "r"
    wrong: list[tuple[Any, Any, Any, str]] = [
        (job, data, lambda model: model, "cannot be called with five arguments"),
        (job, data, "support.loops:train", "a function was wanted"),
        (replace(job, epochs=0), data, loops.train, "epochs is 0"),
        (job, None, loops.train, "no images to judge"),
        (replace(job, epochs=None), replace(data, train=None), loops.train, "how many epochs"),
        (replace(job, train="support.loops:train"), data, None, "is not imported"),
    ]
    for given, images, loop, said in wrong:
        with pytest.raises(ConfigError, match=said) as caught:
            prune(network, images, given, folder, train=loop)
        assert caught.value.hint and not folder.exists()


@pytest.mark.slow
def test_csgd_is_trained_by_a_loop_with_the_hook(digits: tuple[Network, Data], tmp_path: Path) -> None:
    """Filters become equal, and the trim loses nothing, by a loop that knows nothing of C-SGD but the hook."""
    result = prune(*digits, make_job(flags=CSGD), tmp_path / "r", train=loops.train)
    told = " ".join(result.report.notes)
    assert "the trim changed 0 of 270 predictions" in told and str(PAPER_EPS) in told
    seen = {m.when: m.value for m in result.report.scores if m.split == "validation"}
    assert seen["cut"] == seen["averaged"] >= seen["base"] - 0.05


@pytest.mark.parametrize(
    ("loop", "said"),
    [
        (loops.forgets_the_hook, "never let its gradients be changed"),
        pytest.param(loops.steps_with_another, "did not become equal: the largest deviation", marks=pytest.mark.slow),
    ],
)
def test_a_loop_without_the_hook_is_found_before_the_trim(
    loop: Any, said: str, digits: tuple[Network, Data], tmp_path: Path
) -> None:
    phases: list[str] = []
    with pytest.raises(TrainError, match=said) as caught:
        prune(*digits, make_job(flags=CSGD), tmp_path / "r", train=loop, listen=lambda e: phases.append(getattr(e, "name", "")))
    assert "hooks.gradients(optimizer)" in caught.value.hint and "C-SGD" in phases and "trim" not in phases


@pytest.mark.slow
def test_csgd_is_trained_by_a_loop_that_calls_the_rewrite(digits: tuple[Network, Data], tmp_path: Path) -> None:
    result = prune(*digits, make_job(flags={**CSGD, "epochs": 10}), tmp_path / "r", train=loops.calls_itself)
    assert "the trim changed 0 of 270 predictions" in " ".join(result.report.notes)


@pytest.mark.slow
def test_zeroed_kernels_stay_zero(digits: tuple[Network, Data], tmp_path: Path) -> None:
    job = make_job(flags={**QUICK, "zero_kernels": 0.05})
    result = prune(*digits, job, tmp_path / "r", train=loops.train)
    assert result.report.steps[-1].when == "fine-tuned" and "kernel mode" in " ".join(result.report.notes)
    zeros = sum(int((p == 0).sum()) for p in result.model.parameters())
    assert zeros > 100

    def adam(model: nn.Module, teacher: nn.Module, data: Any, budget: Any, hooks: Any) -> nn.Module:
        hooks.gradients(optimizer := torch.optim.AdamW(model.parameters(), lr=1e-3))
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        with torch.no_grad():
            next(p for p in model.parameters() if p.dim() == 4 and p.shape[1] > 1).add_(1e-3)
        return model

    with pytest.raises(TrainError, match=r"moved \d+ kernels of .* that are to stay zero"):
        prune(*digits, job, tmp_path / "adam", train=adam)


@pytest.mark.slow
def test_methods_are_compared_with_the_loop(digits: tuple[Network, Data], tmp_path: Path) -> None:
    wanted = MethodComparison(
        job=make_job(flags=QUICK), entries=[entry("l1"), entry("l2")], seeds=[0], reference="l1", train=loops.train
    )
    found = compare_methods(*digits, wanted, tmp_path)
    assert found.protocol["train"] == "support.loops:train" and all("fine-tuned" in row.validation for row in found.rows)


# ---- the command line ------------------------------------------------------------------------------------------------


def called(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


SOURCE = """
from pathlib import Path
Path(__file__).with_suffix(".imported").touch()
def train(model, teacher, data, budget, hooks):
    next(model.parameters()).data.mul_(1.0001)
    return model
"""


def test_names_in_a_folder_are_imported_only_when_the_user_names_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirloop.py").write_text(SOURCE)
    trace = tmp_path / "theirloop.imported"
    fast = ["--data", "digits", "--method", "uniform", "--budget", 3000, "--recover", "bn", "--latency-seconds", 0, "-q"]
    fast += ["--exporter", "legacy", "--epochs", 1]
    run = ("prune", FILE, *fast, "--out", "run")
    first = called(*run, "--train", "theirloop:train")
    assert first.exit_code in (0, 6) and trace.exists(), first.output
    assert json.loads((tmp_path / "run" / "report.json").read_text())["job"]["train"] == "theirloop:train"
    trace.unlink()
    monkeypatch.delitem(__import__("sys").modules, "theirloop")
    for command in (run, ("pick", "run", "--index", 0, "-q")):
        again = called(*command)
        said = " ".join(again.output.split())
        assert again.exit_code == 3 and "--train theirloop:train" in said and not trace.exists(), again.output
    picked = called("pick", "run", "--index", 0, "-q", "--train", "theirloop:train")
    assert picked.exit_code in (0, 6) and trace.exists(), picked.output
    for wrong in ("theirloop", "theirloop:missing", "nothing.there:train"):
        assert called(*run, "--fresh", "--train", wrong).exit_code == 2


def test_finetune_and_train_take_a_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named = ("--data", "digits", "--epochs", 1, "--batch", 64, "-q", "--train", "support.loops:train")
    tuned = called("finetune", FILE, *named, "--out", "tuned.safetensors")
    made = called("train", "digits_net", *named, "--lr", 0.05, "--out", "made.safetensors")
    assert tuned.exit_code == made.exit_code == 0, tuned.output + made.output
    assert {p.name for p in tmp_path.iterdir()} == {"tuned.safetensors", "made.safetensors"}
    assert called("finetune", FILE, *named[:-1], "support.loops:moved", "--out", "x.safetensors").exit_code == 3
