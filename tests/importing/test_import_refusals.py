"""What cannot be imported is refused, and the message says what stands in the way."""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.judging import judged
from support.onnx_import_attacks import onnx_models
from support.onnx_models import Sketch

from compress.errors import ImportRefused
from compress.importing import import_onnx, written
from compress.importing.operators import activations
from compress.networks import load


def saved(tmp_path: Path, model: onnx.ModelProto) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def unknown(made: Sketch) -> None:
    made.add("NonMaxSuppressionTwice", "x")
    made.add("NonMaxSuppressionTwice", made.last)


def quantised(made: Sketch) -> None:
    scale, zero = made.constant(np.array(0.1, np.float32)), made.constant(np.array(0, np.uint8))
    made.add("QuantizeLinear", "x", scale, zero)
    made.add("DequantizeLinear", made.last, scale, zero)


def half(made: Sketch) -> None:
    made.add("Add", "x", made.constant(np.ones(3, np.float16)))


def flows(made: Sketch) -> None:
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "b", [], [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])  # fmt: skip
    yes = made.constant(np.array(True))
    made.nodes.append(helper.make_node("If", [yes], ["v"], name="if", then_branch=branch, else_branch=branch))
    made.last = "v"


def bomb(made: Sketch) -> None:
    made.add("ConstantOfShape", made.numbers(2**20, 2**20))
    made.add("Add", "x", made.last)


def blown(made: Sketch) -> None:
    made.add("Tile", "x", made.numbers(1, 2**30, 1, 1))


CASES: dict[str, tuple[Callable[[Sketch], None], str]] = {
    "unknown": (unknown, r"NonMaxSuppressionTwice \(2, first 'NonMaxSuppressionTwice_0'\)"),
    "quantised": (quantised, "quantised: .*QuantizeLinear"),
    "half": (half, "half precision"),
    "flows": (flows, "decides by values.*If"),
    "bomb": (bomb, "256 MiB"),
    "blown": (blown, "absurdly large|does not take"),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_with_the_reason_and_a_cure(name: str, tmp_path: Path) -> None:
    made = Sketch(["batch", 3, 4, 4], 17, 0)
    prepare, said = CASES[name]
    prepare(made)
    with pytest.raises(ImportRefused, match=said) as refused:
        load(saved(tmp_path, made.model()))
    assert refused.value.hint and str(tmp_path) in refused.value.message


def test_a_strangers_node_behind_the_network_is_cut_off_as_the_message_says(tmp_path: Path) -> None:
    made = Sketch(["batch", 3, 6, 6], 17, 0)
    made.add("Relu", made.add("Conv", "x", made.weight(5, 3, 3, 3)))
    front = made.last
    made.nodes.append(helper.make_node("Decode", [front], ["decoded"], name="decode", domain="com.example"))
    model = made.model("decoded")
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("decoded", TensorProto.FLOAT, ["batch", 5, 4, 4]))
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    path, first, last = saved(tmp_path, model), str(tmp_path / "front.onnx"), str(tmp_path / "behind.onnx")
    with pytest.raises(ImportRefused, match=r"com\.example:Decode \(1, first 'decode'\)") as refused:
        import_onnx(path)
    inputs, ends = (literal_eval(names) for names in re.findall(r"\[[^]]*\]", refused.value.hint))
    assert (inputs, ends) == (["x"], [front])
    onnx.utils.extract_model(str(path), first, inputs, ends)
    onnx.utils.extract_model(str(path), last, ends, ["decoded"])
    pruned = written(import_onnx(Path(first)).network)
    pruned.graph.output[0].name = pruned.graph.node[-1].output[0] = "features"
    again = onnx.compose.merge_models(pruned, onnx.load(last), io_map=[("features", front)])
    assert [node.op_type for node in again.graph.node] == ["Conv", "Relu", "Decode"]


@pytest.mark.parametrize(("domain", "cure"), [("com.microsoft", "they were given"), ("com.example", "without them")])
def test_a_strangers_node_inside_is_refused_with_another_cure(tmp_path: Path, domain: str, cure: str) -> None:
    made = Sketch(["batch", 3, 6, 6], 17, 0)
    made.nodes.append(helper.make_node("FusedConv", ["x", made.weight(5, 3, 3, 3)], ["y"], domain=domain))
    made.add("Relu", made.add("Conv", "y", made.weight(5, 5, 3, 3)))
    model = made.model()
    model.opset_import.append(helper.make_opsetid(domain, 1))
    with pytest.raises(ImportRefused, match="FusedConv") as refused:
        import_onnx(saved(tmp_path, model))
    assert cure in refused.value.hint


def test_parity_with_onnx_runtime_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Sketch(["batch", 3, 4, 4], 17, 0)
    made.add("LeakyRelu", "x", alpha=0.2)
    monkeypatch.setattr(activations, "_number", lambda node, name, otherwise: 0.21)
    with pytest.raises(ImportRefused, match="computes something else: output 'v0_0'"):
        import_onnx(saved(tmp_path, made.model()))


def test_equal_numbers_that_an_exporter_merged_are_cut_apart_and_a_layer_used_twice_stays_one(tmp_path: Path) -> None:
    made = Sketch(["batch", 3, 8, 8], 17, 0)
    zeros, shared = made.constant(np.zeros(4, np.float32)), made.weight(4, 4, 3, 3)
    made.add("Conv", "x", made.weight(4, 3, 3, 3), zeros, pads=[1] * 4)
    made.add("Conv", made.last, made.weight(4, 4, 3, 3), zeros, pads=[1] * 4)
    made.add("Conv", made.last, shared, zeros, pads=[1] * 4)
    made.add("Relu", made.last)
    made.add("Conv", made.last, shared, zeros, pads=[1] * 4)
    network = import_onnx(saved(tmp_path, made.model())).network
    state = network.state_dict()
    assert sum(key.endswith("weight") for key in state) == 3 and sum(key.endswith("bias") for key in state) == 3
    assert len({t.data_ptr() for t in state.values()}) == len(state)


@pytest.mark.parametrize("name", onnx_models())
def test_a_strangers_model_is_imported_or_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(onnx_models()[name])
    verdict = judged(lambda: load(tmp_path / "m.onnx"), seconds=120.0)
    assert verdict.lawful, verdict


def test_constants_are_read_as_they_are() -> None:
    from compress.importing.graph import array_of

    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(array_of(numpy_helper.from_array(array, "a")), array)
    emptied = TensorProto(name="a", dims=[1000, 1000], data_type=TensorProto.FLOAT)
    assert array_of(emptied, emptied=True).strides == (0, 0)
    with pytest.raises(ImportRefused, match="damaged"):
        array_of(emptied)
