"""A run's folder that was moved, copied or changed by a stranger: found again or refused; nothing is run or fetched unasked."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from compress_cli.app import app
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

NETWORK = Path(__file__).parents[2] / "models" / "checkpoints" / "digits-net.safetensors"
PRUNE = "prune {net} --data digits --method uniform --macs 0.5 --set options.points=4 --epochs 0 --exporter legacy --quiet"
COMMANDS = {
    "package": "package {run} --out {out}/r --name n",
    "package with pre-processing": "package {run} --out {out}/r --name n --embed-preprocessing",
    "export fp16": "export {run} --precision fp16 --latency-seconds 0 --quiet --out {out}/x.onnx",
    "export int8": "export {run} --precision int8 --latency-seconds 0 --quiet --out {out}/x.onnx",
    "bench-kit": "bench-kit {run} --out {out}/k.zip",
    "bench --front": "bench {run} --front --seconds 0.1 --quiet",
    "pick": "pick {run} --index 0 --epochs 0 --quiet --out {out}/p",
    "report": "report {run}",
    "report --html": "report {run} --html --out {out}/r.html",
    "report --import": "report {run} --import {out}/nothing.json",
    "deploy": "deploy {run} --repository {out}/r --url http://127.0.0.1:9",
    "prune": PRUNE + " --latency-seconds 0 --out {run}",
}


def called(command: str, **places: Path) -> Result:
    return CliRunner().invoke(app, [word.format(**places) for word in command.split()])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network and a finished run of it."""
    place = tmp_path_factory.mktemp("made")
    (place / "nets").mkdir()
    shutil.copy(NETWORK, place / "nets" / "net.safetensors")
    places = {"net": place / "nets" / "net.safetensors", "run": place / "run"}
    ended = called(PRUNE + " --latency-seconds 0 --out {run}", **places)
    assert ended.exit_code == 0, ended.output
    ended = called("export {run} --precision fp16 --latency-seconds 0 --quiet", **places)
    assert ended.exit_code == 0, ended.output
    return place


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to spoil, its paths remembered as of there."""
    shutil.copytree(made, tmp_path / "tree")
    changed(tmp_path / "tree" / "run", lambda kept: kept["places"].update(model=str(tmp_path / "tree/nets/net.safetensors")))
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


def changed(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    kept = json.loads((run / "inputs.json").read_text())
    change(kept)
    (run / "inputs.json").write_text(json.dumps(kept))


def _other_onnx(run: Path, name: str) -> None:
    shutil.copy(run / ("base.onnx" if name != "base.onnx" else "model.onnx"), run / name)


def _other_weights(run: Path, name: str) -> None:
    state = {k: v.clone() for k, v in load_file(run / name).items()}
    key = next(k for k, v in state.items() if v.is_floating_point() and v.dim() == 4)
    state[key][0] += 1
    save_file(state, run / name)


def _other_plan(run: Path, name: str) -> None:
    (run / name).write_text(json.dumps({"cuts": {}}))


@pytest.mark.parametrize(
    ("name", "exchange"),
    [("model.onnx", _other_onnx), ("base.onnx", _other_onnx), ("model.fp16.onnx", _other_onnx),
     ("model.safetensors", _other_weights), ("plan.json", _other_plan)],
)  # fmt: skip
def test_a_file_of_a_run_that_was_exchanged_is_noticed_by_every_command(
    name: str, exchange: Callable[[Path, str], None], here: Path
) -> None:
    run = here / "tree" / "run"
    exchange(run, name)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    for title, command in COMMANDS.items():
        ended = called(command, run=run, out=here / "out", net=here / "tree/nets/net.safetensors")
        assert ended.exit_code == 3, (title, ended.exit_code, ended.output)
        said = " ".join(ended.stderr.split())
        assert f"{name} is not the file of this run" in said or "pruning plan" in said, (title, ended.stderr)
        assert not list((here / "out").iterdir()), title
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != ".lock"} == {
        p: data for p, data in before.items() if p.name != ".lock"
    }


def _tree(here: Path) -> Path:
    shutil.move(here / "tree", here / "moved")
    return here / "moved" / "run"


def _run_alone(here: Path) -> Path:
    shutil.move(here / "tree" / "run", here / "far")
    return here / "far"


def _copied(here: Path) -> Path:
    shutil.copytree(here / "tree" / "run", here / "deep" / "er" / "run")
    return here / "deep" / "er" / "run"


def _beside(here: Path) -> Path:
    run = _run_alone(here)
    shutil.move(here / "tree" / "nets" / "net.safetensors", here / "net.safetensors")
    return run


def _inside(here: Path) -> Path:
    run = _run_alone(here)
    shutil.move(here / "tree" / "nets" / "net.safetensors", run / "net.safetensors")
    return run


def _in_the_current_folder(here: Path) -> Path:
    shutil.move(here / "tree" / "nets" / "net.safetensors", here / "elsewhere" / "net.safetensors")
    return _run_alone(here)


def _a_stranger_in_its_place(here: Path) -> Path:
    run = _in_the_current_folder(here)
    (here / "net.safetensors").write_bytes(b"another network of that name")
    return run


@pytest.mark.parametrize(
    "move",
    [
        *(_beside, _a_stranger_in_its_place),
        *(pytest.param(move, marks=pytest.mark.slow) for move in (_tree, _inside, _run_alone, _copied, _in_the_current_folder)),
    ],
)
def test_a_run_that_was_moved_finds_its_network_again(move: Callable[[Path], Path], here: Path) -> None:
    run = move(here)
    ended = called(COMMANDS["pick"], run=run, out=here / "out")
    assert ended.exit_code in (0, 6), ended.output
    assert json.loads((here / "out" / "p" / "inputs.json").read_text())["sha256"]


@pytest.mark.parametrize("other", ["gone", pytest.param("another", marks=pytest.mark.slow)])
def test_where_the_network_is_not_found_the_cure_is_to_name_it(other: str, here: Path) -> None:
    run = _run_alone(here)
    net = here / "tree" / "nets" / "net.safetensors"
    shutil.move(net, here / "renamed.safetensors")
    if other == "another":
        net.write_bytes(b"another network of that name")
    for command in ("pick", "bench --front"):
        ended = called(COMMANDS[command], run=run, out=here / "out")
        assert ended.exit_code == 3 and "--model FILE" in ended.stderr, ended.output
        assert ("SHA-256" in ended.stderr) == (other == "another")
    ended = called(COMMANDS["pick"] + " --model {net}", run=run, out=here / "out", net=here / "renamed.safetensors")
    assert ended.exit_code in (0, 6), ended.output


def test_another_network_is_said_to_be_another_one(here: Path) -> None:
    other = here / "other.safetensors"
    from compress_models import MODELS

    save_file(dict(MODELS["digits_net"]().state_dict()), other)
    ended = called(COMMANDS["pick"] + " --model {net}", run=here / "tree" / "run", out=here / "out", net=other)
    assert ended.exit_code == 3 and "searched with another network" in ended.stderr and "--model FILE" in ended.stderr


REMEMBERING = [
    name for name in COMMANDS if name in ("package with pre-processing", "export fp16", "export int8", "bench --front", "pick")
]


def test_nothing_is_fetched_because_a_run_says_so(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def fetch(what: Any, *rest: Any, **more: Any) -> Any:
        asked.append(what)
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr(urllib.request, "urlopen", fetch)
    run, nowhere = here / "tree" / "run", here / "nowhere"
    changed(run, lambda kept: kept.update(data=f"cifar10:{nowhere}", download=True))
    for title in REMEMBERING:
        ended = called(COMMANDS[title], run=run, out=here / "out")
        assert not asked and not nowhere.exists(), (title, asked)
        assert ended.exit_code == 3 or title == "bench --front", (title, ended.output)
    ended = called(COMMANDS["pick"] + " --download", run=run, out=here / "out")
    assert asked and ended.exit_code != 0  # what is looked for would be seen


@pytest.mark.parametrize("what", ["arch", "data"])
def test_nothing_is_imported_because_a_run_says_so(what: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "elsewhere" / "evil_module.py").write_text("from pathlib import Path\nPath('trapped').mkdir()\ndef net(): ...\n")
    monkeypatch.syspath_prepend(str(here / "elsewhere"))
    run = here / "tree" / "run"
    changed(run, lambda kept: kept.update({what: "evil_module:net"}))
    for title in REMEMBERING:
        ended = called(COMMANDS[title], run=run, out=here / "out")
        assert not (here / "elsewhere" / "trapped").exists(), title
        assert ended.exit_code == 3 and "--trust-pickle" in ended.stderr, (title, ended.output)


ODD = [None, 3, [], "x", {"model": 7}, {"model": "/dev/zero"}, {"model": "\0"}]
KEYS = ("places", "sha256", "model", "weights")
_DEFAULT = (*(("places", i) for i in range(0, len(ODD), 4)), ("sha256", 1), ("model", 0), ("model", 3), ("weights", 2))


@pytest.mark.parametrize(
    ("key", "odd"),
    [
        pytest.param(key, odd, marks=() if (key, i) in _DEFAULT else pytest.mark.slow)
        for key in KEYS
        for i, odd in enumerate(ODD)
    ],
)
def test_any_memory_of_a_run_is_read_or_refused(key: str, odd: Any, here: Path) -> None:
    run = here / "tree" / "run"
    changed(run, lambda kept: kept.update({key: odd}))
    ended = called(COMMANDS["pick"], run=run, out=here / "out")
    assert ended.exit_code in (0, 3, 6), (ended.output, ended.exception)
