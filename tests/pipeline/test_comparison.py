from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compress_cli.app import app
from compress_models import MODELS
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from typer.testing import CliRunner

from compress.core.cost import count
from compress.core.plan import Cut, Plan
from compress.core.statistics import difference
from compress.coupling.tracer import trace
from compress.data import Data
from compress.errors import ConfigError, SearchError
from compress.evaluation.criteria import CRITERIA
from compress.evaluation.top1 import accuracy
from compress.networks import checkpoint, in_batches
from compress.networks.network import Network
from compress.pipeline import compared_runs
from compress.pipeline.compared_method import ComparedMethod, MethodComparison, entry
from compress.pipeline.comparison import compare_methods
from compress.pipeline.job import make_job
from compress.pipeline.preparation import prepare
from compress.pipeline.run import Run
from compress.recovery.batch_norm import reestimate
from compress.report.comparison import ComparedRun, Comparison, summary
from compress.surgery.cutting import cut

REFERENCE = Path(__file__).parents[2] / "models" / "checkpoints" / "digits-net.safetensors"
QUICK: dict[str, Any] = {
    "epochs": 1,
    "latency_seconds": 0.0,
    "budget": 3000,
    "calibration": 64,
    "exporter": "legacy",
    "recover": "bn",
}


def halved(model: nn.Module, batches: Sequence[Tensor], share: float, seed: int) -> nn.Module:
    """An outsider's pruner: the first three quarters of one group."""
    topology = trace(model, batches[0][:1])
    group = topology.groups[1]
    return cut(model, topology, Plan({group.id: Cut(tuple(range(3 * group.size // 4)))}))


@pytest.fixture(scope="module")
def compared(digits: tuple[Network, Data], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison]:
    folder = tmp_path_factory.mktemp("compared")
    arms = {"theirs": ("tests:halved", halved)}
    entries = [entry("global-fpgm"), entry("theirs", arms=arms)]
    return folder, compare_methods(*digits, MethodComparison(make_job(flags=QUICK), entries, (0, 1)), folder)


# ---- one protocol ----------------------------------------------------------------------------------------------------


def test_every_method_and_seed_is_a_run_of_its_own(compared: tuple[Path, Comparison], digits: tuple[Network, Data]) -> None:
    folder, found = compared
    names = ["global-fpgm", "theirs", "uniform"]  # the reference is added
    assert [s.method for s in found.summaries] == names
    assert [(r.method, r.seed) for r in found.rows] == [(n, s) for s in (0, 1) for n in names]
    jobs = [json.loads((folder / r.folder / "job.json").read_text()) for r in found.rows]
    own = ("method", "options", "seed", "ranking", "realise", "score_threads")  # the other pruner scores nothing
    assert len({json.dumps({k: v for k, v in j["job"].items() if k not in own}, sort_keys=True) for j in jobs}) == 1
    assert len({j["identity"]["data.train"] for j in jobs}) == 1
    for row in found.rows:
        if row.method != "theirs":
            assert 0.3 < row.macs <= 0.5
            assert set(row.validation) == {"cut", "batch norm", "fine-tuned"}
            assert row.requests["full"]["evaluated"] >= 1 and row.image_forwards > 0 and row.search_seconds > 0
        assert row.test is not None and row.base == found.rows[0].base


def test_an_arm_is_judged_like_our_own(compared: tuple[Path, Comparison], digits: tuple[Network, Data]) -> None:
    """Its cost is counted from the module; a pruner that happens to be ours gets the figures of ours."""
    folder, found = compared
    network, data = digits
    topology = trace(network.model, torch.zeros(1, 1, 8, 8))
    group = topology.groups[1]
    plan = Plan({group.id: Cut(tuple(range(3 * group.size // 4)))})
    row = next(r for r in found.rows if r.method == "theirs")
    share = count(topology, plan).share_of(count(topology))
    assert row.macs == pytest.approx(share.macs) and row.params == pytest.approx(share.params)
    small = cut(network.model, topology, plan)
    settled = reestimate(small, in_batches(data.calibration.images(64)))
    wanted = {"cut": accuracy(small, data.validation).top1, "batch norm": accuracy(settled, data.validation).top1}
    assert {state: row.validation[state] for state in wanted} == wanted and wanted["cut"] != wanted["batch norm"]
    again = checkpoint.load(folder / row.folder / "model.safetensors", zoo=MODELS)
    kept = json.loads((folder / row.folder / "answers.json").read_text())["right"]
    with torch.no_grad():
        right = [bool(r) for x, y in data.test.batches(64) for r in (again.model(x).argmax(1) == y).tolist()]
    assert kept["final"] == "".join("01"[r] for r in right)


def test_means_spreads_and_differences_are_those_of_the_rows(compared: tuple[Path, Comparison]) -> None:
    _, found = compared
    for s in found.summaries:
        tests = [r.test for r in found.rows if r.method == s.method]
        assert s.figures["test"].mean == pytest.approx(np.mean(tests)) and s.figures["test"].sd == pytest.approx(
            np.std(tests, ddof=1)
        )
        for name, gap in s.against.items():
            theirs = [
                r.base if name == "unpruned" else r.test
                for r in found.rows
                if r.method == (s.method if name == "unpruned" else name)
            ]
            assert gap.mean == pytest.approx(np.mean(tests) - np.mean(theirs)) and gap.low <= gap.mean <= gap.high
            assert gap.images == 359 and gap.seeds == 2
    assert set(found.summaries[0].against) == {"uniform", "unpruned"} and set(found.summaries[2].against) == {"unpruned"}


def test_the_files_say_the_same(compared: tuple[Path, Comparison]) -> None:
    folder, found = compared
    kept = json.loads((folder / "comparison.json").read_text())
    assert kept == json.loads(json.dumps(found.to_json()))
    page = (folder / "comparison.md").read_text()
    assert all(f"| {s.method} |" in page for s in found.summaries) and "not within 1%" in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1
    assert (folder / "comparison.svg").read_text().lstrip().startswith("<?xml")


def test_the_same_call_again_only_reads(compared: tuple[Path, Comparison], digits: tuple[Network, Data]) -> None:
    folder, found = compared

    def refuse(model: nn.Module, batches: Sequence[Tensor], share: float, seed: int) -> nn.Module:
        raise AssertionError("pruned again")

    entries = [
        entry("global-fpgm"),
        ComparedMethod("theirs", arm=refuse, origin="tests:halved"),
        entry("uniform"),
    ]
    again = compare_methods(*digits, MethodComparison(make_job(flags=QUICK), entries, (0, 1)), folder)
    assert again.summaries == found.summaries
    with pytest.raises(ConfigError, match="holds a run with epochs"):
        compare_methods(*digits, MethodComparison(make_job(flags={**QUICK, "epochs": 2}), entries, (0, 1)), folder)


@pytest.mark.slow
def test_the_reference_under_another_name_is_not_run_twice(digits: tuple[Network, Data], tmp_path: Path) -> None:
    wanted = MethodComparison(make_job(flags={**QUICK, "epochs": 0}), [entry("l1"), entry("l2")], (0,))
    found = compare_methods(*digits, wanted, tmp_path)
    assert found.reference == "l1" and [s.method for s in found.summaries] == ["l1", "l2"]
    assert set(found.summaries[1].against) == {"l1", "unpruned"}


def test_one_failure_does_not_end_the_others(
    digits: tuple[Network, Data], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sometimes(network: Network, data: Data, job: Any, folder: Path, **more: Any) -> Any:
        if job.method == "obs":
            raise SearchError("no candidate could be scored", hint="give others")
        return honest(network, data, job, folder, **more)

    honest = compared_runs.prune
    monkeypatch.setattr(compared_runs, "prune", sometimes)
    small = {**QUICK, "epochs": 0}
    arms = {"broken": ("tests:broken", lambda model, batches, share, seed: nn.Flatten())}
    entries = [entry("obs"), entry("broken", arms=arms)]
    found = compare_methods(*digits, MethodComparison(make_job(flags=small), entries, (0,)), tmp_path)
    assert [bool(r.failed) for r in found.rows] == [True, True, False]
    assert found.summaries[0].failed == ("seed 0: no candidate could be scored (give others)",)
    assert not found.summaries[0].figures
    assert "outputs (2, 64), (2, 10) were wanted" in found.rows[1].failed
    assert "no candidate could be scored" in (tmp_path / "comparison.md").read_text()


@pytest.mark.slow
def test_without_labels_agreement_with_the_unpruned_network_is_compared(
    digits: tuple[Network, Data], unlabelled: Data, tmp_path: Path
) -> None:
    network, data = digits
    arms = {"theirs": ("tests:halved", halved)}
    small = make_job(flags={**QUICK, "epochs": 0, "recover": "none", "zero_kernels": 0.01})
    wanted = MethodComparison(small, [entry("l2"), entry("theirs", arms=arms)], (0,))
    found = compare_methods(network, unlabelled, wanted, tmp_path)
    for row in found.rows:
        pruned = checkpoint.load(tmp_path / row.folder / "model.safetensors", zoo=MODELS).model.eval()
        with torch.no_grad():
            same = [network.model(x).argmax(1) == pruned(x).argmax(1) for x, _ in data.test.batches(64)]
        assert row.test == pytest.approx(float(torch.cat(same).float().mean())) and row.base == 1.0 and not row.validation
    assert found.summaries[0].against["uniform"].images == len(data.test)
    page = (tmp_path / "comparison.md").read_text()
    assert "agreement − uniform" in page and "no labels" in page and "Unpruned" not in page and "zero_kernels 0.01" in page
    assert "agreement" in (tmp_path / "comparison.svg").read_text()


# ---- names -----------------------------------------------------------------------------------------------------------


def test_names() -> None:
    assert entry("smoea") == ComparedMethod("smoea", "smoea") and entry("obs").method == "obs"
    assert entry("l1") == ComparedMethod("l1", "uniform", {"criterion": "l1"})
    assert entry("bn-scale").options == {"criterion": "bn-scale"}
    assert entry("global-bn-scale") == ComparedMethod("global-bn-scale", "global", {"criterion": "bn-scale"})
    assert entry("uniform-obs") == ComparedMethod("uniform-obs", "uniform", {"criterion": "obs"})
    assert {entry(c).options.get("criterion", c) for c in CRITERIA} == set(CRITERIA)
    with pytest.raises(ConfigError, match="Torch-Pruning") as caught:
        entry("tp-group-norm")
    assert "--arm tp-group-norm=benchmarks.torch_pruning_arm:group_norm" in caught.value.hint
    with pytest.raises(ConfigError) as caught:
        entry("smoeaa")
    assert "smoea" in caught.value.hint


@pytest.mark.parametrize("method", ["uniform", "global"])
def test_obs_as_a_criterion_stands_on_moments(method: str, digits: tuple[Network, Data], tmp_path: Path) -> None:
    """Without moments it would silently be l1."""
    job = make_job(flags={**QUICK, "method": method, "options": {"criterion": "obs"}})
    space = prepare(Run(*digits, job, tmp_path)).space
    assert space.statistics.curves and any(
        (space.statistics.importance["obs"][g].argsort() != space.statistics.importance["l1"][g].argsort()).any()
        for g in space.groups
    )


@pytest.mark.parametrize("setting", [{"ranking": "l0"}, {"options": {"seeds": ["l1", "l0"]}}, {"options": {"criterion": "l0"}}])
def test_a_criterion_that_is_not_there_is_refused(
    setting: dict[str, Any], digits: tuple[Network, Data], tmp_path: Path
) -> None:
    job = make_job(flags={**QUICK, "method": "obs" if "criterion" in str(setting) else "smoea", **setting})
    with pytest.raises(ConfigError, match="'l0' is no criterion"):
        prepare(Run(*digits, job, tmp_path))


def test_wrong_protocols_end_before_any_work(digits: tuple[Network, Data], tmp_path: Path) -> None:
    job = make_job(flags=QUICK)
    with pytest.raises(ConfigError, match="once"):
        compare_methods(*digits, MethodComparison(job, [entry("obs"), entry("obs")], (0,)), tmp_path)
    with pytest.raises(ConfigError, match="no option"):
        compare_methods(*digits, MethodComparison(job, [entry("obs", {"population": 3})], (0,)), tmp_path)
    arms = {"theirs": ("tests:halved", halved)}
    with pytest.raises(ConfigError, match="share of the MACs"):
        compare_methods(*digits, MethodComparison(replace(job, target="params"), [entry("theirs", arms=arms)], (0,)), tmp_path)
    assert not list(tmp_path.iterdir())


# ---- paired answers --------------------------------------------------------------------------------------------------


@given(st.integers(2, 60), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_a_difference_is_antisymmetric_and_holds_its_mean(images: int, seeds: int, draw: int) -> None:
    rng = np.random.default_rng(draw)
    ours, theirs = (list(rng.random((seeds, images)) < p) for p in (0.8, 0.6))
    there, back = difference(ours, theirs), difference(theirs, ours)
    assert there.mean == pytest.approx(np.mean(ours) - np.mean(theirs)) and there.mean == pytest.approx(-back.mean)
    assert there.low == pytest.approx(-back.high) and there.low <= there.mean <= there.high
    assert difference(ours, ours).verdict == "not distinguishable" and difference(ours, ours).high > 0


def test_its_interval_covers_the_true_difference() -> None:
    rng = np.random.default_rng(0)
    truth, covered, false_alarms = 0.06 - 0.02, 0, 0
    for _ in range(2000):
        kind = rng.choice(4, size=300, p=[0.8, 0.06, 0.02, 0.12])  # both right, only ours, only theirs, none
        found = difference([kind <= 1], [(kind == 0) | (kind == 2)])
        covered += found.low <= truth <= found.high
        swapped = rng.random(300) < 0.5  # no true difference
        ours, theirs = np.where(swapped, kind <= 1, kind % 2 == 0), np.where(swapped, kind % 2 == 0, kind <= 1)
        false_alarms += difference([ours], [theirs]).verdict != "not distinguishable"
    assert 0.935 <= covered / 2000 <= 0.98 and false_alarms / 2000 <= 0.06


def test_pairing_sees_what_separate_intervals_do_not() -> None:
    """The same images are hard for both; only a few decide."""
    rng = np.random.default_rng(0)
    hard = rng.random(2000) < 0.3
    ours, theirs = ~hard, ~hard & (np.arange(2000) % 50 != 0)
    assert difference([ours], [theirs]).verdict == "ahead"
    assert difference([ours], [rng.permutation(theirs)]).verdict == "not distinguishable"


def test_a_summary_without_good_runs_has_no_figures() -> None:
    found = summary("x", [ComparedRun("x", 0, "x-seed-0", failed="why")], {})
    assert not found.figures and found.failed == ("seed 0: why",) and found.latency is None


# ---- the command line ------------------------------------------------------------------------------------------------


def compress(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_pruner.py").write_text("def whole(model, batches, share, seed):\n    return model\n")
    arguments = ["--epochs", "0", "--latency-seconds", "0", "--seeds", "0", "--recover", "bn", "--out", tmp_path / "out"]
    arguments += ["--set", "exporter=legacy", "--set", "cluster.population=4", "--set", "cluster.generations=2"]
    arguments += ["--budget", "3000", "--data", "digits", "--methods", "cluster,mine", "--arm", "mine=my_pruner:whole"]
    result = compress("compare-methods", REFERENCE, *arguments)
    assert result.exit_code == 0, result.output
    assert all(name in result.stdout for name in ("cluster", "mine", "uniform", "comparison.svg"))
    assert "mine keeps 1.000 of the macs" in result.stdout
    job = json.loads((tmp_path / "out" / "cluster-seed-0" / "job.json").read_text())["job"]
    assert job["options"] == {"population": 4, "generations": 2}
    again = compress("compare-methods", REFERENCE, *arguments, "--json", "-q")
    kept = json.loads(again.stdout)
    assert [s["method"] for s in kept["summaries"]] == ["cluster", "mine", "uniform"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("--methods tp-group-norm --data digits", 3, "--arm tp-group-norm=benchmarks.torch_pruning_arm:group_norm"),
        ("--methods obs", 3, "--data"),
        ("--methods obs --data digits --seeds a", 2, "whole numbers"),
        ("--methods obs --data digits --arm x", 2, "NAME=package.module:function"),
        ("--methods x --data digits --arm x=no_such_module:f", 3, "no_such_module"),
        ("--methods obs --data digits --macs 0.5 --params 0.5", 2, "one target"),
        ("--methods obs --data digits --set smoea.population=4", 3, "not among --methods"),
        ("--methods obs --data digits --set obs.population=4", 3, "no option"),
        ("--methods obs --data digits --set obs.line=much", 3, "options.line"),
        ("--methods smoea --data digits --set options.population=6", 3, "--set smoea.population=6"),
        ("--methods smoea --data digits --config job.toml", 3, "--set smoea.NAME=VALUE"),
    ],
)
def test_bad_comparisons_are_one_message(
    arguments: str, code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.toml").write_text("[options]\npopulation = 6\n")
    result = compress("compare-methods", REFERENCE, *arguments.split(), "--out", tmp_path / "o")
    assert result.exit_code == code and said in result.stderr, result.output
    assert not (tmp_path / "o").exists()


# ---- Torch-Pruning's own pruner --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tp-group-norm", pytest.param("tp-global-taylor", marks=pytest.mark.slow)])
def test_torch_prunings_own_pruner_meets_the_macs_and_computes_something(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from benchmarks import torch_pruning_arm

    torch.manual_seed(0)
    model = MODELS["resnet20"]().eval()
    images = [torch.randn(8, 3, 32, 32)]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    small = torch_pruning_arm.ARMS[name](model, images, 0.5, 0)
    assert 0.495 <= torch_pruning_arm.macs(small, images[0][:1]) / torch_pruning_arm.macs(model, images[0][:1]) <= 0.5
    left = torch_pruning_arm.ignored(model, images[0][:1])
    assert {"conv1", "layer1.0.conv2", "layer3.2.conv2", "linear"} <= set(left) and "layer1.0.conv1" not in left
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())
    assert small(images[0]).shape == (8, 10) and all(p.requires_grad and p.grad is None for p in small.parameters())
