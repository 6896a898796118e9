"""ONNX files that say their weights lie where nothing of theirs is: outside of their folder, in links, pipes, holes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SECRET = b"root:x:0:0:" + bytes(400)
ROWS = np.random.default_rng(0).standard_normal((3, 4, 3, 3)).astype(np.float32)


def moved_out(tensor: TensorProto, location: str, offset: int | None = 0, length: int | None = None) -> bytes:
    """Takes a tensor's bytes out of it and says that they lie elsewhere."""
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    told = {"location": location, "offset": offset, "length": len(data) if length is None else length}
    for key, value in told.items():
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    return data


def network(kind: str = "initializer") -> tuple[onnx.ModelProto, TensorProto]:
    """A small network, and its weight: as an initializer, in a constant, or in a branch."""
    weight = numpy_helper.from_array(ROWS, "w")
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 4, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    head = [helper.make_node("GlobalAveragePool", ["y"], ["p"]), helper.make_node("Flatten", ["p"], ["logits"])]
    body = [helper.make_node("Conv", ["images", "w"], ["y"], name="conv"), *head]
    held = [weight] if kind == "initializer" else []
    if kind == "constant":
        body = [helper.make_node("Constant", [], ["w"], value=weight), *body]
    if kind == "branch":
        leaf = helper.make_tensor_value_info("w", TensorProto.FLOAT, ROWS.shape)
        branches = {f"{name}_branch": helper.make_graph([], name, [], [leaf], [weight]) for name in ("then", "else")}
        yes = helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True), "t"))
        body = [yes, helper.make_node("If", ["yes"], ["w"], **branches), *body]
    graph = helper.make_graph(body, "net", [images], [logits], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    if kind == "branch":
        return model, next(n for n in model.graph.node if n.op_type == "If").attribute[0].g.initializer[0]
    return model, model.graph.initializer[0] if held else model.graph.node[0].attribute[0].t


def _link(folder: Path) -> None:
    (folder / "w.bin").symlink_to(folder.parent / "secret")


def _linked_folder(folder: Path) -> None:
    (folder / "more").symlink_to(folder.parent)


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "w.bin")


def _nothing(folder: Path) -> None:
    pass


def _short(folder: Path) -> None:
    (folder / "w.bin").write_bytes(bytes(100))


def _hole(folder: Path) -> None:
    with (folder / "w.bin").open("wb") as file:
        file.truncate(3 * 2**30)


def _whole(folder: Path) -> None:
    (folder / "w.bin").write_bytes(ROWS.tobytes())


Change = Callable[[TensorProto], None]


def _dims(*dims: int) -> Change:
    def change(tensor: TensorProto) -> None:
        tensor.dims[:] = dims

    return change


def _same(tensor: TensorProto) -> None:
    pass


ATTACKS: dict[str, tuple[str, Callable[[Path], None], int | str | None, int | str | None, Change]] = {
    "absolute": ("/etc/passwd", _nothing, 0, None, _same),
    "absolute, inside": ("{folder}/w.bin", _whole, 0, None, _same),
    "up": ("../secret", _nothing, 0, None, _same),
    "up and up": ("../../../../../../../../etc/passwd", _nothing, 0, None, _same),
    "down and up": ("more/../../secret", _nothing, 0, None, _same),
    "backslashes": ("..\\secret", _nothing, 0, None, _same),
    "a drive": ("C:/secret", _nothing, 0, None, _same),
    "a link": ("w.bin", _link, 0, None, _same),
    "a linked folder": ("more/secret", _linked_folder, 0, None, _same),
    "a pipe": ("w.bin", _pipe, 0, None, _same),
    "a folder": (".", _nothing, 0, None, _same),
    "a device": ("/dev/zero", _nothing, 0, None, _same),
    "itself": ("m.onnx", _nothing, 0, None, _dims(10**6)),
    "no name": ("", _whole, 0, None, _same),
    "a zero in it": ("w.bin\0", _whole, 0, None, _same),
    "missing": ("w.bin", _nothing, 0, None, _same),
    "too short": ("w.bin", _short, 0, None, _same),
    "beyond its end": ("w.bin", _whole, 400, None, _same),
    "before its beginning": ("w.bin", _whole, -8, None, _same),
    "no number": ("w.bin", _whole, "x", None, _same),
    "a negative length": ("w.bin", _whole, 0, -432, _same),
    "another length": ("w.bin", _whole, 0, 16, _same),
    "more than 2 GB": ("w.bin", _hole, 0, 3 * 2**30, _dims(3 * 2**28)),
    "negative dims": ("w.bin", _whole, 0, 432, _dims(-3, -4, 3, 3)),
    "petabytes": ("w.bin", _hole, 0, None, _dims(2**40, 2**40)),
}


def attacked(tmp_path: Path, name: str, kind: str = "initializer") -> Path:
    """An ONNX file in a folder of its own, beside a secret."""
    folder = tmp_path / "given"
    folder.mkdir(exist_ok=True)
    (tmp_path / "secret").write_bytes(SECRET)
    location, prepare, offset, length, change = ATTACKS[name]
    prepare(folder)
    model, weight = network(kind)
    moved_out(weight, location.format(folder=folder), offset, length)  # type: ignore[arg-type]
    change(weight)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"
