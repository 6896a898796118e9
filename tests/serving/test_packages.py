"""Packages for servers: what is written is what the ONNX file says, and whatever deviates is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from compress_models import MODELS
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from compress.data import Preprocessing, open_data
from compress.errors import ConfigError, ExportError, ParityError
from compress.export.embedding import embed, pixels_of
from compress.export.exporting import export
from compress.export.interface import read_interface, serving_facts
from compress.networks.checkpoint import load
from compress.runtime.ort import OrtRuntime
from compress.serving import triton
from compress.serving.packages import package
from compress.serving.settings import Serving

DIGITS = Path(__file__).parents[2] / "models" / "checkpoints" / "digits-net.safetensors"
PREPARED = Preprocessing((0.5, 0.4, 0.3), (0.2, 0.2, 0.1), (6, 8), resize=9)
WEIGHT = np.array([[2, -1, 0], [0.5, 1, -2], [-1, 3, 1]], np.float32)
CLASSES = ("tench", "great white  shark", "naïve")


def net(path: Path, *, batch: int | str = "batch", classes: tuple[str, ...] = CLASSES, kind: int = TensorProto.FLOAT) -> Path:
    """Global pooling and a linear layer: three classes."""
    weight = numpy_helper.from_array(WEIGHT.astype(helper.tensor_dtype_to_np_dtype(kind)), "w")
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", kind, [batch, 3, 6, 8])],
        [helper.make_tensor_value_info("scores", kind, [batch, 3])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"plan": "abc", **serving_facts(PREPARED, classes)})
    onnx.save(model, str(path))
    return path


@given(
    most=st.integers(0, 64),
    preferred=st.lists(st.integers(-1, 80), max_size=4),
    delay=st.integers(0, 5000),
    instances=st.integers(1, 4),
    threads=st.integers(0, 8),
    tensorrt=st.sampled_from(["", "fp16"]),
)
@settings(max_examples=30, deadline=None)
def test_what_is_written_passes_the_checks_and_says_what_was_asked(
    most: int,
    preferred: list[int],
    delay: int,
    instances: int,
    threads: int,
    tensorrt: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("p")
    asked = Serving(most, tuple(preferred), delay, instances, threads, "auto", 2, tensorrt)
    made = package(net(folder / "net.onnx"), folder / "repo", "triton", serving=asked)
    config = triton.parse(made.folder / "config.pbtxt")
    assert (config.name, config.backend, config.max_batch_size) == ("net", "onnxruntime", most)
    assert list(config.input[0].dims) == ([3, 6, 8] if most else [-1, 3, 6, 8])
    assert config.HasField("dynamic_batching") == (most > 0)
    assert set(config.dynamic_batching.preferred_batch_size) == {p for p in preferred if 0 < p <= most}
    assert config.instance_group[0].count == instances
    assert {w.batch_size for w in config.model_warmup} <= set(range(most + 1))
    assert bool(config.optimization.execution_accelerators.gpu_execution_accelerator) == bool(tensorrt)
    assert config.parameters["intra_op_thread_count"].string_value == (str(threads) if threads else "")
    assert config.version_policy.latest.num_versions == 2


@pytest.mark.parametrize("server", ["triton", "mlserver", "kserve"])
def test_preprocessing_and_names_travel_with_the_model(server: str, tmp_path: Path) -> None:
    source = net(tmp_path / "model.onnx")
    made = package(source, tmp_path / "repo", server, name="birds")  # type: ignore[arg-type]
    assert made.folder == tmp_path / "repo" / "birds" and not made.notes
    assert [entry.name for entry in (tmp_path / "repo").iterdir()] == ["birds"]  # nothing is left beside it
    copies = list(made.folder.rglob("model.onnx"))
    assert [copy.read_bytes() for copy in copies] == [source.read_bytes()]
    assert (made.folder / "labels.txt").read_text(encoding="utf-8").splitlines() == ["tench", "great white shark", "naïve"]
    told = json.loads((made.folder / "preprocessing.json").read_text())
    assert Preprocessing.from_json(told) == PREPARED and told["embedded"] is False
    if server == "triton":
        config = triton.parse(made.folder / "config.pbtxt")
        assert json.loads(config.parameters["preprocessing"].string_value) == told
    if server == "mlserver":
        held = json.loads((made.folder / "model-settings.json").read_text())
        assert held["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 3, 6, 8]}]
        assert held["name"] == "birds" and held["max_batch_size"] == 32
        assert (made.folder / f"{held['implementation'].split('.')[0]}.py").is_file()
    if server == "kserve":
        assert json.loads((made.folder / "model.json").read_text())["name"] == "birds"
        compile((made.folder / "kserve_server.py").read_text(), "kserve_server.py", "exec")


DAMAGES = {
    "another name": (('name: "net"', 'name: "other"'), "calls it 'other'"),
    "another backend": (('"onnxruntime"', '"pytorch"'), "backend 'pytorch'"),
    "wrong input name": (('name: "image"', 'name: "picture"'), "the ONNX file has ['image']"),
    "wrong type": (("data_type: TYPE_FP32", "data_type: TYPE_FP16"), "TYPE_FP16"),
    "wrong dims": (("dims: 8", "dims: 9"), "[3, 6, 9]"),
    "preferred above the maximum": (("dynamic_batching {", "dynamic_batching { preferred_batch_size: 33"), "[33]"),
    "batching without batches": (("max_batch_size: 32", "max_batch_size: 0"), "dynamic batching"),
    "warm-up above the maximum": (("batch_size: 32\n  inputs", "batch_size: 33\n  inputs"), "warm-up"),
    "negative batch": (("max_batch_size: 32", "max_batch_size: -1"), "-1"),
    "no instance": (("count: 1", "count: -1"), "instance group"),
    "unknown field": (("max_batch_size", "maximum_batch_size"), "maximum_batch_size"),
    "labels that are not there": (('"labels.txt"', '"names.txt"'), "names.txt"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_configuration_that_deviates_from_the_file_is_refused(name: str, tmp_path: Path) -> None:
    (old, new), told = DAMAGES[name]
    folder = package(net(tmp_path / "net.onnx"), tmp_path / "repo", "triton").folder
    triton.check(folder)
    config = folder / "config.pbtxt"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(ExportError) as caught:
        triton.check(folder)
    assert told in caught.value.message


def test_versions_are_checked_one_by_one(tmp_path: Path) -> None:
    folder = package(net(tmp_path / "net.onnx"), tmp_path / "repo", "triton").folder
    (folder / "2").mkdir()
    (folder / "0").mkdir()
    (folder / "notes").mkdir()
    assert triton.versions(folder) == (1, 2)
    with pytest.raises(ExportError, match="version 2"):
        triton.check(folder)
    net(folder / "2" / "model.onnx", batch=4)
    with pytest.raises(ExportError, match=r"version 2.*baked in"):
        triton.check(folder)
    net(folder / "2" / "model.onnx")
    triton.check(folder)
    shutil.rmtree(folder / "1")
    shutil.rmtree(folder / "2")
    with pytest.raises(ExportError, match="no version"):
        triton.check(folder)


def test_what_cannot_be_served_leaves_nothing(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    with pytest.raises(ExportError, match="baked in"):
        package(net(tmp_path / "a.onnx", batch=2), repo, "triton")
    with pytest.raises(ExportError, match="2 class names for 3 outputs"):
        package(net(tmp_path / "b.onnx"), repo, "mlserver", classes=("x", "y"))
    with pytest.raises(ConfigError, match="model's name"):
        package(net(tmp_path / "c.onnx"), repo, "kserve", name="../c")
    (tmp_path / "d.onnx").write_bytes(b"not a model")
    with pytest.raises(ExportError, match="no ONNX file"):
        package(tmp_path / "d.onnx", repo, "triton")
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot write"):
        package(net(tmp_path / "e.onnx"), tmp_path / "file", "triton")
    assert not repo.exists() or not list(repo.iterdir())
    package(net(tmp_path / "f.onnx"), repo, "triton")
    with pytest.raises(ExportError, match="there already"):
        package(net(tmp_path / "f.onnx"), repo, "kserve")
    assert read_interface(repo / "f" / "1" / "model.onnx").classes == CLASSES
    fixed = package(net(tmp_path / "g.onnx", batch=2), repo, "triton", serving=Serving(max_batch=0))
    assert list(triton.parse(fixed.folder / "config.pbtxt").input[0].dims) == [2, 3, 6, 8]


# ---- pre-processing inside the graph ------------------------------------------------------------------------------------


def test_pixels_in_probabilities_out_is_what_torch_computes(tmp_path: Path) -> None:
    data = open_data("digits")
    network = load(DIGITS, zoo=MODELS).model
    facts = serving_facts(data.preprocessing, data.classes)
    images = data.test.images(40)
    source = export(network, images[:2], tmp_path / "net.onnx", metadata=facts, exporter="legacy").path
    pixels = pixels_of(images, data.preprocessing)
    assert pixels.dtype == torch.uint8 and pixels.shape == (40, 8, 8, 1)
    parity = embed(source, tmp_path / "inside.onnx", pixels[:10], network=network)
    assert parity.verdict == "pass" and embed(source, tmp_path / "again.onnx", pixels[:10]).verdict == "pass"
    interface = read_interface(tmp_path / "inside.onnx")
    assert interface.embedded and (interface.inputs[0].kind, interface.inputs[0].dims) == ("UINT8", (-1, 8, 8, 1))
    with OrtRuntime().load(tmp_path / "inside.onnx") as session, torch.no_grad():
        answers = session.run(pixels.numpy())[0]
        wanted = network((pixels.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5).softmax(1).numpy()
    assert np.allclose(answers.sum(1), 1, atol=1e-5) and np.allclose(answers, wanted, atol=1e-5)
    assert np.mean(answers.argmax(1) == data.test.labels[:40]) > 0.9  # the normalisation is the one it was trained with
    made = package(tmp_path / "inside.onnx", tmp_path / "repo", "triton")
    config = triton.parse(made.folder / "config.pbtxt")
    assert config.input[0].data_type == triton.schema().DataType.Value("TYPE_UINT8") and list(config.input[0].dims) == [8, 8, 1]
    assert json.loads((made.folder / "preprocessing.json").read_text())["embedded"] is True
    with pytest.raises(ExportError, match="inside already"):
        embed(tmp_path / "inside.onnx", tmp_path / "twice.onnx", pixels)


def test_every_channel_has_its_own_mean_and_deviation(tmp_path: Path) -> None:
    linear = torch.nn.Linear(3, 3, bias=False)
    linear.weight.data = torch.from_numpy(WEIGHT.T.copy())
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), linear).eval()
    colours = torch.randint(0, 256, (8, 1, 1, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = colours.expand(8, 6, 8, 3).contiguous()
    assert embed(net(tmp_path / "net.onnx"), tmp_path / "o.onnx", pixels, network=network).verdict == "pass"
    with OrtRuntime().load(tmp_path / "o.onnx") as session:
        answers = session.run(pixels.numpy())[0]
    scores = ((colours[:, 0, 0].numpy() / 255 - PREPARED.mean) / PREPARED.std) @ WEIGHT
    assert np.allclose(answers, np.exp(scores) / np.exp(scores).sum(1, keepdims=True), atol=1e-5)


def test_another_network_inside_is_refused(tmp_path: Path) -> None:
    source = net(tmp_path / "net.onnx")
    pixels = torch.randint(0, 256, (8, 6, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ParityError, match="something else"):
        embed(
            source, tmp_path / "o.onnx", pixels, network=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 3)).eval()
        )
    assert not (tmp_path / "o.onnx").exists()
