"""Whatever an ONNX file says about where its weights lie: they come in, or it is refused; nothing elsewhere is opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from compress_cli.app import app
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from support.onnx_attacks import ATTACKS, ROWS, SECRET, attacked, moved_out, network
from typer.testing import CliRunner

from compress.errors import CompressError, ModelError
from compress.runtime import keeps_external_weights, onnx_bytes, read_onnx


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
