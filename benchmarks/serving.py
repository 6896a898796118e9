"""A pruned network against its base on a real Triton, and deployments under a client that never stops asking.

    make servers                                                       # once: puts the server into .venv-triton
    compress prune resnet50.pt --arch torchvision:resnet50 --method uniform --macs 0.5 --out runs/resnet50-uniform
    python benchmarks/serving.py load runs/resnet50-uniform [--p99 1.5] [--rounds 5]
    python benchmarks/serving.py deployments runs/demo --data digits [--deployments 100]
    python benchmarks/serving.py misbehaving [--timeout 1]             # needs no Triton

``load``: both files of the run are served by one Triton on one core, asked from another one. Every answer is first compared
with ONNX Runtime here, at equal batch and threads bit for bit, and under dynamic batching. Then the highest rate of Poisson
arrivals that keeps the bound, both networks in turn in every round (``compress serve-bench`` on the same code).

``deployments``: base and pruned in turn, version after version, with ``compress deploy``'s own function, while two clients ask
one request after the other; an answer is right if it is that of the version that the server says gave it.

``misbehaving``: servers that drip, never end or fall silent, from a certain moment after landing on; how long until the version
is taken back and the lock is free.

Everything stays on the loopback address, and every loop is bounded.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from servers import launch
from support.bad_servers import BAD
from support.serving_nets import images, net
from support.v2server import serving

from compress.core import capture, write_json
from compress.data import open_data
from compress.errors import CompressError
from compress.export import read_interface
from compress.serving import Client, DeploymentLimits, Scenario, Serving, Tried, asking, deploy, package, sustained

RESULTS = Path(__file__).parent / "results"
SERVING = Serving(max_batch=8, preferred=(), queue_delay_us=500, threads=1, device="cpu")
SERVER_CORE, CLIENT_CORE = 1, 0


def here(file: Path, batches: list[np.ndarray]) -> list[np.ndarray]:
    """What ONNX Runtime computes in this process, with one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return [np.asarray(session.run(None, {name: batch})[0]) for batch in batches]


def equal(url: str, name: str, file: Path, version: str = "1") -> dict[str, Any]:
    """Answers against those of this process: alone, and while other requests share the batch."""
    interface = read_interface(file)
    entry, output = interface.inputs[0].name, interface.outputs[0].name
    images = np.random.default_rng(1).standard_normal((8, *interface.inputs[0].row)).astype(np.float32)
    exact = {}
    with Client(url, timeout=120) as client:
        for batch in (1, 2, 5, 8):
            answer = client.infer(name, {entry: images[:batch]}).outputs[output]
            exact[batch] = bool(np.array_equal(answer, here(file, [images[:batch]])[0]))
        before = client.statistics(name)["model_stats"][0]
    singles = here(file, [images[index : index + 1] for index in range(8)])
    scale = max(float(np.abs(single).max()) for single in singles)
    errors: list[float] = []

    def ask(index: int) -> None:
        with Client(url, timeout=120) as client:
            for _ in range(3):
                answer = client.infer(name, {entry: images[index : index + 1]}).outputs[output]
                errors.append(float(np.abs(answer - singles[index]).max()) / scale)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Client(url, timeout=120) as client:
        after = client.statistics(name)["model_stats"][0]
    return {
        "bit for bit at batch": exact,
        "requests together": len(errors),
        "executions for them": after["execution_count"] - before["execution_count"],
        "largest error under dynamic batching, of the outputs' scale": max(errors),
    }


