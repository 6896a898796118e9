"""``bench``, ``compare`` and ``bench-kit``: what they refuse, what they leave behind, and their exit codes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from compress_cli.app import app
from onnx import TensorProto, helper
from support.onnx_files import external_data_gone, two_inputs, unknown_operator
from support.timed_arms import QUICK, Spin, chain
from typer.testing import CliRunner, Result

from compress.core import environment
from compress.export.exporting import export
from compress.latency.measurement import MeasuredFile, Measurement, read_measurement
from compress.latency.protocol import measure
from compress.runtime.ort import OrtRuntime, gpus


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a slow file, a fast one, and one that takes other images."""
    folder = tmp_path_factory.mktemp("measure")
    for name, depth, size in (("slow", 10, 24), ("fast", 2, 24), ("large", 2, 32)):
        export(chain(depth), torch.randn(2, 3, size, size), folder / f"{name}.onnx", exporter="legacy")
    for name, batch, size in (("fixed", 4, 24), ("other", "batch", 32)):
        fix(folder / "slow.onnx", folder / f"{name}.onnx", batch, size)
    return folder


def fix(source: Path, target: Path, batch: object, size: int) -> None:
    """The same network declared for one batch and size of images only."""
    proto = onnx.load(source)
    shape = [batch, 3, size, size]
    value = helper.make_tensor_value_info(proto.graph.input[0].name, TensorProto.FLOAT, shape)
    del proto.graph.input[:]
    proto.graph.input.append(value)
    onnx.save(proto, target)


def compress(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def wrong_type(path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.STRING, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def truncated(path: Path) -> None:
    values = onnx.numpy_helper.from_array(np.ones(1000, np.float32), "w")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1000]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [values])
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.write_bytes(whole.SerializeToString()[:700])


BAD: tuple[tuple[Callable[[Path], object], str], ...] = (
    (lambda path: path.write_bytes(b"no model"), "is no ONNX file"),
    (lambda path: path.write_bytes(b""), "holds no network"),
    (lambda path: path.mkdir(), "cannot be read"),
    (truncated, "is no ONNX file"),
    (unknown_operator, "cannot load"),
    (external_data_gone, "in 'weights.bin', which is not beside it"),
    (two_inputs, "2 inputs, 1 is wanted"),
    (wrong_type, "tensor(string), wanted one of"),
)


@pytest.mark.parametrize("command", ["bench", "compare", "bench-kit"])
@pytest.mark.parametrize(("make", "said"), BAD)
def test_files_that_cannot_be_measured(
    make: Callable[[Path], object], said: str, command: str, made: Path, tmp_path: Path
) -> None:
    make(tmp_path / "bad.onnx")
    before = set(tmp_path.iterdir())
    ended = compress(command, made / "fast.onnx", tmp_path / "bad.onnx", "--seconds", "0.1", "--out", tmp_path / "out")
    assert ended.exit_code == 3 and said in ended.stderr and "hint: " in ended.stderr
    assert "Traceback" not in ended.stderr and set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("command", "files", "options", "said"),
    [
        ("bench", ["slow", "fixed"], [], "was exported for a batch of 4, 1 is wanted"),
        ("bench", ["fixed"], ["--batch", "1,4"], "was exported for a batch of 4, 1 is wanted"),
        ("bench-kit", ["fixed"], [], "--batch 4"),
        ("bench", ["slow", "other"], [], "takes images of [3, 32, 32]"),
        ("compare", ["slow", "other"], ["--fail-if", "slower>2%"], "takes images of [3, 32, 32]"),
        ("bench", ["slow"], ["--size", "99"], "takes images of [3, 24, 24], [3, 99, 99] is wanted"),
        ("bench", ["slow"], ["--batch", "many"], "no list of numbers"),
        ("bench", ["slow"], ["--batch", "0"], "at least 1 image"),
        ("bench", ["slow"], ["--seconds", "-3"], "must be above 0"),
        ("bench", ["slow"], ["--runtime", "abacus"], "no runtime is called"),
        ("compare", ["slow", "fast"], ["--fail-if", "slower>2"], "slower is given in %"),
        ("compare", ["slow", "nowhere"], [], "nowhere.onnx cannot be read"),
        ("bench-kit", ["nowhere"], [], "nowhere.onnx cannot be read"),
    ],
)
def test_what_does_not_fit_is_told_before_a_second_is_spent(
    command: str, files: list[str], options: list[str], said: str, made: Path, tmp_path: Path
) -> None:
    ended = compress(command, *(made / f"{name}.onnx" for name in files), *options, "--out", tmp_path / "out")
    assert ended.exit_code == 3 and said in ended.stderr and "hint: " in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_fixed_batch_is_measured_at_that_batch(made: Path, tmp_path: Path) -> None:
    ended = compress(
        "bench", made / "fixed.onnx", "--batch", "4", "--seconds", "0.1", "--out", tmp_path / "new" / "r.json", "-q"
    )
    assert ended.exit_code == 0, ended.stderr
    assert read_measurement(tmp_path / "new" / "r.json").results[0].settings.batch == 4


