"""Starts and stops real inference servers on the loopback address: ``python tests/servers/launch.py triton REPOSITORY``.

``tests/servers/setup.sh`` (``make servers``) puts them into environments of their own first.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
READY_WITHIN = 90.0  # seconds; MLServer and KServe import for long


class NotInstalled(Exception):
    """The server's environment is missing."""


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    process: subprocess.Popen[bytes]
    http: int
    grpc: int
    metrics: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.http}"

    def kill(self) -> None:
        """Dies at once, with everything it started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def installed(server: str) -> bool:
    return (ROOT / f".venv-{server}" / ".packages").exists()


@contextmanager
def triton(
    repository: Path,
    log: Path,
    *,
    cores: Sequence[int] = (),
    options: Sequence[str] = (),
    load: str = "*",
    ports: Sequence[int] = (),
) -> Iterator[Running]:
    """NVIDIA Triton on a repository, under explicit model control."""
    home = _home("triton")
    library_path = (home / "library_path").read_text().strip()
    binary = next(home.glob("lib/python3*/site-packages/pytriton/tritonserver/bin/tritonserver"))
    http_port, grpc_port, metrics_port = ports or free_ports(3)
    command = [
        str(binary),
        f"--model-repository={repository}",
        "--model-control-mode=explicit",
        *([f"--load-model={load}"] if load else []),
        f"--backend-directory={home / 'backends'}",
        f"--http-address={HOST}",
        f"--http-port={http_port}",
        f"--grpc-address={HOST}",
        f"--grpc-port={grpc_port}",
        f"--metrics-address={HOST}",
        f"--metrics-port={metrics_port}",
        "--exit-on-error=true",
        "--strict-readiness=true",
        "--disable-auto-complete-config",
        "--exit-timeout-secs=3",
        *options,
    ]
    variables = {"LD_LIBRARY_PATH": library_path, "PATH": f"{home / 'bin'}:{os.environ['PATH']}"}
    with _running(command, variables, (http_port, grpc_port, metrics_port), log, cores) as server:
        yield server


@contextmanager
def mlserver(folder: Path, log: Path, *, cores: Sequence[int] = ()) -> Iterator[Running]:
    """Seldon's MLServer on a folder of models; the ports come from the environment, so that the folder stays as it is."""
    home = _home("mlserver")
    http_port, grpc_port, metrics_port = free_ports(3)
    variables = {
        "MLSERVER_HOST": HOST,
        "MLSERVER_HTTP_PORT": str(http_port),
        "MLSERVER_GRPC_PORT": str(grpc_port),
        "MLSERVER_METRICS_PORT": str(metrics_port),
        "MLSERVER_PARALLEL_WORKERS": "0",
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
    }
    command = [str(home / "bin" / "mlserver"), "start", str(folder)]
    with _running(command, variables, (http_port, grpc_port, metrics_port), log, cores) as server:
        yield server


@contextmanager
def kserve(script: Path, arguments: Sequence[str], log: Path, *, cores: Sequence[int] = ()) -> Iterator[Running]:
    """A script on the KServe SDK's model server."""
    home = _home("kserve")
    http_port, grpc_port = free_ports(2)
    command = [
        str(home / "bin" / "python"),
        str(script),
        *arguments,
        f"--http_port={http_port}",
        f"--grpc_port={grpc_port}",
        "--enable_grpc=False",
    ]
    with _running(command, {}, (http_port, grpc_port, http_port), log, cores) as server:
        yield server


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def answers(port: int, path: str = "/v2/health/ready") -> bool:
    """Whether somebody says 200 there."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _home(server: str) -> Path:
    if not installed(server):
        raise NotInstalled(f"{server} is not installed: make servers")
    return ROOT / f".venv-{server}"


@contextmanager
def _running(
    command: list[str], variables: Mapping[str, str], ports: Sequence[int], log: Path, cores: Sequence[int]
) -> Iterator[Running]:
    pinned = ["taskset", "-c", ",".join(map(str, cores))] if cores and shutil.which("taskset") else []
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*pinned, *command],
            env={**clean, "OMP_NUM_THREADS": "1", **variables},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Running(process, *ports, log)
    try:
        _wait(server)
        yield server
    finally:
        _stop(process)


def _wait(server: Running) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while not answers(server.http):
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server did not get ready:\n{server.log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.1)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
    with suppress(ProcessLookupError):  # workers and stubs that outlive it
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _foreground(server: str, place: str, *arguments: str) -> None:
    """Until Ctrl-C; Triton on the ports that everybody knows."""
    path, log = Path(place), Path(f"{server}.log")
    if server == "triton":
        path.mkdir(parents=True, exist_ok=True)
    started = {
        "triton": lambda: triton(path, log, ports=(8000, 8001, 8002), options=arguments),
        "mlserver": lambda: mlserver(path, log),
        "kserve": lambda: kserve(path, arguments, log),
    }[server]()
    with started as running:
        print(f"{server} answers at {running.url}, gRPC at port {running.grpc}; its log: {log}; Ctrl-C stops it", flush=True)
        running.process.wait()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # by way of the finally that stops the server
    with suppress(KeyboardInterrupt):
        _foreground(*sys.argv[1:])