def load(arguments: argparse.Namespace) -> dict[str, Any]:
    run: Path = arguments.run
    files = {"base": run / "base.onnx", "pruned": run / "model.onnx"}
    os.sched_setaffinity(0, {CLIENT_CORE})
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        repository = Path(folder) / "repository"
        for name, file in files.items():
            package(file, repository, "triton", name=name, serving=SERVING)
        with launch.triton(repository, Path(folder) / "triton.log", cores=[SERVER_CORE]) as server:
            answers = {name: equal(server.url, name, file) for name, file in files.items()}
            print(json.dumps(answers), flush=True)
            scenario = Scenario(
                arguments.p99,
                rounds=arguments.rounds,
                requests=arguments.requests,
                confirm=arguments.confirm,
                step=arguments.step,
                control=arguments.control,
            )
            arms = {name: asking(server.url, name, timeout=120) for name in files}
            started = os.getloadavg()
            result = sustained(arms, scenario, listen=said)
    report = json.loads(run.joinpath("report.json").read_text())
    return {
        "network": report["architecture"],
        "method": report["method"],
        "macs": [report["before"]["macs"], report["after"]["macs"]],
        "server": "NVIDIA Triton 2.51 (nvidia-pytriton 0.7.0), Python backend on onnxruntime 1.31.1, 1 instance, 1 thread",
        "serving": dataclasses.asdict(SERVING),
        "cores": {"server": SERVER_CORE, "client": CLIENT_CORE},
        "load average": {"before": started, "after": os.getloadavg()},
        "answers": answers,
        "load": result.to_json(),
    }


def said(event: object) -> None:
    if isinstance(event, Tried):
        print(f"round {event.round} {event.arm} {event.rate:.3f}/s {'kept' if event.kept else 'lost'}", flush=True)


def deployments(arguments: argparse.Namespace) -> dict[str, Any]:
    run: Path = arguments.run
    files = [run / "base.onnx", run / "model.onnx"]  # version 1, 3, ... and 2, 4, ...
    interface = read_interface(files[1])
    data = open_data(arguments.data, preprocessing=interface.preprocessing)
    images = data.calibration.images(8).numpy()
    entry, output = interface.inputs[0].name, interface.outputs[0].name
    wanted = [here(file, [images[:2]])[0] for file in files]
    scale = [float(np.abs(array).max()) for array in wanted]
    stop = threading.Event()
    lock = threading.Lock()
    answered: Counter[str] = Counter()
    tally: Counter[str] = Counter()
    worst, slowest, problems = 0.0, 0.0, []

    def ask() -> None:
        nonlocal worst, slowest
        with Client(server.url, timeout=60) as client:
            while not stop.is_set():
                before = time.perf_counter()
                try:
                    answer = client.infer("net", {entry: images[:2]})
                except CompressError as error:
                    with lock:
                        tally["failed"] += 1
                        problems.append(error.message)
                    continue
                seconds, which = time.perf_counter() - before, (int(answer.version) - 1) % 2
                off = float(np.abs(answer.outputs[output] - wanted[which]).max()) / scale[which]
                with lock:
                    answered[answer.version] += 1
                    tally["exact"] += off == 0.0
                    tally["wrong"] += off > 1e-6
                    worst, slowest = max(worst, off), max(slowest, seconds)

    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        repository = Path(folder) / "repository"
        package(files[0], repository, "triton", name="net", serving=SERVING)
        with launch.triton(repository, Path(folder) / "triton.log") as server:
            clients = [threading.Thread(target=ask) for _ in range(2)]
            for client in clients:
                client.start()
            started, seconds, exact = time.monotonic(), [], 0
            try:
                for number in range(arguments.deployments):
                    before = time.monotonic()
                    done = deploy(
                        files[(number + 1) % 2],
                        images,
                        repository=repository,
                        url=server.url,
                        name="net",
                        limits=DeploymentLimits(timeout=120),
                    )
                    assert done.version == str(number + 2)
                    exact += done.exact
                    seconds.append(time.monotonic() - before)
                    if number % 10 == 9:
                        print(f"{number + 1} deployments, {sum(answered.values())} answers, {dict(tally)}", flush=True)
            finally:
                stop.set()
                for client in clients:
                    client.join()
            elapsed = time.monotonic() - started
        versions = sorted(int(p.name) for p in (repository / "net").iterdir() if p.name.isdecimal())
        left = [p.name for p in repository.rglob(".incoming*")]
    return {
        "server": "NVIDIA Triton 2.51 (nvidia-pytriton 0.7.0), Python backend on onnxruntime 1.31.1",
        "deployments": len(seconds),
        "deployments compared bit for bit": exact,
        "seconds a deployment (median)": float(np.median(seconds)),
        "clients": 2,
        "seconds": elapsed,
        "answers": sum(answered.values()),
        "versions that answered": len(answered),
        "failed": tally["failed"],
        "wrong (off by more than 1e-6 of the outputs' scale)": tally["wrong"],
        "bit for bit": tally["exact"],
        "largest error, of the outputs' scale": worst,
        "slowest answer, seconds": slowest,
        "versions in the repository": len(versions),
        "left aside": left,
        "problems": problems[:5],
        "load average": os.getloadavg(),
    }