def test_several_batches_end_in_one_table(made: Path) -> None:
    ended = compress("bench", made / "slow.onnx", made / "fast.onnx", "--batch", "1,2", "--seconds", "0.1", "-q")
    assert ended.exit_code == 0
    _, table = ended.stdout.split("speed-up over the base")
    assert "ort-cpu, batch 1" in table and "ort-cpu, batch 2" in table and table.count("×") == 2 and "fp32" in table


@pytest.mark.skipif(bool(gpus()), reason="there is a GPU")
def test_an_absent_provider_is_said_and_required_is_an_error(made: Path, tmp_path: Path) -> None:
    both = compress(
        "bench", made / "fast.onnx", "--runtime", "cpu,cuda,tensorrt", "--seconds", "0.1", "--out", tmp_path / "r.json"
    )
    assert both.exit_code == 0
    assert both.stderr.count("not measured: cuda") == 1 and both.stderr.count("not measured: tensorrt") == 1
    found = read_measurement(tmp_path / "r.json")
    assert [result.runtime for result in found.results] == ["ort-cpu"] and len(found.skipped) == 2
    alone = compress("bench", made / "fast.onnx", "--runtime", "cuda", "--out", tmp_path / "s.json")
    assert alone.exit_code == 3 and "nothing could be measured: cuda" in alone.stderr
    required = compress("bench", made / "fast.onnx", "--runtime", "cuda", "--require-gpu", "--out", tmp_path / "s.json")
    assert required.exit_code == 3 and "a GPU is required" in required.stderr
    assert not (tmp_path / "s.json").exists()


