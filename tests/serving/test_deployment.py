"""Deployment against a server over real sockets: what goes wrong leaves the repository and what is served as they were."""

from __future__ import annotations

import http.client
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from compress_cli.app import app
from compress_models import MODELS
from support.serving_nets import images, net
from support.v2server import V2Server, serving
from typer.testing import CliRunner, Result

from compress.errors import CompressError, ExportError, ServerSilent, ServingError
from compress.export.embedding import embed
from compress.export.exporting import export
from compress.export.interface import serving_facts
from compress.networks.checkpoint import load
from compress.serving import deployment as deployment
from compress.serving.client import Client
from compress.serving.deployment import deploy
from compress.serving.model_repository import LOCK, locked
from compress.serving.packages import package
from compress.serving.settings import Serving

SETTINGS = Serving(max_batch=4, preferred=(2, 4))
IMAGES = images()
DIGITS = Path(__file__).parents[2] / "models" / "checkpoints" / "digits-net.safetensors"


def tree(repository: Path) -> dict[str, bytes]:
    """All that a server could read there."""
    files = (p for p in sorted(repository.rglob("*")) if p.is_file() and p.name != LOCK)
    return {str(p.relative_to(repository)): p.read_bytes() for p in files}


def here(file: Path, array: np.ndarray = IMAGES) -> np.ndarray:
    return np.asarray(ort.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, {"input": array})[0])


def put(world: V2Server, file: Path, **more: Any) -> deployment.Deployed:
    limits = deployment.DeploymentLimits(**{"timeout": 5.0, **{k: more.pop(k) for k in ("timeout", "tolerance") if k in more}})
    options = {"name": "net", "serving": SETTINGS, **more}
    return deploy(file, IMAGES, repository=world.repository, url=world.url, limits=limits, **options)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return net(tmp_path / "old.onnx", 1)


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return net(tmp_path / "new.onnx", 2)


@pytest.fixture
def repository(tmp_path: Path, old: Path) -> Path:
    folder = tmp_path / "repository"
    package(old, folder, "triton", name="net", serving=SETTINGS)
    return folder


@contextmanager
def unharmed(world: V2Server, old: Path, *, answers: bool = True) -> Iterator[None]:
    """Whatever happens inside: the same bytes in the repository afterwards, and the old answers."""
    before = tree(world.repository)
    yield
    assert tree(world.repository) == before
    assert not [p for p in world.repository.rglob("*") if p.name.startswith(".") and p.name != LOCK]
    if answers:
        with Client(world.url, timeout=5) as client:
            answer = client.infer("net", {"input": IMAGES[:4]})
        assert answer.version == "1"
        np.testing.assert_array_equal(answer.outputs["output"], here(old, IMAGES[:4]))


# ---- what works ------------------------------------------------------------------------------------------------------


def test_a_new_version_serves_and_the_old_one_stays_on_the_disk(repository: Path, new: Path) -> None:
    before = tree(repository)
    with serving(repository) as world:
        done = put(world, new)
        with Client(world.url) as client:
            answer = client.infer("net", {"input": IMAGES[:4]})
    assert (done.version, done.previous, done.exact, done.error) == ("2", "1", True, 0.0)
    assert answer.version == "2"
    np.testing.assert_array_equal(answer.outputs["output"], here(new, IMAGES[:4]))
    assert tree(repository) == before | {"net/2/model.onnx": new.read_bytes()}


def test_a_new_model_comes_with_its_configuration(tmp_path: Path, new: Path) -> None:
    (tmp_path / "empty").mkdir()
    with serving(tmp_path / "empty") as world:
        done = put(world, new, name="other")
    assert (done.version, done.previous) == ("1", "")
    assert {"other/config.pbtxt", "other/1/model.onnx"} <= set(tree(tmp_path / "empty"))


def test_a_configuration_that_is_there_stays(repository: Path, new: Path) -> None:
    tuned = repository / "net" / "config.pbtxt"
    tuned.write_text(tuned.read_text().replace("max_batch_size: 4", "max_batch_size: 7"))
    with serving(repository) as world:
        put(world, new, serving=Serving(max_batch=64))
    assert "max_batch_size: 7" in tuned.read_text()


