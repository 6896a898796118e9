"""Our packages, unmodified, on real servers: NVIDIA Triton over HTTP and gRPC, MLServer, the KServe SDK's server.

``make servers`` sets them up and runs this file. Every answer is compared with ONNX Runtime in this process.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from servers import launch
from support.serving_nets import images, net

from compress.errors import CompressError, ServerRefused, ServingError
from compress.serving.client import Client
from compress.serving.deployment import deploy
from compress.serving.load_test import Scenario, asking, sustained
from compress.serving.packages import package
from compress.serving.settings import Serving
from compress.serving.staging import staged

pytestmark = pytest.mark.servers

SETTINGS = Serving(max_batch=8, preferred=(4, 8), queue_delay_us=20_000, threads=1, device="cpu")
IMAGES = images(8)
NOISE = 1e-6  # of the outputs' scale: what another batch size may differ by


def here(file: Path, array: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input": array})[0])


def bytes_of(folder: Path) -> dict[str, bytes]:
    """What a package consists of; servers add their caches."""
    files = (p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("servers")
    net(folder / "old.onnx", 1)
    net(folder / "new.onnx", 2)
    return folder


@contextmanager
def unbroken(server: launch.Running, work: Path) -> Iterator[set[str]]:
    """A client asks all the while; afterwards, no request has failed and every answer was that of the version that gave it."""
    stop, problems, seen = threading.Event(), list[str](), set[str]()
    wanted = {version: here(file, IMAGES[:2]) for version, file in all_versions(work).items()}
    both = [here(work / name, IMAGES[:2]) for name in ("old.onnx", "new.onnx")]

    def ask() -> None:
        with Client(server.url) as client:
            while not stop.is_set():
                try:
                    answer = client.infer("net", {"input": IMAGES[:2]})
                except CompressError as error:
                    problems.append(error.message)
                    continue
                known = [wanted[answer.version]] if answer.version in wanted else both
                if not any(np.abs(answer.outputs["output"] - w).max() <= NOISE * np.abs(w).max() for w in known):
                    problems.append(f"version {answer.version} answers something else")
                seen.add(answer.version)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        wait_for(lambda: bool(seen or problems))
        yield seen
    finally:
        stop.set()
        thread.join()
    assert problems == []


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ---- Triton ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def triton(work: Path) -> Iterator[launch.Running]:
    package(work / "old.onnx", work / "repository", "triton", name="net", serving=SETTINGS)
    with launch.triton(work / "repository", work / "triton.log") as server:
        yield server


def all_versions(work: Path) -> dict[str, Path]:
    folder = work / "repository" / "net"
    return {p.name: p / "model.onnx" for p in folder.iterdir() if p.name.isdecimal()}


def newest(work: Path) -> tuple[str, Path]:
    """The version that serves, and its file."""
    return max(all_versions(work).items(), key=lambda found: int(found[0]))


def test_triton_over_http_is_bit_for_bit_onnx_runtime(triton: launch.Running, work: Path) -> None:
    version, file = newest(work)
    with Client(triton.url) as client:
        for batch in (1, 2, 5, 8):
            answer = client.infer("net", {"input": IMAGES[:batch]})
            assert answer.version == version
            np.testing.assert_array_equal(answer.outputs["output"], here(file, IMAGES[:batch]))


def test_triton_over_grpc_with_nvidias_own_client(triton: launch.Running, work: Path) -> None:
    """tritonclient lives in Triton's environment: it is asked there."""
    code = (
        "import sys, numpy as np, tritonclient.grpc as t\n"
        "c = t.InferenceServerClient(sys.argv[1]); x = np.load(sys.argv[2])\n"
        "assert c.is_model_ready('net'); assert c.get_model_metadata('net').inputs[0].shape == [-1, 3, 8, 8]\n"
        "i = t.InferInput('input', x.shape, 'FP32'); i.set_data_from_numpy(x)\n"
        "np.save(sys.argv[3], c.infer('net', [i]).as_numpy('output'))\n"
        "w = t.InferInput('input', [9, 3, 8, 8], 'FP32'); w.set_data_from_numpy(np.zeros((9, 3, 8, 8), np.float32))\n"
        "try: c.infer('net', [w])\n"
        "except t.InferenceServerException as e: assert e.status() == 'StatusCode.INVALID_ARGUMENT', e\n"
        "else: raise SystemExit('a batch of 9 was taken')\n"
    )
    np.save(work / "x.npy", IMAGES[:5])
    python = launch.ROOT / ".venv-triton" / "bin" / "python"
    arguments = [f"{launch.HOST}:{triton.grpc}", str(work / "x.npy"), str(work / "y.npy")]
    done = subprocess.run([str(python), "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(work / "y.npy"), here(newest(work)[1], IMAGES[:5]))


def test_triton_puts_requests_together(triton: launch.Running, work: Path) -> None:
    """Dynamic batching is seen in the statistics, and the answers are still those of ONNX Runtime within float noise."""
    version, file = newest(work)
    with Client(triton.url) as client:
        before = client.statistics("net", version)["model_stats"][0]
    answers: dict[int, np.ndarray] = {}
    barrier = threading.Barrier(8)

    def ask(index: int) -> None:
        with Client(triton.url) as client:
            client.ready("net")
            barrier.wait()
            answers[index] = client.infer("net", {"input": IMAGES[index : index + 1]}).outputs["output"]

    for _ in range(3):
        threads = [threading.Thread(target=ask, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with Client(triton.url) as client:
        after = client.statistics("net", version)["model_stats"][0]
    inferences = after["inference_count"] - before["inference_count"]
    executions = after["execution_count"] - before["execution_count"]
    assert inferences == 24
    assert executions <= 12
    assert max(entry["batch_size"] for entry in after["batch_stats"]) > 1
    wanted = here(file, IMAGES)
    scale = np.abs(wanted).max()
    for index, answer in answers.items():
        assert np.abs(answer[0] - wanted[index]).max() <= NOISE * scale


@pytest.mark.parametrize("shape", [(1, 3, 8, 9), (1, 1, 8, 8), (9, 3, 8, 8), (3, 8, 8)])
def test_triton_refuses_what_does_not_fit(triton: launch.Running, shape: tuple[int, ...]) -> None:
    with Client(triton.url) as client:
        for _ in range(2):  # while the form is found out, and after that
            with pytest.raises(ServerRefused) as caught:
                client.infer("net", {"input": np.zeros(shape, np.float32)})
            assert caught.value.status == 400
            client.infer("net", {"input": IMAGES[:1]})


def test_triton_says_what_the_file_says(triton: launch.Running) -> None:
    with Client(triton.url) as client:
        served = client.interface("net")
        assert client.ready("net")
        assert not client.ready("nobody")
    assert [(p.name, p.kind, p.dims) for p in served.inputs] == [("input", "FP32", (-1, 3, 8, 8))]
    assert [(p.name, p.kind, p.dims) for p in served.outputs] == [("output", "FP32", (-1, 5))]


def test_deploying_to_triton(triton: launch.Running, work: Path) -> None:
    before = int(newest(work)[0])
    done = deploy(work / "new.onnx", IMAGES, repository=work / "repository", url=triton.url, name="net", serving=SETTINGS)
    assert (done.version, done.previous, done.exact) == (str(before + 1), str(before), True)
    new = deploy(work / "old.onnx", IMAGES, repository=work / "repository", url=triton.url, name="second", serving=SETTINGS)
    assert (new.version, new.previous, new.exact) == ("1", "", True)


def test_a_bad_package_never_reaches_triton(triton: launch.Running, work: Path) -> None:
    wrong = net(work / "wrong.onnx", 3, shape=(3, 9, 9))
    broken = work / "broken.onnx"
    broken.write_bytes((work / "new.onnx").read_bytes()[:-50])
    before = bytes_of(work / "repository")
    for file in (wrong, broken):
        with pytest.raises(CompressError):
            deploy(file, images(8, shape=(3, 9, 9)), repository=work / "repository", url=triton.url, name="net")
    assert bytes_of(work / "repository") == before
    with Client(triton.url) as client:
        assert client.interface("net").versions == (newest(work)[0],)


def test_triton_goes_back_when_a_version_cannot_be_loaded(triton: launch.Running, work: Path) -> None:
    """A number of threads that is none: good for the schema, refused while loading, and put right before the way back."""
    version, file = newest(work)
    config = work / "repository" / "net" / "config.pbtxt"
    text = config.read_text()
    before = bytes_of(work / "repository")
    config.write_text(text.replace('string_value: "1"', 'string_value: "one"'))

    def listen(event: object) -> None:
        if getattr(event, "name", "") == "roll back":
            config.write_text(text)

    refused = pytest.raises(ServingError, match=f"cannot load version .*; rolled back, version {version} serves")
    with unbroken(triton, work), refused:
        deploy(work / "new.onnx", IMAGES, repository=work / "repository", url=triton.url, name="net", listen=listen)
    assert bytes_of(work / "repository") == before
    with Client(triton.url) as client:
        answer = client.infer("net", {"input": IMAGES})
    assert answer.version == version
    np.testing.assert_array_equal(answer.outputs["output"], here(file, IMAGES))


def test_triton_dies_during_a_deployment(work: Path) -> None:
    repository = work / "dying"
    package(work / "old.onnx", repository, "triton", name="net", serving=SETTINGS)
    before = bytes_of(repository)
    with launch.triton(repository, work / "dying.log") as server:

        def listen(event: object) -> None:
            if getattr(event, "name", "") == "compare" and not hasattr(event, "seconds"):
                server.kill()

        with pytest.raises(ServingError, match="version 1 of net serves when it is back"):
            deploy(work / "new.onnx", IMAGES, repository=repository, url=server.url, name="net", listen=listen)
    after = {name: data for name, data in bytes_of(repository).items() if not name.startswith(".compress")}
    assert after == before
    with launch.triton(repository, work / "back.log") as server, Client(server.url) as client:
        answer = client.infer("net", {"input": IMAGES})
        assert answer.version == "1"
        np.testing.assert_array_equal(answer.outputs["output"], here(work / "old.onnx", IMAGES))


@pytest.mark.parametrize("mode", ["explicit", "none", "poll"])
def test_a_triton_that_loads_everything_starts_while_a_model_is_put_together(work: Path, tmp_path: Path, mode: str) -> None:
    """It takes every folder at the top for a model, hidden ones too, and does not start with one that is none."""
    repository = tmp_path / "repository"
    package(work / "old.onnx", repository, "triton", name="net", serving=SETTINGS)
    options = ["--model-control-mode=none"] if mode == "none" else []
    options += ["--model-control-mode=poll", "--repository-poll-secs=1"] if mode == "poll" else []
    load = "*" if mode == "explicit" else ""
    with staged(repository, "other") as left:  # as kill -9 leaves it
        shutil.copytree(repository / "net", left / "other")
        (repository / "net" / ".incoming-dead").mkdir()
        with launch.triton(repository, tmp_path / "log", options=options, load=load) as server, Client(server.url) as client:
            assert client.ready("net")
            assert client.ready()
    hidden = repository / ".other-abcdefgh"
    hidden.mkdir()
    with pytest.raises(RuntimeError, match="did not get ready"), launch.triton(repository, tmp_path / "no", load="*"):
        pass


def test_deploying_to_triton_under_a_client_that_never_stops(triton: launch.Running, work: Path) -> None:
    """The full figure, 100 rounds, is that of benchmarks/serving.py."""
    start = int(newest(work)[0])
    for version in range(start + 1, start + 5):
        with unbroken(triton, work) as seen:
            file = work / ("old.onnx" if version % 2 else "new.onnx")
            deploy(file, IMAGES, repository=work / "repository", url=triton.url, name="net")
            wait_for(lambda seen=seen, version=version: str(version) in seen)
        assert seen == {str(version - 1), str(version)}


def test_load_on_triton(triton: launch.Running) -> None:
    result = sustained(
        {"net": asking(triton.url, "net")}, Scenario(0.1, requests=100, rounds=1, confirm=100, step=1.5, connections=16)
    )
    assert result.arms[0].confirmed.rate > 0
    assert result.arms[0].confirmed.failed == 0


def test_the_command_line_on_triton(triton: launch.Running, work: Path) -> None:
    command = [sys.executable, "-m", "compress_cli", "deploy", str(work / "new.onnx"), "--repository", str(work / "repository")]
    done = subprocess.run([*command, "--url", triton.url, "--name", "net"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "serves version" in done.stdout
    assert "bit for bit" in done.stdout


# ---- MLServer and KServe ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mlserver(work: Path) -> Iterator[launch.Running]:
    made = package(work / "old.onnx", work / "mlserver", "mlserver", name="net", serving=SETTINGS)
    before = bytes_of(made.folder)
    with launch.mlserver(made.folder, work / "mlserver.log") as server:
        yield server
    assert bytes_of(made.folder) == before


@pytest.fixture(scope="module")
def kserve(work: Path) -> Iterator[launch.Running]:
    made = package(work / "old.onnx", work / "kserve", "kserve", name="net", serving=SETTINGS)
    before = bytes_of(made.folder)
    with launch.kserve(made.folder / "kserve_server.py", [], work / "kserve.log") as server:
        yield server
    assert bytes_of(made.folder) == before


@pytest.mark.parametrize("kind", ["mlserver", "kserve"])
def test_python_servers_answer_as_onnx_runtime(kind: str, work: Path, request: pytest.FixtureRequest) -> None:
    server: launch.Running = request.getfixturevalue(kind)
    with Client(server.url) as client:
        client.until_ready("net", within=60)
        for batch in (1, 2, 5, 8):
            answer = client.infer("net", {"input": IMAGES[:batch]})
            np.testing.assert_array_equal(answer.outputs["output"], here(work / "old.onnx", IMAGES[:batch]))
        assert client._form == {"mlserver": "json", "kserve": "binary"}[kind]


@pytest.mark.parametrize(  # MLServer's largest batch counts requests, not their rows
    ("kind", "shape"), [("mlserver", (1, 3, 8, 9)), ("kserve", (1, 3, 8, 9)), ("kserve", (9, 3, 8, 8))]
)
def test_python_servers_refuse_what_does_not_fit(kind: str, shape: tuple[int, ...], request: pytest.FixtureRequest) -> None:
    server: launch.Running = request.getfixturevalue(kind)
    with Client(server.url) as client:
        client.until_ready("net", within=60)
        client.infer("net", {"input": IMAGES[:1]})
        with pytest.raises(ServerRefused) as caught:
            client.infer("net", {"input": np.zeros(shape, np.float32)})
        assert caught.value.status == 400


def test_setting_up_twice_changes_nothing() -> None:
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run([bash, str(launch.ROOT / "tests/servers/setup.sh")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:3] == ["triton is there", "mlserver is there", "kserve is there"]
