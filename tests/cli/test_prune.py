"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from compress_cli import citations, inputs, loading, positions, progress, render
from compress_cli.app import app
from compress_cli.console import guarded
from compress_models import MODELS
from hypothesis import given
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_digits
from support.commands import DIGITS, compress, stopped_after_an_epoch, text
from support.hub_server import Hub, running_hub
from support.reports import SAMPLE, reports
from torch import nn
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner, Result

from compress import from_pretrained
from compress.core import events
from compress.core.plan import Plan
from compress.data import Preprocessing
from compress.errors import CompressError, ParityError
from compress.latency import result as latency
from compress.networks.checkpoint import Architecture, Loaded, load
from compress.pipeline import conclusion
from compress.recovery import training_events as training
from compress.report import store
from compress.report.schema import schema
from compress.search.journal import Asked
from compress.search.methods import METHODS

QUICK = ["--data", "digits", "--budget", "600", "--epochs", "1", "--latency-seconds", "0", "--exporter", "legacy"]


# ---- a whole run -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    return folder, compress("prune", DIGITS, *QUICK, "--method", "uniform", "--macs", "0.5", "--out", folder)


def test_prune_ends_with_the_table_and_says_what_is_next(finished: tuple[Path, Result]) -> None:
    folder, result = finished
    assert result.exit_code == 0, text(result)
    for wanted in ("base", "fine-tuned", "MACs promise", "widths", "compress pick", "compress bench"):
        assert wanted in result.stdout
    assert "reachable?" in result.stderr
    assert not any(line.startswith("trace") for line in result.stdout.splitlines()), "progress belongs to standard error"
    there = {p.name for p in folder.iterdir()}
    assert there >= {"report.json", "report.md", "report.html", "model.onnx", "model.safetensors", "plan.json", "inputs.json"}
    assert store.read_report(folder).reached <= 0.5


def test_the_same_command_reports_again(finished: tuple[Path, Result]) -> None:
    folder, first = finished
    stamps = {p: p.stat().st_mtime_ns for p in folder.iterdir() if p.name in ("plan.json", "model.onnx", "report.json")}
    again = compress("prune", DIGITS, *QUICK, "--method", "uniform", "--macs", "0.5", "--out", folder)
    assert again.exit_code == first.exit_code
    assert again.stdout == first.stdout
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps


def test_another_job_in_the_same_folder_is_refused(finished: tuple[Path, Result]) -> None:
    folder, _ = finished
    result = compress("prune", DIGITS, *QUICK, "--method", "uniform", "--macs", "0.6", "--out", folder)
    assert result.exit_code == 3
    assert "--fresh" in result.stderr


def test_report_shows_a_run_again(finished: tuple[Path, Result]) -> None:
    folder, first = finished
    assert compress("report", folder).stdout == first.stdout
    assert compress("report", folder, "--markdown").stdout == (folder / "report.md").read_text()
    jsonschema.validate(json.loads(compress("report", folder, "--json").stdout), schema())


def test_pick_needs_only_the_run(finished: tuple[Path, Result]) -> None:
    folder, _ = finished
    points = json.loads((folder / "front.json").read_text())["points"]
    last = len(points) - 1
    result = compress("pick", folder, "--index", str(last), "--json")
    assert result.exit_code == 0, text(result)
    picked = json.loads(result.stdout)
    assert picked["after"]["macs"] == points[last]["macs"]
    assert picked["before"]["macs"] == json.loads((folder / "report.json").read_text())["before"]["macs"]
    assert inputs.Inputs.of(folder / "picks" / str(last)) == inputs.Inputs.of(folder)


def test_a_run_s_job_repeats_it(finished: tuple[Path, Result], tmp_path: Path) -> None:
    folder, again = finished[0], tmp_path / "again"
    result = compress("prune", "--config", folder / "job.json", "--epochs", "0", "--out", again, "--quiet")
    assert result.exit_code == 0, text(result)
    assert Plan.from_json(json.loads((again / "plan.json").read_text())) == Plan.from_json(
        json.loads((folder / "plan.json").read_text())
    )
    jobs = [json.loads((run / "job.json").read_text()) for run in (folder, again)]
    assert jobs[1] == {**jobs[0], "job": {**jobs[0]["job"], "epochs": 0}}
    assert inputs.Inputs.of(again) == inputs.Inputs.of(folder)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub of our own, that huggingface_hub takes for the one there is."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    with running_hub() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.address)
        yield found