def test_a_server_that_looks_by_itself_needs_no_order(repository: Path, new: Path) -> None:
    with serving(repository, polling=True) as world:
        assert put(world, new).version == "2"


def test_a_server_that_reads_json_only(repository: Path, new: Path) -> None:
    with serving(repository, binary=False, declares=False) as world:
        assert put(world, new).exact


def test_a_connection_that_was_closed_meanwhile_is_opened_again(repository: Path, old: Path) -> None:
    with serving(repository, hangs_up=True) as world, Client(world.url) as client:
        for _ in range(3):
            np.testing.assert_array_equal(client.infer("net", {"input": IMAGES[:4]}).outputs["output"], here(old, IMAGES[:4]))
            time.sleep(0.02)


# ---- what does not: nothing is left behind, the old version serves ---------------------------------------------------


def test_nobody_there(repository: Path, new: Path) -> None:
    with serving(repository) as world:
        url = world.url
    before = tree(repository)
    with pytest.raises(ServerSilent, match="no inference server answers"):
        deploy(new, IMAGES, repository=repository, url=url, name="net")
    assert tree(repository) == before


def test_not_live(repository: Path, old: Path, new: Path) -> None:
    with serving(repository, live=False) as world, unharmed(world, old), pytest.raises(ServingError, match="not live"):
        put(world, new)


def test_too_slow(repository: Path, old: Path, new: Path) -> None:
    with serving(repository) as world, unharmed(world, old):
        world.load_delay = 1.5
        with pytest.raises(ServingError, match=r"did not answer .* within 0.5 s; the server does not answer any more"):
            put(world, new, timeout=0.5)
        time.sleep(1.6)  # both loads end
        world.load_delay = 0
        assert world.load("net") == ""


@pytest.mark.parametrize("moment", ["load", "infer"])
def test_it_dies_in_the_middle(repository: Path, old: Path, new: Path, moment: str) -> None:
    kept = pytest.raises(ServingError, match="the repository is as it was: version 1 of net serves when it is back")
    with serving(repository, dies_on=moment) as world, unharmed(world, old, answers=False), kept:
        put(world, new)
    with serving(repository) as world, unharmed(world, old):  # and it is true
        pass


def test_other_answers_than_here(repository: Path, old: Path, new: Path) -> None:
    refused = pytest.raises(ServingError, match=r"computes something else .* off by 1.0e-02.*; rolled back, version 1 serves")
    with serving(repository, skew=1.01) as world, unharmed(world, old), refused:
        put(world, new)


def test_a_difference_that_the_user_allows(repository: Path, new: Path) -> None:
    with serving(repository, skew=1.0001) as world:
        done = put(world, new, tolerance=1e-3)
    assert not done.exact
    assert done.error == pytest.approx(1e-4, rel=0.1)


def test_a_server_that_goes_on_with_the_old_one(repository: Path, old: Path, new: Path) -> None:
    refused = pytest.raises(ServingError, match=r"answers for net with version 1, 2 was loaded.*; rolled back")
    with serving(repository, stale=True) as world, unharmed(world, old), refused:
        put(world, new)


