"""Runs that are measured in torch: from the search to the report, and a run's files opened again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compress_cli.app import app
from compress_models import MODELS
from support.timed_arms import chain
from torch import nn
from typer.testing import CliRunner

from compress.data import Preprocessing
from compress.errors import ConfigError, ModelError, RuntimeUnavailable
from compress.latency import Settings, cells, identify_network, measure_all, torch_runtimes
from compress.networks import Architecture, Network, save
from compress.networks.network import network_of
from compress.pipeline.job import Job
from compress.pipeline.latency_tables import kept_at, load
from compress.pipeline.module_files import module_opener, pair_of, write_module
from compress.pipeline.pruning import prune
from compress.report import read_report, take_in
from compress.testing import ToySpace, toy_table

QUICK: dict[str, Any] = {"method": "uniform", "recover": "none", "latency_seconds": 0.2, "exporter": "legacy", "round_to": 1}


def network(side: int = 24) -> Network:
    return network_of(chain(3), Preprocessing((0.5,) * 3, (0.5,) * 3, (side, side)))


@pytest.mark.slow
def test_a_run_is_clocked_and_explained_where_torch_runs_it(tmp_path: Path) -> None:
    net, run = network(), tmp_path / "run"
    done = prune(net, None, Job(runtimes=("torch-cpu",), value=0.4, **QUICK), run)
    (clocked,) = done.report.latency
    assert clocked.runtime == "torch-cpu" and clocked.clock == "cpu"
    profile = json.loads((run / "profile.json").read_text())
    assert profile["base"]["runtime"] == profile["pruned"]["runtime"] == "torch-cpu"
    assert profile["base"]["macs"] == done.report.before.macs and profile["pruned"]["macs"] == done.report.after.macs
    page = (run / "report.html").read_text()
    assert "modules one by one on torch-cpu" in page and "ONNX Runtime's profiler" not in page
    base, pruned = pair_of(net, run, tmp_path)
    images = torch.randn(2, 3, 24, 24)
    opens = module_opener(net)
    for path, model in ((base, net.model), (pruned, done.model)):
        opened, shape = opens(path)
        with torch.no_grad():
            assert shape == (3, 24, 24) and torch.equal(opened(images), model(images))
    check_taken_in(net, run, tmp_path)
    with pytest.raises(ModelError, match="holds no cut of"):
        opens(run / "model.onnx")
    with pytest.raises(ConfigError, match="is missing"):
        pair_of(net, tmp_path / "none", tmp_path)


def check_taken_in(net: Network, run: Path, place: Path) -> None:
    """What torch measures elsewhere enters the run's report; what it measures of another network does not."""

    def measured(base: Path, pruned: Path) -> Path:
        how = list(cells(["torch-cpu"], [2], Settings(budget_seconds=0.1), of_torch=torch_runtimes(module_opener(net))))
        files = {"base": identify_network(base), "pruned": identify_network(pruned)}
        found = measure_all(base, {"pruned": pruned}, how, files=files)
        (place / "card.json").write_text(json.dumps(found.to_json()))
        return place / "card.json"

    base, pruned = pair_of(net, run, place)
    (said,) = take_in(run, measured(base, pruned))
    assert said.startswith("torch-cpu on ") and [(x.batch, x.file) for x in read_report(run).latency] == [(1, ""), (2, "")]
    other = network_of(chain(3).apply(lambda m: m.weight.data.mul_(2) if isinstance(m, nn.Linear) else None), net.preprocessing)
    for wrong in ((write_module(other, place / "other.safetensors"), pruned), (pruned, pruned)):
        with pytest.raises(ConfigError, match=r"a file of tensors|base\.onnx is wanted"):
            take_in(run, measured(*wrong))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_without_a_card_torch_cuda_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match="sees no CUDA device") as caught:
        prune(network(), None, Job(runtimes=("cpu", "torch-cuda"), **QUICK), tmp_path / "run")
    assert "torch-cpu" in caught.value.hint and not (tmp_path / "run").exists()
    said = CliRunner().invoke(app, ["bench", str(tmp_path / "no-such-run"), "--runtime", "torch-cuda"])
    assert said.exit_code == 3 and "sees no CUDA device" in said.output


@pytest.mark.slow
def test_two_files_of_networks_are_compared_by_the_command(tmp_path: Path) -> None:
    for name in ("resnet32", "resnet20"):
        save(tmp_path / f"{name}.safetensors", MODELS[name](), architecture=Architecture(name))
    files = [str(tmp_path / f"{name}.safetensors") for name in ("resnet32", "resnet20")]
    out = tmp_path / "result.json"
    how = ["--runtime", "torch-cpu", "--seconds", "0.2", "--size", "16", "--out", str(out)]
    said = CliRunner().invoke(app, ["bench", *files, *how])
    assert said.exit_code == 0, said.output
    (result,) = json.loads(out.read_text())["results"]
    assert result["runtime"] == "torch-cpu" and [*result["ratios"]] == ["resnet20.safetensors"]
    assert all(arm["providers"] == ["torch-cpu"] for arm in result["arms"])


def test_tables_of_two_runtimes_are_kept_and_read_apart(tmp_path: Path) -> None:
    topology = ToySpace.make().space.topology
    path = tmp_path / "t.json"
    path.write_text(json.dumps(replace(toy_table(topology), runtime="torch-cpu").to_json()))
    assert load(path, topology, force=True, runtime="torch-cpu").runtime == "torch-cpu"
    with pytest.raises(ConfigError, match="was measured on torch-cpu, this run measures on ort-cpu"):
        load(path, topology, force=True)
    there = {name: kept_at(topology, Job(runtimes=(name,))) for name in ("cpu", "torch-cpu", "torch-cuda")}
    assert len(set(there.values())) == 3
    with pytest.raises(RuntimeUnavailable, match="in torch"):
        kept_at(topology, Job(runtimes=("cuda",)))


@pytest.mark.slow
def test_latency_asked_of_torch_is_measured_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path))
    job = Job(runtimes=("torch-cpu",), target="latency", value=0.7, **{**QUICK, "latency_seconds": 4.0})
    done = prune(network(48), None, job, tmp_path / "run")
    (clocked,) = done.report.latency
    assert clocked.runtime == "torch-cpu" and np.isclose(1 / clocked.speedup, 0.7, atol=0.12)
    assert len([*(tmp_path / "tables").glob("*-torch-cpu.json")]) == 1
    assert done.report.search["found_by"] == "a closed form", (
        "the plan that was brought to the target's widths has an origin, too"
    )
