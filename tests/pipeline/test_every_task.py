"""Every task through every method: what is printed is of the task, and what is claimed is true."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tasked import Trained, squares, targets_of, trained

from compress.errors import CompressError, ConfigError, DataError, TaskError
from compress.evaluation import read_predictions
from compress.networks import load, network_from, network_of
from compress.pipeline import MethodComparison, Run, compare_methods, entry, make_job, pick, prune
from compress.report import Report, read_report
from compress.tasks import Task, task_of

NAMES = ("classification", "binary", "multilabel", "regression:metric=RMSE,unit=px", "outputs")
METHODS = ("smoea", "bicnn", "cluster", "csgd", "obs", "uniform", "global")
QUICK = {
    "round_to": 4,
    "budget": 1500,
    "epochs": 0,
    "latency_seconds": 0.0,
    "exporter": "legacy",
    "value": 0.6,
}


def job_of(method: str = "uniform", **more: Any) -> Any:
    return make_job(flags={**QUICK, "method": method, **more})


def network_for(one: Trained) -> Any:
    return network_of(one.model, example=torch.zeros(2, 1, 12, 12), task=one.task)


def texts(folder: Path) -> str:
    """Everything that a run writes for people."""
    page = re.sub(r'base64,[^"]*', "", (folder / "report.html").read_text())
    return "\n".join([page, (folder / "report.md").read_text(), (folder / "report.json").read_text()])


def told_truly(one: Trained, report: Report, model: torch.nn.Module, folder: Path) -> None:
    """The law: the figure is the task's, it is what the network scores, and no other task's words are used."""
    task = one.task
    assert report.task == task.name and report.figure == task.figure
    assert read_report(folder) == report
    if task.name != "classification":
        assert "top-1" not in texts(folder).lower()
    if report.scores:
        final = report.measured("final", "test")
        assert final is not None and task.figure is not None
        batches = one.data().test.batches(64)
        assert final.value == pytest.approx(task.scored(model, batches).value, rel=1e-4, abs=1e-4)
    if report.certificate is not None:
        assert report.certificate.figure == task.bounded
        lost = report.certificate.figure.worse(one.truth(one.model), one.truth(model))
        assert lost <= report.certificate.bound, "on 4,000 fresh images"


def run(name: str, method: str, folder: Path, *, targets: bool = True, **more: Any) -> Report:
    one = trained(name)
    found = prune(network_for(one), one.data(targets=targets), job_of(method, **more), folder)
    told_truly(one, found.report, found.model, folder)
    return found.report


@pytest.mark.parametrize(
    ("name", "method", "targets"),
    [
        ("regression:metric=RMSE,unit=px", "obs", True),
        *(
            pytest.param(name, method, targets, marks=pytest.mark.slow)
            for name in NAMES
            for method in METHODS
            for targets in (True, False)
        ),
    ],
)
def test_every_task_with_every_method(name: str, method: str, targets: bool, tmp_path: Path) -> None:
    more: dict[str, Any] = {"epochs": 12, "batch": 16, "value": 0.7} if method == "csgd" else {}
    report = run(name, method, tmp_path / "run", targets=targets, **more)
    assert report.after.macs < report.before.macs
    assert bool(report.scores) == (targets and name != "outputs")
    assert (report.certificate is None) == any("no certificate" in note for note in report.notes)
    assert report.certificate is None if name == "outputs" else targets or report.certificate is not None


def test_a_destroyed_network_is_not_certified(tmp_path: Path) -> None:
    """One logit, no labels, nothing recovered: argmax over one number always agrees, and once certified such a network."""
    one = trained("binary")
    found = prune(network_for(one), one.data(targets=False), job_of(value=0.25, recover="none"), tmp_path / "run")
    pictures, centres = squares(4000, seed=77)
    with torch.no_grad():  # by hand: the task's own scores would make its own mistakes
        right = [
            (m.eval()(pictures)[:, 0] > 0) == (targets_of("binary", pictures, centres) == 1) for m in (one.model, found.model)
        ]
    lost = float(right[0].float().mean() - right[1].float().mean())
    told_truly(one, found.report, found.model, tmp_path / "run")
    assert found.report.certificate is not None and found.report.certificate.bound >= lost > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("targets", [True, False])
def test_training_is_the_task_s(name: str, targets: bool, tmp_path: Path) -> None:
    """With its own loss where there are targets, by imitation where there are none: no worse than without training."""
    one = trained(name)
    network, data = network_for(one), one.data(targets=targets)
    plain = prune(network, data, job_of("obs", recover="bn"), tmp_path / "plain")
    taught = prune(network, data, job_of("obs", recover="bn", epochs=6, lr=0.01), tmp_path / "taught")
    told_truly(one, taught.report, taught.model, tmp_path / "taught")
    if one.task.figure is not None:
        before, after = one.truth(plain.model), one.truth(taught.model)
        spread = 0.02 if one.task.figure.share else 0.05 * before
        assert one.task.figure.worse(before, after) <= spread


@pytest.mark.parametrize(("name", "goal"), [("regression:unit=px", 0.5), ("binary", 0.005)])
def test_points_are_of_shares_only(name: str, goal: float, tmp_path: Path) -> None:
    job = job_of(target="max_drop", value=0.5)
    assert Run(network=network_for(trained(name)), data=None, job=job, folder=tmp_path).goal.value == goal


DROPS = [("binary", True, 3.0), ("regression:metric=RMSE,unit=px", True, 0.3), ("regression:unit=px", False, 0.5)]


@pytest.mark.parametrize(
    ("name", "targets", "allowed"),
    [DROPS[0], *(pytest.param(*d, marks=pytest.mark.slow) for d in [*DROPS[1:], ("multilabel", False, 6.0)])],
)
def test_a_drop_is_in_the_task_s_unit(name: str, targets: bool, allowed: float, tmp_path: Path) -> None:
    report = run(name, "uniform", tmp_path / "run", targets=targets, target="max_drop", value=allowed, options={"points": 6})
    figure = trained(name).task.figure
    assert figure is not None and report.target == f"max drop <= {allowed:g} {figure.step}".rstrip()
    limit = allowed / figure.scale
    if targets:
        base, final = (report.measured(when, "test") for when in ("base", "final"))
        assert base is not None and final is not None
        lost = figure.worse(base.value, final.value)
        assert (lost > limit) == any("were allowed" in w for w in report.warnings)
    else:
        assert report.certificate is not None
        assert (report.certificate.bound > limit) == any("cannot be excluded" in w for w in report.warnings)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_methods_are_compared_and_points_picked(name: str, tmp_path: Path) -> None:
    one = trained(name)
    network, data = network_for(one), one.data(targets=name != "multilabel")
    found = compare_methods(
        network, data, MethodComparison(job_of(), [entry("obs"), entry("uniform")], [0, 1], "uniform"), tmp_path / "all"
    )
    assert not any(r.failed for r in found.rows) and all(r.test is not None for r in found.rows)
    gap = found.summaries[0].against["uniform"]
    ours, theirs = (sum(r.test for r in found.rows if r.method == m) / 2 for m in ("obs", "uniform"))
    assert gap.mean == pytest.approx(ours - theirs, abs=1e-6) and gap.low <= gap.mean <= gap.high
    assert found.figure.name in (tmp_path / "all" / "comparison.md").read_text()
    picked = pick(network, data, tmp_path / "all" / "obs-seed-0", macs=0.8)
    assert picked.report.task == one.task.name


@pytest.mark.slow
def test_an_interrupted_run_of_a_task_goes_on(tmp_path: Path) -> None:
    one = trained("regression:unit=px")
    network, data, job = network_for(one), one.data(), job_of("smoea", options={"generations": 2})
    whole = prune(network, data, job, tmp_path / "whole")

    class Stop(BaseException):
        pass

    def listen(event: Any) -> None:
        if type(event).__name__ == "PhaseDone" and getattr(event, "name", "") == "search":
            raise Stop

    with pytest.raises(Stop):
        prune(network, data, job, tmp_path / "again", listen=listen)
    again = prune(network, data, job, tmp_path / "again")
    assert again.plan == whole.plan and again.report.scores == whole.report.scores


def test_a_file_remembers_its_task_and_no_task_of_somebody_else_s_is_imported(tmp_path: Path) -> None:
    one = trained("binary")
    folder = tmp_path / "run"
    run("binary", "uniform", folder, targets=False)
    architecture = {"arch": "support.tasked:network"}
    from compress.networks.checkpoint import Architecture, save

    file = tmp_path / "net.safetensors"
    for said, known in (("binary", "binary"), ("regression:unit=px", "regression"), ("no_such_module:Task", None)):
        save(file, one.model, architecture=Architecture(architecture["arch"], {"outputs": 1}), metadata={"task": said})
        loaded = load(file, zoo={}, arch=architecture["arch"])
        task = network_from(loaded, example=torch.zeros(2, 1, 12, 12)).task
        assert (task.name if task is not None else None) == known
    with pytest.raises(ConfigError, match="with task = 'binary'"):
        other = network_of(one.model, example=torch.zeros(2, 1, 12, 12), task="outputs")
        prune(other, one.data(targets=False), job_of(), folder)


# ---- a task of one's own ---------------------------------------------------------------------------------------------


class Own:
    """The least: what it is called with and what it returns are usual, and nothing is scored."""

    name = "own"


class Wrong(Task):
    """Members that do not fit, one at a time."""

    name = "wrong"
    figures = task_of("regression").figures

    def __init__(self, what: str) -> None:
        self.what = what

    def loss(self, raw: Any, batch: Any) -> Any:
        good = (raw - batch[1]).abs().mean()
        return {
            "constant": torch.tensor(1.0),
            "alone": torch.ones((), requires_grad=True),
            "nan loss": good * torch.nan,
            "rows": raw,
            "broken": None,
        }.get(self.what, good)

    def imitate(self, raw: Any, teacher: Any) -> Any:
        good = (raw - teacher).abs().mean()
        return torch.tensor(1.0) if self.what == "constant imitation" else good

    def score(self, model: Any, batches: Any) -> Any:
        from compress.core import TaskScore

        seen = sum(len(b[1]) for b in batches)
        good = TaskScore(1.0, 0.9, 1.1, seen)
        nan = TaskScore(float("nan"), 0.0, 0.0, seen)
        return {"nothing": {}, "no mapping": 3.0, "nan score": {"MAE": nan}}.get(self.what, {"MAE": good})


CURES = {
    "constant": "loss.. of the task wrong does not depend on the network",
    "alone": "loss.. of the task wrong does not depend on the network",
    "constant imitation": "imitate.. of the task wrong does not depend on the network",
    "nan loss": "loss.. is nan",
    "rows": "one number as a tensor",
    "broken": "NoneType",
    "nothing": "scored nothing, wanted was MAE",
    "no mapping": "scored float",
    "nan score": "MAE is nan",
}


@pytest.mark.parametrize("what", CURES)
def test_a_task_that_does_not_fit_is_named_before_any_work(what: str, tmp_path: Path) -> None:
    one = trained("regression")
    network = network_of(one.model, example=torch.zeros(2, 1, 12, 12), task=Wrong(what))
    events: list[Any] = []
    with pytest.raises(TaskError, match=CURES[what]) as caught:
        prune(network, one.data(), job_of(epochs=None), tmp_path / "run", listen=events.append)
    assert caught.value.hint and not any(getattr(e, "name", "") == "search" for e in events)


def test_what_a_task_cannot_say_is_not_asked_of_it(tmp_path: Path) -> None:
    one = trained("regression")
    own = network_of(one.model, example=torch.zeros(2, 1, 12, 12), task=Own)
    with pytest.raises(ConfigError, match="scores nothing"):
        prune(own, one.data(), job_of(target="max_drop", value=1.0), tmp_path / "a")
    with pytest.raises(ConfigError, match="has no loss"):
        prune(own, one.data(), job_of(epochs=1, distill=0.0), tmp_path / "b")
    with pytest.raises(DataError, match="answered with values, the task classification wants classes"):
        prune(
            network_of(one.model, example=torch.zeros(2, 1, 12, 12), task="classification"),
            one.data(),
            job_of(),
            tmp_path / "c",
        )
    with pytest.raises(ConfigError, match="at most 100"):
        prune(network_for(trained("binary")), trained("binary").data(), job_of(target="max_drop", value=101.0), tmp_path / "d")
    with pytest.raises(CompressError):
        prune(
            network_of(one.model, example=torch.zeros(2, 1, 12, 12), task="binary"),
            one.data(targets=False),
            job_of(),
            tmp_path / "e",
        )


def test_unlabelled_images_make_no_classifier(tmp_path: Path) -> None:
    """Five numbers an image are not five classes: nothing is certified of them."""
    one = trained("regression")
    network = network_of(one.model, example=torch.zeros(2, 1, 12, 12))
    said: list[str] = []
    found = prune(network, one.data(targets=False), job_of(), tmp_path / "run", listen=lambda e: said.append(str(e)))
    assert found.report.task == "outputs" and found.report.certificate is None and found.report.figure is None
    assert any("--task classification if its outputs are class logits" in text for text in said)
    kept = json.loads((tmp_path / "run" / "answers.json").read_text())
    judged = read_predictions(tmp_path / "run")
    assert judged is not None and judged.figure.name == "output error" and "rows" in kept


def test_the_task_that_the_page_shows(tmp_path: Path) -> None:
    """docs/tasks.md: as few lines as it says, and a bound that holds."""
    page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()
    shown = re.search(r"test_every_task.py -->\n```python\n(.*?)```", page, re.DOTALL)
    assert shown is not None
    names: dict[str, Any] = {"__name__": "shown"}
    exec(shown[1], names)
    lines = [x for x in shown[1][shown[1].index("class") :].splitlines() if x.strip()]
    assert f"takes {len(lines) + 2} lines" in page, "with its two imports"
    one = Trained(names["Landmarks"](), trained("regression").model)
    found = prune(network_for(one), one.data(targets=False), job_of(), tmp_path / "run")
    told_truly(one, found.report, found.model, tmp_path / "run")
    assert found.report.certificate is not None and "px" in found.report.verdict


def test_a_task_s_own_loop_trains(tmp_path: Path) -> None:
    """A member like any other; what the run is given goes before it."""
    asked: list[str] = []

    class Looped(type(trained("regression").task)):  # type: ignore[misc]
        name = "looped"

        def train(self, model: Any, teacher: Any, data: Any, budget: Any, hooks: Any) -> Any:
            asked.append(f"{self.name} {budget.epochs}")
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
            hooks.gradients(optimizer)
            for pictures, wanted in data.train.batches(budget.batch):
                optimizer.zero_grad()
                self.loss(model(pictures), (pictures, wanted)).backward()
                optimizer.step()
            return model

    one = Trained(Looped(), trained("regression").model)
    found = prune(network_for(one), one.data(), job_of(epochs=1), tmp_path / "run")
    assert asked == ["looped 1"] and any(s.when == "fine-tuned" for s in found.report.steps)
