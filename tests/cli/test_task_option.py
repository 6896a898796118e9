"""``--task`` on the command line, and what a folder remembers of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from compress_cli.console import UsageError
from compress_cli.export import int8_may_lose
from compress_cli.inputs import Inputs
from support.commands import compress
from support.tasked import trained

from compress.errors import ModelError
from compress.export import read_interface
from compress.networks.checkpoint import Architecture, save
from compress.tasks import task_of

FROM = ["--example", "support.tasked:example", "--data", "support.tasked:pictures_of_regression"]
QUICK = ["--method", "uniform", "--set", "round_to=4", "--epochs", "0", "--latency-seconds", "0", "--exporter", "legacy", "-q"]


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("net") / "net.safetensors"
    save(file, trained("regression").model, architecture=Architecture("support.tasked:network", {"outputs": 2}))
    return file


def test_images_of_one_s_own_say_their_size(net: Path) -> None:
    """Without --size the network was traced, clocked and exported at 224 pixels, whatever the data's."""
    given = Inputs(model=str(net), arch="support.tasked:network", data="support.tasked:pictures_of_regression")
    assert given.opened()[0].shape == (1, 12, 12)
    with pytest.raises(ModelError, match=r"does not take images of \[1, 16, 16\]"):
        replace(given, size="16").opened()


def started(net: Path, *more: object) -> list[object]:
    return ["prune", net, "--arch", "support.tasked:network", *FROM, *QUICK, *more]


def test_a_task_of_ours_is_remembered_one_of_yours_is_named_again(net: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    made = compress(*started(net, "--task", "support.tasked:Distance", "--out", run, "--json"))
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["task"] == "distance" and json.loads(made.stdout)["figure"]["name"] == "MAE"
    refused = compress("pick", run, "--index", "0", "--trust-pickle", "-q")
    assert refused.exit_code == 3 and "--task support.tasked:Distance" in refused.output
    again = ["pick", run, "--index", "0", "--epochs", "0", "--out", tmp_path / "p", "--trust-pickle", "-q"]
    picked = compress(*again, "--task", "support.tasked:Distance")
    assert picked.exit_code == 0, picked.output


def test_the_unit_of_a_drop_is_the_task_s(net: Path, tmp_path: Path) -> None:
    made = compress(*started(net, "--task", "regression:unit=px", "--max-drop", "0.5", "--out", tmp_path / "run"))
    assert made.exit_code == 0, made.output
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["target"] == "max drop <= 0.5 px" and "px" in made.output and "top-1" not in made.output
    base, final = (
        next(s["value"] for s in report["scores"] if (s["when"], s["split"]) == (w, "test")) for w in ("base", "final")
    )
    front = json.loads((tmp_path / "run" / "front.json").read_text())
    within = [p for p in front["points"] if p["error"] <= 0.5]
    assert within and front["points"][front["chosen"]] == within[0], "the cheapest that loses half a pixel at most"
    held = json.loads((tmp_path / "run" / "job.json").read_text())["job"]
    assert held["unit"] == report["job"]["unit"] == "px"
    told = read_interface(tmp_path / "run" / "model.onnx").preprocessing
    assert told is None, "how images are prepared only the user's own code knows: nothing is guessed into the file"
    assert (final - base > 0.5) == any("0.5 were allowed" in w for w in report["warnings"])
    picked = compress("pick", tmp_path / "run", "--index", "0", "--out", tmp_path / "p", "--trust-pickle", "-q")
    assert picked.exit_code == 0, picked.output
    other = compress(
        "pick", tmp_path / "run", "--index", "0", "--out", tmp_path / "q", "--trust-pickle", "--task", "outputs", "-q"
    )
    assert other.exit_code == 3 and "another task" in other.output


@pytest.mark.parametrize(
    ("task", "said"),
    [("regresion", "did you mean 'regression'"), ("regression:metric=mae", "MAE"), ("classification", "wants classes")],
)
def test_a_wrong_task_is_refused_before_any_work(net: Path, tmp_path: Path, task: str, said: str) -> None:
    refused = compress(*started(net, "--task", task, "--out", tmp_path / "run"))
    assert refused.exit_code in (2, 3) and said in refused.output and not (tmp_path / "run").exists()


def test_what_int8_may_lose_is_said_where_its_unit_means_nothing_to_others() -> None:
    data = trained("regression").data()
    for name, typed, allowed in (
        ("binary", None, 0.005),
        ("binary", 2.0, 0.02),
        ("restoration", None, 0.5),
        ("outputs", None, 0.005),
    ):
        assert int8_may_lose(typed, task_of(name), None) == allowed
    assert int8_may_lose(250.0, task_of("regression:unit=px"), data) == 250.0, "a unit has no limit"
    with pytest.raises(UsageError, match="MAE is in px"):
        int8_may_lose(None, task_of("regression:unit=px"), data)
    with pytest.raises(UsageError, match="101 points, but must be at most 100"):
        int8_may_lose(101.0, task_of("binary"), None)


def test_a_network_is_fine_tuned_by_its_task(net: Path, tmp_path: Path) -> None:
    given = ["finetune", net, "--arch", "support.tasked:network", *FROM, "--epochs", "1", "--lr", "0.001", "-q"]
    made = compress(*given, "--task", "regression:unit=px", "--out", tmp_path / "tuned.safetensors")
    assert made.exit_code == 0 and "MAE" in made.output and "px" in made.output, made.output
    refused = compress(*given, "--task", "outputs", "--out", tmp_path / "b.safetensors")
    assert refused.exit_code == 3 and "has no figure" in refused.output