def misbehaving(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds until a deployment is taken back, by what the server does from when on."""
    found: dict[str, dict[str, float]] = {}
    for behaviour in BAD:
        row = found[behaviour.__name__.replace("_", " ")] = {}
        for moment in ("/load", "/versions/2/ready", "/infer"):
            with tempfile.TemporaryDirectory(dir=arguments.work) as name:
                repository = Path(name) / "repository"
                package(net(Path(name) / "old.onnx", 1), repository, "triton", name="net", serving=Serving(max_batch=4))
                new = net(Path(name) / "new.onnx", 2)
                with serving(repository, bad=behaviour, bad_from=moment) as world:
                    events: list[tuple[str, float]] = []

                    def heard(event: object, events: list[tuple[str, float]] = events) -> None:
                        events.append((f"{type(event).__name__} {getattr(event, 'name', '')}", time.monotonic()))

                    try:
                        options = {"name": "net", "limits": DeploymentLimits(timeout=arguments.timeout), "listen": heard}
                        deploy(new, images(), repository=repository, url=world.url, **options)
                        raise SystemExit(f"{behaviour.__name__} from {moment}: it was deployed")
                    except CompressError:
                        ended = time.monotonic()
                if (repository / "net" / "2").exists():
                    raise SystemExit(f"{behaviour.__name__} from {moment}: the version is still there")
                published = next(at for what, at in events if what == "Phase load")
                row[moment.rpartition("/")[2]] = round(ended - published, 2)
    slowest = max(seconds for row in found.values() for seconds in row.values())
    return {"timeout": arguments.timeout, "promised": 3 * arguments.timeout, "slowest": slowest, "seconds": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("load")
    first.add_argument("run", type=Path)
    first.add_argument("--p99", type=float, default=1.5, help="seconds")
    first.add_argument("--rounds", type=int, default=5)
    first.add_argument("--requests", type=int, default=100)
    first.add_argument("--confirm", type=int, default=1000)
    first.add_argument("--step", type=float, default=1.04)
    first.add_argument("--control", action="store_true")
    second = commands.add_parser("deployments")
    second.add_argument("run", type=Path)
    second.add_argument("--data", default="digits")
    second.add_argument("--deployments", type=int, default=100)
    third = commands.add_parser("misbehaving")
    third.add_argument("--timeout", type=float, default=1.0, help="seconds")
    for command, name in ((first, "serving"), (second, "serving-deployments"), (third, "serving-misbehaving")):
        command.add_argument("--out", type=Path, default=RESULTS / f"{name}.json")
        command.add_argument("--work", type=Path, default=None, help="for the repository; default: the system's")
    arguments = parser.parse_args()
    facts = {"load": load, "deployments": deployments, "misbehaving": misbehaving}[arguments.command](arguments)
    write_json(arguments.out, {**facts, "environment": capture(threads=1).to_json()})
    print(json.dumps(facts, indent=1)[:3000])


if __name__ == "__main__":
    main()