def test_the_server_cannot_load_it(repository: Path, old: Path, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(repository) as world, unharmed(world, old):
        load = V2Server.load

        def without_memory(self: V2Server, name: str) -> str:
            return "out of memory" if (self.repository / name / "2").exists() else load(self, name)

        monkeypatch.setattr(V2Server, "load", without_memory)
        with pytest.raises(ServingError, match=r"cannot load version 2: .*out of memory; rolled back, version 1 serves"):
            put(world, new)


def test_a_new_model_that_fails_is_removed(tmp_path: Path, repository: Path, old: Path, new: Path) -> None:
    gone = pytest.raises(ServingError, match="other is not in the repository")
    with serving(repository, dies_on="infer") as world, unharmed(world, old, answers=False), gone:
        put(world, new, name="other")
    with serving(repository, skew=0.5) as world, unharmed(world, old):
        world.first["other"] = "0"
        with pytest.raises(ServingError, match="other was removed again"):
            put(world, new, name="other")


def test_interrupted(repository: Path, old: Path, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(deployment, "_compared", interrupted)
    with serving(repository) as world, unharmed(world, old), pytest.raises(KeyboardInterrupt):
        put(world, new)


def test_other_inputs_under_the_same_name(repository: Path, old: Path, tmp_path: Path) -> None:
    renamed, grown = net(tmp_path / "a.onnx", name="image"), net(tmp_path / "b.onnx", shape=(3, 16, 16))
    more = net(tmp_path / "c.onnx", classes=6)
    with serving(repository) as world, unharmed(world, old):
        with pytest.raises(ServingError, match=r"serves inputs input FP32 \[-1, 3, 8, 8\], the new file has image"):
            put(world, renamed)
        with pytest.raises(ServingError, match=r"the new file has input FP32 \[-1, 3, 16, 16\]"):
            deploy(grown, images(shape=(3, 16, 16)), repository=repository, url=world.url, name="net")
        with pytest.raises(ServingError, match="serves outputs"):
            put(world, more)


def test_other_inputs_than_a_model_that_is_not_loaded(repository: Path, tmp_path: Path) -> None:
    grown = net(tmp_path / "b.onnx", shape=(3, 16, 16))
    with serving(repository) as world:
        world.models.clear()
        before = tree(repository)
        with pytest.raises(ServingError, match=r"does not fit .*config.pbtxt"):
            deploy(grown, images(shape=(3, 16, 16)), repository=repository, url=world.url, name="net")
        assert tree(repository) == before


def test_a_half_written_version_of_somebody_else(repository: Path, old: Path, new: Path) -> None:
    half = repository / "net" / "7"
    with serving(repository) as world:
        half.mkdir()
        for content in (None, new.read_bytes()[:300]):
            if content is not None:
                (half / "model.onnx").write_bytes(content)
            with unharmed(world, old), pytest.raises(ServingError, match="version 7 of net is not whole"):
                put(world, new)
        (half / "model.onnx").write_bytes(new.read_bytes())
        assert put(world, new).version == "8"


def test_another_folder_than_the_server_reads(repository: Path, old: Path, new: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with serving(repository) as world, unharmed(world, old):
        with pytest.raises(ServingError, match="which is not in"):
            deploy(new, IMAGES, repository=tmp_path / "elsewhere", url=world.url, name="net")
        with pytest.raises(ServingError, match=r"cannot load version 1.*; other was removed again"):
            deploy(new, IMAGES, repository=tmp_path / "elsewhere", url=world.url, name="other")
        assert tree(tmp_path / "elsewhere") == {}


def test_a_network_that_answers_nan_never_gets_there(repository: Path, old: Path, tmp_path: Path) -> None:
    broken = net(tmp_path / "nan.onnx", 3)
    import onnx

    model = onnx.load(str(broken))
    bias = next(t for t in model.graph.initializer if t.name == "b")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(5, np.nan, np.float32), "b"))
    onnx.save(model, str(broken))
    with serving(repository) as world, unharmed(world, old):
        with pytest.raises(ServingError, match="NaN"):
            put(world, broken)
        assert not [path for path in world.log if path.endswith("/load")]


def test_no_onnx_file(repository: Path, old: Path, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no")
    with serving(repository) as world, unharmed(world, old), pytest.raises(ExportError):
        put(world, tmp_path / "x.onnx")


# ---- the folder ------------------------------------------------------------------------------------------------------


def test_no_such_folder(repository: Path, new: Path, tmp_path: Path) -> None:
    with serving(repository) as world, pytest.raises(ServingError, match="is not a folder"):
        deploy(new, IMAGES, repository=tmp_path / "nowhere", url=world.url, name="other")


def test_a_folder_that_cannot_be_written(repository: Path, old: Path, new: Path, tmp_path: Path) -> None:
    """Rights do not bind root: the deployment runs as somebody else then."""
    with serving(repository) as world, unharmed(world, old):
        for folder in (repository, repository / "net"):
            folder.chmod(0o555)
        identity = os.geteuid()
        if identity == 0:
            for parent in (tmp_path, *tmp_path.parents):
                if parent.stat().st_uid == 0 and parent != Path("/"):
                    parent.chmod(parent.stat().st_mode | 0o055)
            os.seteuid(65534)
        try:
            with pytest.raises(ServingError, match="cannot be written: Permission denied"):
                put(world, new)
        finally:
            os.seteuid(identity)
            for folder in (repository, repository / "net"):
                folder.chmod(0o755)


def test_a_full_disk(repository: Path, old: Path, new: Path) -> None:
    """A real refusal of the system to write: for a moment no file of this process may grow to the network's size."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with serving(repository) as world, unharmed(world, old):
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
        try:
            with pytest.raises(ServingError, match="cannot be written: File too large"):
                put(world, new)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_two_at_once(repository: Path, old: Path, new: Path) -> None:
    with serving(repository) as world:
        with unharmed(world, old), locked(repository), pytest.raises(ServingError, match="another deployment is at work"):
            put(world, new)
        world.load_delay = 0.3
        results: list[object] = []

        def go() -> None:
            try:
                results.append(put(world, new))
            except CompressError as error:
                results.append(error)

        threads = [threading.Thread(target=go) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [r.version for r in results if isinstance(r, deployment.Deployed)] == ["2"]
        assert sorted(p.name for p in (repository / "net").iterdir() if p.name.isdecimal()) == ["1", "2"]


def test_what_a_killed_deployment_left_aside_is_swept(repository: Path, new: Path) -> None:
    shutil.copytree(repository / "net" / "1", repository / "net" / ".incoming-dead" / "net" / "2")
    shutil.copytree(repository / "net", repository / ".incoming-dead" / "net")
    with serving(repository) as world:
        assert put(world, new).version == "2"
    assert not list(repository.rglob(".incoming*"))


# ---- under traffic ---------------------------------------------------------------------------------------------------


def test_a_client_that_never_stops_asking_gets_no_failure_and_no_wrong_answer(repository: Path, old: Path, new: Path) -> None:
    rounds, files = 4, {1: old}
    failures: list[str] = []
    seen: dict[str, int] = {}
    stop = threading.Event()
    wanted = {str(v): here(new if v % 2 == 0 else old, IMAGES[:2]) for v in range(1, rounds + 2)}
    with serving(repository) as world:

        def ask() -> None:
            with Client(world.url, timeout=5) as client:
                while not stop.is_set():
                    try:
                        answer = client.infer("net", {"input": IMAGES[:2]})
                    except CompressError as error:
                        failures.append(error.message)
                        continue
                    seen[answer.version] = seen.get(answer.version, 0) + 1
                    if not np.array_equal(answer.outputs["output"], wanted[answer.version]):
                        failures.append(f"wrong answer of version {answer.version}")

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            for version in range(2, rounds + 2):
                files[version] = new if version % 2 == 0 else old
                assert put(world, files[version]).version == str(version)
                time.sleep(0.02)
        finally:
            stop.set()
            thread.join()
    assert failures == []
    assert set(seen) == set(wanted)


# ---- the command line ------------------------------------------------------------------------------------------------


def compress(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, as far as deploying looks at it: a real network and its ONNX file."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    folder.mkdir()
    loaded = load(DIGITS, zoo=MODELS)
    assert loaded.preprocessing is not None
    shutil.copyfile(DIGITS, folder / "model.safetensors")
    facts = serving_facts(loaded.preprocessing, [str(digit) for digit in range(10)])
    export(loaded.model.eval(), torch.randn(2, 1, 8, 8), folder / "model.onnx", metadata=facts, exporter="legacy")
    return folder


def test_the_command_deploys_on_real_and_on_matched_images(run: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    with serving(repository) as world:
        options = ["--repository", repository, "--url", world.url, "--timeout", "10", "--quiet"]
        first = compress("deploy", run, *options, "--data", "digits")
        second = compress("deploy", run, *options, "--json")
        third = compress("deploy", run / "model.onnx", *options, "--name", "digits")
        refused = compress("deploy", run, *options, "--name", "../digits")
    assert first.exit_code == 0, first.stderr
    assert "serves version 1 of digits" in first.stdout
    assert "compared 8 images (of digits): bit for bit" in first.stdout
    facts = json.loads(second.stdout)
    assert (facts["version"], facts["previous"], facts["exact"]) == ("2", "1", True)
    assert facts["compared_on"] == "synthetic, matched to the batch norms"
    assert "serves version 3 of digits" in third.stdout
    assert "compared on noise" in third.stderr
    assert (repository / "digits" / "labels.txt").read_text().split() == [str(digit) for digit in range(10)]
    assert refused.exit_code == 3
    assert "cannot be a model's name" in refused.stderr


def test_the_command_without_a_server(run: Path, tmp_path: Path) -> None:
    done = compress("deploy", run / "model.onnx", "--repository", tmp_path, "--url", "http://127.0.0.1:9", "--timeout", "2")
    assert done.exit_code == 3
    assert "no inference server answers at http://127.0.0.1:9" in done.stderr
    assert "hint:" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://", "http://x:port"])
def test_no_url(url: str, run: Path, tmp_path: Path) -> None:
    done = compress("deploy", run / "model.onnx", "--repository", tmp_path, "--url", url)
    assert done.exit_code == 3
    assert "URL" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_told_to_end_goes_back_first(repository: Path, old: Path, new: Path, number: int) -> None:
    with serving(repository, load_delay=3.0) as world, unharmed(world, old):
        command = [sys.executable, "-m", "compress_cli", "deploy", str(new), "--name", "net", "--repository", str(repository)]
        process = subprocess.Popen([*command, "--url", world.url], stderr=subprocess.PIPE, text=True)
        while "/v2/repository/models/net/load" not in world.log:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130, said
        assert "interrupted" in said


@pytest.mark.slow
def test_the_command_measures_what_a_server_sustains(repository: Path) -> None:
    with serving(repository, slow_by={"net": 0.004}) as world:
        options = ["--p99", "60ms", "--rounds", "1", "--requests", "100", "--confirm", "100"]
        done = compress("serve-bench", world.url, "--model", "net", *options, "--json")
        table = compress("serve-bench", world.url, "--model", "nobody", *options)
    assert table.exit_code == 3
    assert "nobody" in table.stderr
    if done.exit_code == 0:  # a busy machine may not keep any bound
        facts = json.loads(done.stdout)
        assert 0 < facts["arms"][0]["typical"] < 250
    else:
        assert "does not keep 60 ms" in done.stderr


@pytest.mark.parametrize("bound", ["50", "fast", "-5ms", "1.2.3s"])
def test_bounds_that_are_no_times(bound: str) -> None:
    done = compress("serve-bench", "http://127.0.0.1:9", "--model", "net", f"--p99={bound}")
    assert done.exit_code == 2
    assert "50ms" in done.stderr


def test_a_file_with_its_preparation_inside_is_asked_with_pixels(run: Path, tmp_path: Path) -> None:
    inside = tmp_path / "pixels.onnx"
    pixels = torch.randint(0, 256, (8, 8, 8, 1), dtype=torch.uint8)
    embed(run / "model.onnx", inside, pixels)
    (tmp_path / "repository").mkdir()
    with serving(tmp_path / "repository") as world:
        options = ["--repository", tmp_path / "repository", "--url", world.url, "--quiet"]
        for more in (["--data", "digits"], []):
            done = compress("deploy", inside, *options, *more)
            assert done.exit_code == 0, done.stderr
            assert "bit for bit" in done.stdout


def test_the_small_server_speaks_http(repository: Path) -> None:
    """Another client than ours understands it."""
    with serving(repository) as world:
        connection = http.client.HTTPConnection(world.url.removeprefix("http://"), timeout=5)
        connection.request("GET", "/v2/models/net")
        assert b'"versions": ["1"]' in connection.getresponse().read()
        connection.close()