@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # huggingface_hub's own
def test_a_run_is_pushed_and_is_the_same_network_from_there(finished: tuple[Path, Result], hub: Hub, tmp_path: Path) -> None:
    folder = finished[0]
    listed = json.loads(compress("push", folder, "me/net", "--dry-run", "--json").stdout)
    assert hub.repositories == {}
    done = compress("push", folder, "me/net", "--private", "--json")
    assert done.exit_code == 0, text(done)
    pushed = hub.repositories["me/net"]
    assert {name: len(data) for name, data in pushed.items()} == listed["files"] and hub.private["me/net"]
    assert set(pushed) == {"model.safetensors", "model.onnx", "plan.json", "config.json", "README.md"}
    for place in (folder, Path.cwd(), Path.home()):  # nothing of this machine goes along
        assert not [name for name, data in pushed.items() if str(place).encode() in data]
    assert pushed["README.md"].startswith(b"---\nlibrary_name: smaller-convnets\n")
    assert json.loads(pushed["config.json"])["architecture"]["name"] == "digits_net"
    wanted = load(folder / "model.safetensors", zoo=MODELS)
    for source in ("me/net", "hf-hub:me/net@main", _unpacked(pushed, tmp_path / "saved")):
        found = from_pretrained(source, zoo=MODELS)
        assert (found.digest, found.plan, found.preprocessing) == (wanted.digest, wanted.plan, wanted.preprocessing)
        x = torch.randn(2, *found.shape)
        torch.testing.assert_close(found.model(x), wanted.model(x), rtol=0, atol=0)


