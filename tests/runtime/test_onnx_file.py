"""Whatever an ONNX file says about where its weights lie: they come in, or it is refused; nothing elsewhere is opened."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from compress_cli.app import app
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from compress.errors import CompressError, ModelError
from compress.runtime import keeps_external_weights, onnx_bytes, read_onnx

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


@pytest.mark.parametrize("kind", ["initializer", "constant", "branch"])
@pytest.mark.parametrize("location", ["weights.bin", "./weights.bin", "more/weights.bin"])
def test_weights_beside_the_file_come_into_it(kind: str, location: str, tmp_path: Path) -> None:
    model, weight = network(kind)
    x = np.random.default_rng(1).standard_normal((2, 4, 8, 8)).astype(np.float32)
    wanted = ort.InferenceSession(model.SerializeToString()).run(None, {"images": x})[0]
    (tmp_path / location).parent.mkdir(exist_ok=True)
    (tmp_path / location).write_bytes(bytes(64) + moved_out(weight, location, 64))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert keeps_external_weights(tmp_path / "m.onnx")
    data = onnx_bytes(tmp_path / "m.onnx")
    assert np.array_equal(ort.InferenceSession(data).run(None, {"images": x})[0], wanted)


def test_a_file_that_needs_no_other_is_itself(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(network()[0].SerializeToString())
    assert onnx_bytes(tmp_path / "m.onnx") == (tmp_path / "m.onnx").read_bytes()
    assert not keeps_external_weights(tmp_path / "m.onnx")


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


@pytest.mark.parametrize("kind", ["initializer", "constant", "branch"])
@pytest.mark.parametrize("name", ATTACKS)
def test_a_file_that_leads_elsewhere_is_refused(name: str, kind: str, tmp_path: Path) -> None:
    path = attacked(tmp_path, name, kind)
    with pytest.raises(ModelError) as caught:
        read_onnx(path)
    assert caught.value.hint and str(path) in str(caught.value)
    with pytest.raises(ModelError):
        onnx_bytes(path)


COMMANDS = {
    "package": "package {file} --out {out}/r --max-batch 0",
    "package, preprocessing": "package {file} --out {out}/r --embed-preprocessing",
    "package for mlserver": "package {file} --out {out}/r --server mlserver",
    "package for kserve": "package {file} --out {out}/r --server kserve",
    "export fp16": "export {file} --precision fp16 --latency-seconds 0 --out {out}/x.onnx",
    "export int8": "export {file} --precision int8 --data digits --latency-seconds 0 --out {out}/x.onnx",
    "bench": "bench {file} --seconds 0.1",
    "bench, the other": "bench {fine} {file} --seconds 0.1",
    "bench-kit": "bench-kit {file} --out {out}/k.zip",
    "compare": "compare {fine} {file} --seconds 0.1",
    "compare, the old": "compare {file} {fine} --seconds 0.1",
    "profile": "profile {file} --seconds 0.1",
    "deploy": "deploy {file} --repository {out}/r --url http://127.0.0.1:9",
}


@pytest.mark.parametrize("name", ["absolute", "up", "a link", "a linked folder", "missing", "too short", "a pipe"])
def test_every_command_refuses_it_and_copies_nothing(name: str, tmp_path: Path) -> None:
    file = attacked(tmp_path, name)
    fine = tmp_path / "fine.onnx"
    fine.write_bytes(network()[0].SerializeToString())
    out = tmp_path / "out"
    out.mkdir()
    for title, command in COMMANDS.items():
        words = [word.format(file=file, fine=fine, out=out) for word in command.split()]
        ended = CliRunner().invoke(app, words)
        assert ended.exit_code == 3, (title, ended.exit_code, ended.output, ended.exception)
        assert "the weight 'w' is said to lie" in ended.stderr, (title, ended.stderr)
    for left in out.rglob("*"):
        assert not left.is_file() or SECRET[:11] not in left.read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    location=st.text(st.sampled_from("./\\aw:~\0 "), max_size=12),
    offset=st.integers(-10, 500) | st.none(),
    length=st.integers(-5, 500),
)
def test_any_location_is_read_inside_or_refused(
    location: str, offset: int | None, length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder.parent / "w").write_bytes(SECRET)
    (folder / "w").write_bytes(ROWS.tobytes() + bytes(100))
    model, weight = network()
    moved_out(weight, location, offset, length)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    try:
        found = numpy_helper.to_array(read_onnx(folder / "m.onnx").graph.initializer[0])
    except CompressError as error:
        assert error.hint
        return
    assert found.tobytes() in (folder / "w").read_bytes()
