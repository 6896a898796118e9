"""The tests' own networks, exported by torch and imported again: the same outputs, the same groups, and the way back."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from support.nets import build, example, traced

from compress.core import Topology, count
from compress.coupling import trace
from compress.export import export_verified
from compress.importing import ImportedNetwork, import_onnx
from compress.networks import load, network_from, save
from compress.surgery import cut, random_plan, verify

NAMES = ("residual", "concat", "depthwise-2", "se-gate")
DEAR = (
    "dense",
    "two-heads",
    "transposed",
    "layernorm",
    "conv1d",
    "chain",
    "grouped",
    "shared",
    "groupnorm",
    "instancenorm",
    "split",
    "chunk",
    "conv3d",
    "functional",
    "pixel-shuffle",
)


def exported(name: str, path: Path, opset: int = 17) -> torch.nn.Module:
    model, buffer = build(name), io.BytesIO()
    shown = example(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.cat([shown, shown]),),
            buffer,
            dynamo=False,
            opset_version=opset,
            input_names=["images"],
            dynamic_axes={"images": {0: "batch"}},
        )
    path.write_bytes(buffer.getvalue())
    return model


def sizes(topology: Topology) -> list[tuple[int, int, int]]:
    """What identifies the groups of a network without their names: size, and layers that write and read."""
    return sorted((g.size, len(topology.writers(g.id)), len(topology.readers(g.id))) for g in topology.groups)


@pytest.mark.parametrize("name", [*NAMES, *(pytest.param(n, marks=pytest.mark.slow) for n in DEAR)])
def test_an_exported_network_comes_back_with_its_outputs_and_groups(name: str, tmp_path: Path) -> None:
    model = exported(name, tmp_path / "m.onnx")
    network = import_onnx(tmp_path / "m.onnx").network
    shown = example(name)
    images = torch.randn(3, *shown.shape[1:], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted, got = model(images), network(images)
    wanted = list(wanted.values()) if isinstance(wanted, dict) else list(wanted) if isinstance(wanted, tuple) else [wanted]
    got = list(got.values()) if isinstance(got, dict) else [got]
    for one, two in zip(wanted, got, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)
    assert sizes(trace(network, shown)) == sizes(traced(name)[1])


def test_a_cut_network_goes_back_into_its_file_and_is_read_again(tmp_path: Path) -> None:
    exported("residual", tmp_path / "m.onnx", opset=13)
    loaded = load(tmp_path / "m.onnx")
    network = network_from(loaded)
    assert isinstance(network.model, ImportedNetwork) and network.shape == (3, 8, 8)
    topology = trace(network.model, torch.zeros(1, *network.shape))
    plan = random_plan(topology, 0.5, np.random.default_rng(0))
    small = cut(network.model, topology, plan)
    images = torch.randn(8, *network.shape, generator=torch.Generator().manual_seed(1))
    verify(network.model, topology, plan, small, images[:2])
    assert count(topology, plan).macs < count(topology).macs
    written, parity = export_verified(small, images, tmp_path / "small.onnx")
    assert written.opset == 13 and parity.verdict == "pass"
    save(tmp_path / "small.safetensors", small, architecture=loaded.architecture, plan=plan)
    (tmp_path / "m.onnx").unlink()  # the saved network stands for itself
    again = load(tmp_path / "small.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(again.model(images), small(images), rtol=0, atol=0)
    reread = load(tmp_path / "small.onnx")
    with torch.no_grad():
        torch.testing.assert_close(reread.model(images), small(images), rtol=1e-4, atol=1e-5)


def test_a_second_output_that_nobody_reads_is_none(tmp_path: Path) -> None:
    """Files of old exporters name the mask of every dropout."""
    from onnx import TensorProto, helper, numpy_helper, save_model

    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Dropout", ["a"], ["b", "mask"]),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", c, 8, 8]) for name, c in (("x", 3), ("y", 4))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])
    path = tmp_path / "dropout.onnx"
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    assert import_onnx(path).proof.error < 1e-5


@pytest.mark.parametrize(
    ("last", "bias", "silent"), [("Sigmoid", -30.0, True), ("Sigmoid", 0.0, False), ("Identity", 1e-5, False)]
)
def test_a_probability_that_is_near_zero_everywhere_is_said_not_to_be_told(
    last: str, bias: float, silent: bool, tmp_path: Path
) -> None:
    from onnx import TensorProto, helper, numpy_helper, save_model

    weight = 1e-4 * np.random.default_rng(0).normal(size=(2, 3, 1, 1)).astype(np.float32)
    held = [numpy_helper.from_array(weight.astype(np.float32), "w"), numpy_helper.from_array(np.full(2, bias, np.float32), "b")]
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["a"]), helper.make_node(last, ["a"], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", c, 4, 4]) for name, c in (("x", 3), ("y", 2))]
    path = tmp_path / "one.onnx"
    model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], held), ir_version=8)
    model.opset_import[0].version = 13
    save_model(model, path)
    found = import_onnx(path)
    assert found.proof.silent == (("y",) if silent else ())
    assert any("near zero everywhere" in note for note in found.notes) is silent