def _unpacked(files: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def test_what_cannot_be_pushed_says_why(
    finished: tuple[Path, Result], hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    wrongs = {("nowhere", "me/net"): "not a folder", ("empty", "me/net"): "no model", ("empty", "net"): "names no repository"}
    for (run, name), words in wrongs.items():
        wrong = compress("push", tmp_path / run, name)
        assert wrong.exit_code == 3 and words in wrong.stderr
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    silent = compress("push", finished[0], "me/net")
    assert silent.exit_code == 3 and "nothing was pushed" in silent.stderr and "hf auth login" in silent.stderr
    with pytest.raises(CompressError, match="no folder"):
        from_pretrained(tmp_path / "nowhere")


def test_dry_run_leaves_nothing(tmp_path: Path) -> None:
    result = compress("prune", DIGITS, "--dry-run", "--out", tmp_path / "run")
    assert result.exit_code == 0
    assert "stage2.3.body.0" in result.stdout
    assert "what can be reached" in result.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [0, 5, 6])
def test_the_run_decides_the_exit_code(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    result = conclusion.Result(net(1), Plan(), SAMPLE, tmp_path / "run", tmp_path / "model.onnx", code)
    monkeypatch.setattr("compress.pipeline.prune", lambda *a, **k: result)
    ended = compress("prune", DIGITS, "--out", tmp_path / "run", "--json")
    assert ended.exit_code == code
    assert json.loads(ended.stdout)["verdict"] == SAMPLE.verdict


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of things that are no networks, and of images that cannot be used."""
    there = tmp_path_factory.mktemp("bad")
    (there / "empty.pt").touch()
    (there / "text.pt").write_text("not a network")
    (there / "folder.pt").mkdir()
    (there / "truncated.safetensors").write_bytes(DIGITS.read_bytes()[:4000])
    torch.save({"a.weight": torch.zeros(3, 4), "b.bias": torch.zeros(5)}, there / "stranger.pt")
    state = MODELS["lenet"]().state_dict()
    state[next(iter(state))].fill_(float("nan"))
    torch.save(state, there / "nan.pt")
    for name in ("one", "unreadable"):
        (there / name / "train" / "cat").mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(there / "one" / "train" / "cat" / "1.png")
    (there / "none").mkdir()
    (there / "bad.toml").write_text("method = ")
    (there / "no-job.json").write_text('{"method": "obs"}')
    (there / "unknown.toml").write_text("metod = 'smoea'\n")
    return there


BAD = {
    "missing file": (["nowhere.pt"], 3, "nowhere.pt"),
    "empty file": (["{bad}/empty.pt"], 3, "empty"),
    "text file": (["{bad}/text.pt"], 3, "text.pt"),
    "folder": (["{bad}/folder.pt"], 3, "folder"),
    "truncated": (["{bad}/truncated.safetensors"], 3, "truncated"),
    "fits nothing": (["{bad}/stranger.pt"], 3, "tensors"),
    "fits not the architecture": (["{bad}/nan.pt", "--arch", "vgg14"], 3, "not those of vgg14"),
    "fits not its record": (["{digits}", "--arch", "lenet"], 3, "do not belong to"),
    "NaN": (["{bad}/nan.pt", "--arch", "lenet"], 3, "not finite"),
    "unknown architecture": (["{bad}/nan.pt", "--arch", "resnet2O"], 3, "'resnet20'"),
    "missing data": (["{digits}", "--data", "{bad}/nothing"], 3, "nothing"),
    "data without images": (["{digits}", "--data", "{bad}/none"], 3, "none"),
    "one class": (["{digits}", "--data", "{bad}/one"], 3, "class"),
    "labels without data": (["{digits}", "--labels", "index-prefix"], 2, "--data"),
    "target 0": (["{digits}", "--macs", "0"], 3, "above 0"),
    "target 1.5": (["{digits}", "--macs", "1.5"], 3, "at most 1"),
    "two targets": (["{digits}", "--macs", "0.5", "--params", "0.5"], 2, "one target"),
    "drop of -1": (["{digits}", "--max-drop", "-1"], 3, "above 0"),
    "unreachable": (["{digits}", "--macs", "0.01"], 3, "nearest reachable"),
    "unknown setting": (["{digits}", "--set", "rond_to=8"], 3, "did you mean 'round_to'"),
    "unknown option": (["{digits}", "--set", "options.populaton=8"], 3, "did you mean 'population'"),
    "setting without value": (["{digits}", "--set", "round_to"], 3, "name=value"),
    "setting of the wrong type": (["{digits}", "--set", "round_to=many"], 3, "round_to"),
    "no network": ([], 2, "no network is given"),
    "no network, and settings of no run": (["--config", "{bad}/unknown.toml"], 2, "RUN/job.json"),
    "settings of no run": (["{digits}", "--config", "{bad}/no-job.json"], 3, "no job.json of a run"),
    "bad toml": (["{digits}", "--config", "{bad}/bad.toml"], 3, "TOML"),
    "unknown key in toml": (["{digits}", "--config", "{bad}/unknown.toml"], 3, "did you mean 'method'"),
    "unknown method": (["{digits}", "--method", "smoae"], 3, "did you mean 'smoea'"),
    "two targets, one latency": (["{digits}", "--macs", "0.5", "--latency", "0.5"], 2, "one target"),
    "latency of 0": (["{digits}", "--latency", "0"], 3, "above 0"),
    "no such table": (["{digits}", "--latency", "0.5", "--table", "{bad}/none.json"], 3, "no latency table"),
    "table of words": (["{digits}", "--latency", "0.5", "--table", "{bad}/text.pt"], 3, "no latency table"),
    "latency on a GPU": (["{digits}", "--latency", "0.5", "--runtime", "cuda"], 3, "measured on the CPU"),
    "round to words": (["{digits}", "--round-to", "blocks"], 2, "nor auto"),
    "no workers": (["{digits}", "--workers", "0"], 3, "between 1 and 1024"),
    "no actors": (["{digits}", "--workers", "ray:0"], 3, "between 1 and 1024"),
    "Ray nowhere": (["{digits}", "--workers", "ray://head"], 3, "ray://HOST:10001"),
    "workers in words": (["{digits}", "--workers", "many"], 2, "nor auto"),
    "round to 0": (["{digits}", "--round-to", "0"], 3, "between 1"),
    "unknown exporter": (["{digits}", "--exporter", "tf"], 3, "exporter"),
    "size in words": (["{digits}", "--size", "large"], 2, "--size"),
    "three sizes": (["{digits}", "--size", "1,2,3"], 2, "--size"),
    "too many means": (["{digits}", "--mean", "0,0,0"], 3, "one of each"),
    "size too small": (["{digits}", "--size", "0"], 2, "--size"),
    "everything ignored": (["{digits}", "--ignore", "*"], 3, "no group"),
    "out is a file": (["{digits}", "--out", "{bad}/text.pt"], 3, "--out"),
    "out below a file": (["{digits}", "--out", "{bad}/text.pt/run"], 3, "--out"),
    "out is not writable": (["{digits}", "--out", "/proc/run"], 3, "/proc"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_message_with_its_cure(case: str, bad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, code, wanted = BAD[case]
    result = compress("prune", *[a.format(bad=bad, digits=DIGITS) for a in arguments], "--quiet")
    assert result.exit_code == code, text(result)
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, text(result)
    assert wanted in result.stderr
    assert "hint: " in result.stderr, "a message without a cure"
    assert "Traceback" not in text(result)
    assert result.stdout == ""
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [], "something was left behind"


@pytest.mark.parametrize(
    "arguments",
    ["prune", "prune x --no-such-option", "no-such-command", "bench", "prune x --macs half"],
)
def test_usage_errors_end_with_2(arguments: str) -> None:
    result = compress(*arguments.split())
    assert result.exit_code == 2
    assert "Traceback" not in text(result)


def test_an_unreachable_target_does_not_block_the_next_try(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert compress("prune", DIGITS, "--macs", "0.01", "--out", out, "--quiet").exit_code == 3
    second = compress("prune", DIGITS, "--macs", "0.0101", "--out", out, "--quiet")
    assert "cannot be reached" in second.stderr


def test_errors_as_json() -> None:
    result = compress("prune", "nowhere.pt", "--json")
    said = json.loads(result.stdout)
    assert said["exit_code"] == result.exit_code == 3
    assert "nowhere.pt" in said["error"]
    assert said["hint"]


# ---- errors -----------------------------------------------------------------------------------------------------------


def ended_by(error: BaseException, *, resumes: bool = False, **options: Any) -> Result:
    import typer

    tiny = typer.Typer()

    @tiny.command()
    @guarded(resumes=resumes)
    def command(debug: bool = False) -> None:
        raise error

    return CliRunner().invoke(tiny, ["--debug"] if options.get("debug") else [])


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (CompressError("what [red]happened[/]", hint="do this"), 3, "error: what [red]happened[/]"),
        (ParityError("differs"), 4, "differs"),
        (ValueError("a bug"), 1, "internal error: ValueError: a bug"),
        (OSError(28, "No space left on device"), 3, "No space left"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_every_error_has_its_line_and_code(error: BaseException, code: int, said: str) -> None:
    result = ended_by(error)
    assert result.exit_code == code
    assert said in result.stderr
    assert "Traceback" not in text(result)


def test_interrupted_says_how_to_go_on() -> None:
    assert "go on with: compress" in ended_by(KeyboardInterrupt(), resumes=True).stderr
    assert "go on with" not in ended_by(KeyboardInterrupt()).stderr


def test_debug_shows_the_traceback() -> None:
    error = ValueError("a bug")
    assert ended_by(error, debug=True).exception is error


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m compress_cli cite | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("@article")
    assert done.stderr == ""


# ---- commands that change nothing ------------------------------------------------------------------------------------


def test_inspect_counts_what_there_is() -> None:
    seen = json.loads(compress("inspect", DIGITS, "--json").stdout)
    assert seen["params"] == 116_602
    assert sum(layer["macs"] for layer in seen["layers"]) == seen["macs"]
    assert 0 < seen["least_unaligned"]["macs"] < seen["least"]["macs"] < 1
    assert "classifier" in seen["not_pruned"]
    shown = compress("inspect", DIGITS, "--ignore", "stage2.*").stdout
    assert all(layer["name"] in shown for layer in seen["layers"])
    assert "ignore" in shown


def test_models_methods_doctor_cite() -> None:
    zoo = json.loads(compress("models", "--json").stdout)
    assert {entry["name"] for entry in zoo["zoo"]} == set(MODELS)
    assert all(entry["about"] for entry in zoo["zoo"])
    assert set(json.loads(compress("methods", "--json").stdout)) == set(METHODS)
    facts = json.loads(compress("doctor", "--json").stdout)
    assert facts["runtimes"]["cpu"] is True
    for command in ("models", "methods", "doctor", "cite"):
        assert compress(command).exit_code == 0
    assert "2211.01957" in compress("cite", "smoea").stdout
    assert compress("cite", "smoae").exit_code == 3


def test_every_method_can_be_cited() -> None:
    assert set(citations.OF_METHOD) == set(METHODS)
    assert {k for keys in citations.OF_METHOD.values() for k in keys} | set(citations.OF_EVERY_RUN) <= set(citations.CITATIONS)


def test_the_bibliography_is_read_whole() -> None:
    """The one file that is shipped and that the documents point to: nothing of it is lost, and nothing else is printed."""
    text = citations.REFERENCES.read_text(encoding="utf-8")
    assert compress("cite").stdout.split() == text.split()
    assert len(citations.CITATIONS) == text.count("@") == len(set(citations.CITATIONS))
    assert all(entry.count("{") == entry.count("}") for entry in citations.CITATIONS.values())


def test_the_version_is_told() -> None:
    told = compress("--version")
    assert told.exit_code == 0 and told.stdout.startswith("compress ")


def test_a_run_in_int8_and_as_a_package(finished: tuple[Path, Result], tmp_path: Path) -> None:
    folder = finished[0]
    made = compress("export", folder, "--precision", "int8", "--latency-seconds", "0", "--quiet")
    assert made.exit_code == 0, text(made)
    assert "8 of 8 layers in int8" in made.stdout and "359 test images" in made.stdout  # the images that the run remembers
    assert json.loads((folder / "precision.json").read_text())["entries"][0]["file"] == "model.int8.onnx"
    packed = compress("package", folder, "--precision", "int8", "--out", tmp_path, "--json")
    assert packed.exit_code == 0, text(packed)
    told = json.loads(packed.stdout)
    assert (tmp_path / folder.name / "1" / "model.onnx").read_bytes() == (folder / "model.int8.onnx").read_bytes()
    assert told["notes"] == [] and "labels.txt" in told["files"]
    inside = compress("package", folder, "--embed-preprocessing", "--out", tmp_path, "--name", "inside", "--server", "mlserver")
    assert inside.exit_code == 0 and "compared with torch: pass" in inside.stderr, text(inside)
    assert json.loads((tmp_path / "inside" / "model-settings.json").read_text())["inputs"][0]["datatype"] == "UINT8"
    missing = compress("package", folder, "--precision", "fp16")
    assert missing.exit_code == 3 and "compress export" in missing.stderr


# ---- finetune, export, bench -----------------------------------------------------------------------------------------


def test_finetune_saves_what_it_measured(tmp_path: Path) -> None:
    out = tmp_path / "tuned.safetensors"
    result = compress("finetune", DIGITS, "--data", "digits", "--epochs", "1", "--out", out, "--json")
    assert result.exit_code == 0, text(result)
    told = json.loads(result.stdout)
    loaded = load(out, zoo=MODELS)
    assert loaded.digest == told["digest"] != load(DIGITS, zoo=MODELS).digest
    assert loaded.metadata["finetuned"]["accuracy"] == told["accuracy"]
    assert [p.name for p in tmp_path.iterdir()] == [out.name], "the training's state stays only while it is needed"
    again = compress("finetune", DIGITS, "--data", "digits", "--epochs", "1", "--out", out)
    assert again.exit_code == 3
    assert "--fresh" in again.stderr


def test_finetune_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    found = load_digits()
    np.savez(tmp_path / "few.npz", x=(found.images[:300] * 15).astype(np.uint8), y=found.target[:300])
    arguments = ["finetune", DIGITS, "--data", tmp_path / "few.npz", "--epochs", "2", "--quiet", "--out"]
    assert compress(*arguments, whole).exit_code == 0
    with monkeypatch.context() as patch:
        patch.setattr(progress, "listening", stopped_after_an_epoch)
        stopped = compress(*arguments, broken)
    assert stopped.exit_code == 130
    assert "go on with" in stopped.stderr
    assert not broken.exists()
    assert compress(*arguments, broken).exit_code == 0
    assert load(broken, zoo=MODELS).digest == load(whole, zoo=MODELS).digest


def test_export_then_bench(tmp_path: Path) -> None:
    out = tmp_path / "net.onnx"
    result = compress("export", DIGITS, "--out", out, "--data", "digits", "--exporter", "legacy", "--json")
    assert result.exit_code == 0, text(result)
    told = json.loads(result.stdout)
    assert told["parity"]["verdict"] == "pass"
    assert told["bytes"] == out.stat().st_size
    clocked = compress("bench", out, out, "--seconds", "0.1", "--json")
    assert clocked.exit_code == 0, text(clocked)
    (measured,) = json.loads(clocked.stdout)["results"]
    assert list(measured["ratios"]) == [out.name]


def test_export_that_proves_nothing_ends_with_5(tmp_path: Path) -> None:
    model = MODELS["lenet"]()
    nn.init.zeros_([m for m in model.modules() if isinstance(m, nn.Linear)][-1].weight)
    torch.save(model.state_dict(), tmp_path / "dull.pt")
    ended = compress("export", tmp_path / "dull.pt", "--arch", "lenet", "--out", tmp_path / "o.onnx", "--exporter", "legacy")
    assert ended.exit_code == 5, text(ended)
    assert "inconclusive" in ended.stdout


@pytest.mark.slow
def test_bench_says_which_is_which(tmp_path: Path) -> None:
    out = tmp_path / "net.onnx"
    assert compress("export", DIGITS, "--out", out, "--exporter", "legacy", "--quiet").exit_code == 0
    shown = compress("bench", out, "--seconds", "0.1", "--quiet")
    assert shown.exit_code == 0, text(shown)
    for wanted in ("the same again", "verdict", str(out)[:20]):
        assert wanted in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bench", "nowhere.onnx"], "nowhere.onnx"),
        (["bench", str(DIGITS)], "onnx"),
        (["bench", str(DIGITS), "--runtime", "gpu"], "one of cpu"),
        (["finetune", str(DIGITS)], "--data"),
        (["export", str(DIGITS), "--out", "/proc/x.onnx"], "/proc"),
        (["report", "."], "report.json"),
        (["pick", ".", "--by", "knee"], "which network"),
        (["inspect", str(DIGITS), "--size", "2,x"], "--size"),
    ],
)
def test_other_commands_refuse_in_words(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = compress(*arguments)
    assert result.exit_code in (2, 3)
    assert said in result.stderr
    assert "hint: " in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("points", [[], ["--index", "0", "--by", "knee"]])
def test_pick_wants_one_point(points: list[str], tmp_path: Path) -> None:
    assert compress("pick", tmp_path, *points).exit_code == 2


# ---- which pre-processing --------------------------------------------------------------------------------------------


def net(channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).eval()


def loaded(channels: int = 3, name: str = "resnet20", preprocessing: Preprocessing | None = None) -> Loaded:
    return Loaded(net(channels), Architecture(name), Plan(), preprocessing, "")


OWN = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (24, 20), 30)


def test_flags_over_the_file_over_the_preset() -> None:
    assert loading.resolve(loaded()).size == (32, 32)
    assert loading.resolve(loaded(name="torchvision:resnet50")).size == (224, 224)
    assert loading.resolve(loaded(preprocessing=OWN)) == OWN
    assert loading.resolve(loaded(preprocessing=OWN), mean=(0.5, 0.5, 0.5)) == replace(OWN, mean=(0.5, 0.5, 0.5))
    assert loading.resolve(loaded(preprocessing=OWN), std=(1.0,)).std == (1.0, 1.0, 1.0)
    assert loading.resolve(loaded(), size=(64.0, 48.0)).shape == (3, 64, 48)
    assert loading.resolve(loaded(preprocessing=OWN), size=(48.0,)) == replace(OWN, size=(48, 48), resize=60)


def test_the_first_convolution_decides_the_channels() -> None:
    assert loading.resolve(loaded(1)).shape == (1, 32, 32)
    assert loading.resolve(loaded(4), size=(16.0,)).shape == (4, 16, 16)


def test_outputs_are_counted_by_asking() -> None:
    assert loading.classes_of(net(3), (3, 8, 8)) == 5
    assert loading.classes_of(nn.Conv2d(3, 4, 1), (3, 8, 8)) is None
    with pytest.raises(CompressError, match=r"does not take images of \[3, 2, 2\]"):
        loading.classes_of(net(3), (3, 2, 2))


def test_a_run_knows_its_inputs_wherever_the_tree_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    old = tmp_path / "old"
    (old / "runs").mkdir(parents=True)
    (old / "net.pt").touch()
    inputs.Inputs("old/net.pt", data="digits", labels="sorted", mean="0.5").remember(Path("old/runs"))
    old.rename(tmp_path / "new")
    again = inputs.Inputs.of(Path("new/runs"))
    assert Path(again.model) == Path("new/net.pt")
    assert again == inputs.Inputs(again.model, data="digits", labels="sorted", mean="0.5")


@pytest.mark.parametrize(
    ("model", "name"), [("a/resnet50.pt", "resnet50"), ("x/resnet20-12f.th", "resnet20-12f"), ("net", "net")]
)
def test_runs_are_named_after_the_file(model: str, name: str) -> None:
    assert inputs.stem(model) == name


# ---- progress and rendering ------------------------------------------------------------------------------------------

STORY = (
    events.Phase("search", "smoea, 100 image-forwards"),
    Asked("stage", 0, 4, 4, 4, 0.0, 25.0, 100.0, 0.5),
    Asked("full", -1, 4, 4, 4, 0.0, 110.0, 100.0, float("nan")),
    events.PhaseDone("search", 12.0),
    events.Warned("no [bold]data[/]"),
    events.Table("reach", ("", "least"), (("macs", "0.048"),)),
    training.TrainingProgress(1, 2, 5, 10, 0.7, 0.1, 1.0),
    training.EpochDone(1, 2, 0.8, 0.9, 0.3),
    training.EpochDone(1, 2, 0.7, 0.9, 30.0),
    training.EpochDone(2, 2, 0.6, 0.9, 0.3),
    training.Resumed(2, 2, 0, 10),
    latency.WarmedUp("base", 3, 0.1),
    latency.MeasuringProgress(10, 1.0, 2.0, None),
    latency.MeasuringProgress(20, 2.0, 2.0, 0.01),
    object(),
)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_tells_the_story(terminal: bool) -> None:
    page = io.StringIO()
    console = Console(file=page, force_terminal=terminal, width=100, color_system=None)
    with progress.listening(console, quiet=False) as listen:
        for event in STORY:
            listen(event)
    for wanted in ("search, 12.0 s", "no [bold]data[/]", "0.048", "epoch 1 of 2: loss 0.700", "epoch 2 of 2: loss 0.600"):
        assert wanted in page.getvalue()
    assert "goes on at epoch 2 of 2" in page.getvalue()
    assert "loss 0.800" not in page.getvalue(), "a line for every short epoch is noise"


def test_quiet_is_quiet() -> None:
    page = io.StringIO()
    with progress.listening(Console(file=page, force_terminal=True), quiet=True) as listen:
        for event in STORY:
            listen(event)
    assert page.getvalue() == ""


def test_positions() -> None:
    found = positions.position(Asked("stage", 0, 4, 4, 4, 0.0, 25.0, 100.0, 0.5, worked=5.0, candidates=4, stages=3))
    assert found == positions.Position(25.0, 100.0, ("stage 1 of 3", "4 plans"), worked=5.0, at_most=True)
    step = training.TrainingProgress(2, 3, 5, 10, 0.7, 0.1, 1.0)
    assert positions.position(step) == positions.Position(15, 30, ("epoch 2 of 3", "loss 0.700"))
    assert positions.position(latency.MeasuringProgress(1, 2.0, 8.0, 0.013)) == positions.Position(
        2.0, 8.0, ("± 1.3 %",), at_most=True, left=6.0
    )
    assert positions.position(events.Phase("x")) is None


def test_plain_lines_come_now_and_then_with_the_time_left() -> None:
    page, now = io.StringIO(), 0.0
    lines = progress._Lines(Console(file=page, width=100), clock=lambda: now)
    lines.hear(events.Phase("train"))
    for step in range(1, 41):
        now += 1.0
        lines.hear(training.TrainingProgress(1, 1, step, 100, 0.5, 0.1, 1.0))
    said = [line for line in page.getvalue().splitlines() if "left" in line]
    assert len(said) == 4
    assert said[-1].startswith("  40 %, about 1 min 0")


def shown(report: Any, folder: Path | None = None, width: int = 120) -> str:
    page = io.StringIO()
    render.show(Console(file=page, width=width), report, folder)
    return page.getvalue()


def test_the_verdict_comes_first_and_the_red_flags_next() -> None:
    page = shown(SAMPLE)
    order = [
        page.index(s)
        for s in ("1.42× the speed", "! ort-cpu: noisy", "÷ 2.27", "97.21 %", "MACs promise 2.00×", "stage1.0 32→24")
    ]
    assert order == sorted(order)


def test_unmeasured_accuracy_is_said() -> None:
    assert "not measured" in shown(replace(SAMPLE, scores=()))


def test_names_are_not_markup() -> None:
    odd = replace(SAMPLE, name="[red]x[/]", warnings=("[/]",), notes=("[bold",), verdict="[/nonsense]")
    assert "[/nonsense]" in shown(odd)


@given(reports)
def test_any_report_can_be_shown(report: Any) -> None:
    assert shown(report, Path("runs/x"), width=80)


def test_widths_are_kept_short() -> None:
    from compress.report.model import Width

    many = replace(SAMPLE, widths=tuple(Width(f"layer{i}", 64, 32) for i in range(100)))
    assert "and 76 more" in render.widths(many)
    assert render.widths(replace(SAMPLE, widths=(Width("a", 8, 8),))) == "unchanged in all 1 layer"


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_readme_speaks_of_commands_and_options_that_are_there() -> None:
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    house = DIGITS.parents[2]
    lines: list[str] = []
    for page in (house / "README.md", house / "CONTRIBUTING.md", *sorted((house / "docs").glob("*.md"))):
        parts = page.read_text().split("```")
        lines += [line.removeprefix("$ ") for block in parts[1::2] for line in block.splitlines()]
        lines += [" ".join(span.split()) for text in parts[::2] for span in re.findall(r"`(compress [^`]+)`", text)]
    typed = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("compress ")]
    commands = [words for words in typed if words[0] != "COMMAND" and not words[0].startswith("-")]
    assert len(commands) >= 60
    of_all = {"-h", "--help", *(option for parameter in root.params for option in parameter.opts)}
    for name, *arguments in commands:
        if name in of_all:
            continue
        known = {option for parameter in root.commands[name].params for option in parameter.opts}
        unknown = {a for a in arguments if a.startswith("--")} - known - of_all
        assert not unknown, f"compress {name} has no {unknown}"


def test_python_m_works() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "compress_cli", "cite", "uniform"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ConvNets" in done.stdout
