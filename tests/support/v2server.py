"""A small real inference server: the v2 protocol on the standard library, ONNX Runtime behind it, a Triton repository in front.

It is not NVIDIA's (tests/test_servers.py asks that one), but it answers over real sockets with what it really computed, and
can be told to fail in the ways in which servers fail.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from support.bad_servers import Behaviour

KINDS = {"tensor(float)": ("FP32", "<f4"), "tensor(uint8)": ("UINT8", "u1")}
LENGTH = "Inference-Header-Content-Length"


@dataclass
class Loaded:
    version: str
    session: ort.InferenceSession
    most: int


@dataclass
class V2Server:
    """A server, its models, and its faults.

    Attributes:
        binary: reads binary bodies; otherwise it wants JSON and says 400, as MLServer does.
        declares: says in its metadata that it reads binary bodies.
        live: whether the server says that it works.
        load_delay: seconds that loading takes.
        dies_on: "load" or "infer": the server falls silent for good in the middle of that.
        skew: what the newest version's answers are multiplied with: other kernels.
        stale: goes on answering unversioned requests with what it had.
        hangs_up: closes every connection after an answer without saying so, as servers do with idle ones.
        polling: takes no orders and looks at the repository by itself.
        slow_by: model -> seconds that an inference of it takes at least, one after the other.
        bad: what happens to requests of the paths that end in ``bad_from`` and, once there was one, to all others.
    """

    repository: Path
    binary: bool = True
    declares: bool = True
    live: bool = True
    load_delay: float = 0.0
    dies_on: str = ""
    skew: float = 1.0
    stale: bool = False
    hangs_up: bool = False
    polling: bool = False
    slow_by: dict[str, float] = field(default_factory=dict)
    bad: Behaviour | None = None
    bad_from: str = ""
    turned: bool = False
    stopped: threading.Event = field(default_factory=threading.Event)
    models: dict[str, dict[str, Loaded]] = field(default_factory=dict)
    default: dict[str, str] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    url: str = ""
    first: dict[str, str] = field(default_factory=dict)
    busy: threading.Lock = field(default_factory=threading.Lock)
    http: Any = None

    def load(self, name: str) -> str:
        """The newest version, beside the old one until it is there; what goes wrong leaves the old one."""
        time.sleep(self.load_delay)
        folder = self.repository / name
        numbers = [int(p.name) for p in folder.iterdir() if p.is_dir() and p.name.isdecimal()] if folder.is_dir() else []
        if not numbers:
            return f"failed to load '{name}', failed to poll from model repository"
        version = str(max(numbers))
        most = re.search(r"max_batch_size:\s*(\d+)", (folder / "config.pbtxt").read_text())
        try:
            options = ort.SessionOptions()
            options.intra_op_num_threads = 1
            options.log_severity_level = 4
            session = ort.InferenceSession(str(folder / version / "model.onnx"), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            return f"load failed for model '{name}': version {version} is at UNAVAILABLE state: {error}"
        self.first.setdefault(name, version)
        self.models[name] = {version: Loaded(version, session, int(most[1]) if most else 0)}
        return ""

    def poll(self) -> None:
        for folder in self.repository.iterdir():
            newest = max((p.name for p in folder.glob("[0-9]*")), default="") if folder.is_dir() else ""
            if newest and newest not in self.models.get(folder.name, {}):
                self.load(folder.name)

    def stop_answering(self) -> None:
        """As after kill -9: no connection is accepted any more."""
        threading.Thread(target=self.http.shutdown, daemon=True).start()
        self.http.socket.close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._guard(b"")

    def do_POST(self) -> None:
        self._guard(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _guard(self, body: bytes) -> None:
        world: V2Server = self.server.world
        world.log.append(self.path)
        if world.dies_on and self.path.endswith("/" + world.dies_on):
            world.stop_answering()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        if world.bad is not None and (world.turned or self.path.endswith(world.bad_from)):
            world.turned, self.close_connection = True, True
            with suppress(OSError):
                world.bad(self.connection, world.stopped.wait)
            return
        if world.polling:
            world.poll()
        status, answer, headers = self._answer(world, body)
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        self.close_connection = self.close_connection or world.hangs_up

    def _answer(self, world: V2Server, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        parts = self.path.strip("/").split("/")
        if parts == ["v2"]:
            extensions = ["model_repository"] + ["binary_tensor_data"] * world.declares
            return 200, json.dumps({"name": "small", "version": "1", "extensions": extensions}).encode(), {}
        if parts[:2] == ["v2", "health"]:
            return (200 if world.live else 400), b"", {}
        if parts[:3] == ["v2", "repository", "models"]:
            if world.polling:
                return _no(503, "explicit model load / unload is not allowed if polling is enabled")
            if parts[-1] == "unload":
                world.models.pop(parts[3], None)
                return 200, b"", {}
            problem = world.load(parts[3])
            return _no(400, problem) if problem else (200, b"", {})
        name, versions = parts[2], world.models.get(parts[2], {})
        version = parts[4] if len(parts) > 4 and parts[3] == "versions" else max(versions, default="")
        found = versions.get(version)
        if found is None:
            return _no(400, "Model version not ready") if parts[-1] == "ready" else _no(404, f"unknown model: {name}")
        if parts[-1] == "ready":
            return 200, b"", {}
        if parts[-1] == "infer":
            return self._infer(world, name, found, body, explicit="versions" in parts)
        return 200, json.dumps(_describe(name, found, list(versions))).encode(), {}

    def _infer(
        self, world: V2Server, name: str, found: Loaded, body: bytes, *, explicit: bool
    ) -> tuple[int, bytes, dict[str, str]]:
        split = self.headers.get(LENGTH)
        if split is not None and not world.binary:
            return _no(400, "unexpected character: line 1 column 1")
        head = json.loads(body[: int(split)] if split else body)
        feeds, at = {}, int(split or 0)
        for entry in head["inputs"]:
            dtype = next(code for kind, code in KINDS.values() if kind == entry["datatype"])
            if split is None:
                array = np.array(entry["data"], dtype)
            else:
                size = entry["parameters"]["binary_data_size"]
                array, at = np.frombuffer(body[at : at + size], dtype), at + size
            feeds[entry["name"]] = array.reshape(entry["shape"])
        rows = len(next(iter(feeds.values())))
        if found.most and rows > found.most:
            return _no(400, f"inference request batch-size must be <= {found.most} for '{name}'")
        with world.busy:
            time.sleep(world.slow_by.get(name, 0.0))
        try:
            arrays = found.session.run(None, feeds)
        except Exception as error:
            return _no(400, str(error))
        first = found.version == world.first.get(name)
        outputs, tail = [], b""
        for entry, array in zip(found.session.get_outputs(), arrays, strict=True):
            array = array if first else (array * np.float32(world.skew)).astype(array.dtype)
            outputs.append({"name": entry.name, "shape": list(array.shape), "datatype": KINDS[entry.type][0]})
            if split is None:
                outputs[-1]["data"] = array.ravel().tolist()
            else:
                outputs[-1]["parameters"] = {"binary_data_size": array.nbytes}
                tail += array.tobytes()
        said = world.first[name] if world.stale and not explicit else found.version
        text = json.dumps({"model_name": name, "model_version": said, "outputs": outputs}).encode()
        return 200, text + tail, {LENGTH: str(len(text))} if split else {}


def _no(status: int, text: str) -> tuple[int, bytes, dict[str, str]]:
    return status, json.dumps({"error": text}).encode(), {}


def _describe(name: str, found: Loaded, versions: list[str]) -> dict[str, Any]:
    sides = {}
    for side, entries in (("inputs", found.session.get_inputs()), ("outputs", found.session.get_outputs())):
        sides[side] = [
            {"name": e.name, "datatype": KINDS[e.type][0], "shape": [s if isinstance(s, int) else -1 for s in e.shape]}
            for e in entries
        ]
    return {"name": name, "versions": versions, "platform": "onnxruntime_onnx", **sides}


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        pass  # a client that gave up is nothing to report


@contextmanager
def serving(repository: Path, **faults: Any) -> Iterator[V2Server]:
    """Starts a server with every model of a repository loaded."""
    world = V2Server(repository, **faults)
    world.http = http = _Http(("127.0.0.1", 0), Handler)
    http.world = world  # type: ignore[attr-defined]
    world.url = f"http://127.0.0.1:{http.server_address[1]}"
    for folder in repository.iterdir():
        if (folder / "config.pbtxt").exists():
            assert not world.load(folder.name)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield world
    finally:
        world.stopped.set()
        http.shutdown()
        http.server_close()
        thread.join()