@pytest.mark.slow
def test_a_quota_that_makes_it_meaningless_is_said(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a processor for two threads: wall time is the quota's, and no verdict is given; on one thread CPU time is not."""
    monkeypatch.setattr(environment, "quota", lambda: 0.5)
    bench = ("bench", made / "slow.onnx", made / "fast.onnx", "--seconds", "0.3")
    two = compress(*bench, "--threads", "2")
    assert two.exit_code == 0 and "different" not in two.stdout and "no verdict" in two.stdout
    one = compress(*bench, "--json", "-q")
    (facts,) = json.loads(one.stdout)["results"]
    assert any(flag.startswith("quota") and "no verdict" not in flag for flag in facts["flags"])
    ended = compress(
        "compare", made / "slow.onnx", made / "fast.onnx", "--fail-if", "faster<1%", "--threads", "2", "--seconds", "0.3"
    )
    assert ended.exit_code == 5 and "quota" in ended.stdout


@pytest.fixture(scope="module")
def sittings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what ``bench --out`` writes: against the same base a file four times as fast, and one twice as slow."""
    folder = tmp_path_factory.mktemp("sittings")
    files = {arm: MeasuredFile(f"{arm}.onnx", digit * 64, 1) for arm, digit in (("base", "a"), ("c", "b"))}
    for name, seconds in (("fast", 0.0002), ("slow", 0.0016)):
        result = measure(Spin(0.0008), {"c": Spin(seconds)}, runtime=OrtRuntime(), settings=QUICK)
        (folder / f"{name}.json").write_text(json.dumps(Measurement((result,), files).to_json()))
    return folder


@pytest.mark.parametrize(
    ("order", "bounds", "code", "said"),
    [
        (("slow", "fast"), ["slower>2%", "speedup<2", "throughput<1"], 0, "held: slower>2%"),
        (("fast", "slow"), ["slower>2%", "p50>9s"], 7, "failed: slower>2%"),
        (("slow", "fast"), ["p50>1us"], 7, "failed: p50>1us"),
        (("slow", "fast"), ["p99>1s"], 5, "a p99 needs 1,000 samples"),
        (("fast", "slow"), ["p99>1s", "slower>2%"], 7, "inconclusive: p99>1s"),
        (("slow", "fast"), [], 0, "each against the same base"),
    ],
)
def test_a_pipeline_gets_an_exit_code(order: tuple[str, str], bounds: list[str], code: int, said: str, sittings: Path) -> None:
    """Inconclusive is no success, unless that is asked for; failed is failed even so."""
    asked = [part for bound in bounds for part in ("--fail-if", bound)]
    files = [sittings / f"{name}.json" for name in order]
    ended = compress("compare", *files, *asked)
    assert ended.exit_code == code, ended.stdout + ended.stderr
    assert said in ended.stdout
    told = json.loads(compress("compare", *files, *asked, "--json").stdout)
    assert told["exit_code"] == code and len(told["cells"][0]["bounds"]) == len(bounds)
    assert compress("compare", *files, *asked, "--allow-inconclusive").exit_code == (0 if code == 5 else code)


@pytest.mark.slow
def test_an_old_measurement_against_a_new_file(made: Path, tmp_path: Path) -> None:
    """The old file is looked for and measured again; then the shared base; without either it is refused."""
    for name in ("slow", "fast"):
        shutil.copy(made / f"{name}.onnx", tmp_path)
    old, new = tmp_path / "old.json", tmp_path / "new" / "fast.onnx"
    assert (
        compress("bench", tmp_path / "slow.onnx", tmp_path / "fast.onnx", "--seconds", "4", "--out", old, "-q").exit_code == 0
    )
    new.parent.mkdir()
    shutil.copy(made / "slow.onnx", new)
    asked = (old, new, "--fail-if", "slower>30%", "--seconds", "4", "-q")
    found = compress("compare", *asked, "--json")
    assert found.exit_code == 7 and json.loads(found.stdout)["cells"][0]["paired"] is True
    (tmp_path / "fast.onnx").unlink()
    found = compress("compare", *asked, "--json", "--out", tmp_path / "later.json")
    assert found.exit_code == 7 and json.loads(found.stdout)["cells"][0]["paired"] is False
    assert compress("compare", old, tmp_path / "later.json", "--fail-if", "slower>30%").exit_code == 7
    (tmp_path / "slow.onnx").unlink()
    refused = compress("compare", *asked)
    assert refused.exit_code == 3 and "--base slow.onnx" in refused.stderr
    given = compress("compare", *asked, "--base", made / "slow.onnx", "--json")
    assert given.exit_code == 7
    refused = compress("compare", new, old)
    assert refused.exit_code == 3 and "two .json files" in refused.stderr


def test_a_kit_of_a_run(made: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    refused = compress("bench-kit", run, "--out", tmp_path / "kit.zip")
    assert refused.exit_code == 3 and "base.onnx is missing" in refused.stderr
    shutil.copy(made / "slow.onnx", run / "base.onnx")
    refused = compress("bench-kit", run, "--out", tmp_path / "kit.zip")
    assert refused.exit_code == 3 and "model.onnx is missing" in refused.stderr and not (tmp_path / "kit.zip").exists()
    shutil.copy(made / "fast.onnx", run / "model.onnx")
    shutil.copy(made / "fast.onnx", run / "model.fp16.onnx")
    told = json.loads(compress("bench-kit", run, "--out", tmp_path / "kit.zip", "--json").stdout)
    assert {name for name in told["names"] if name.startswith("files/")} == {
        "files/0-base.onnx", "files/1-model.fp16.onnx", "files/2-model.onnx",
    }  # fmt: skip


def test_precisions_and_parity_are_told(made: Path, tmp_path: Path) -> None:
    proto = onnx.load(made / "fast.onnx")
    proto.metadata_props.add(key="parity", value="inconclusive")
    onnx.save(proto, tmp_path / "doubtful.onnx")
    ended = compress("bench", made / "fast.onnx", tmp_path / "doubtful.onnx", "--seconds", "0.1")
    assert ended.exit_code == 0 and "parity inconclusive: doubtful.onnx" in ended.stdout and "fp32" in ended.stdout
