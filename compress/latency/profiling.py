"""Where the time of an ONNX file goes: each kernel's time, and the torch module that it comes from.

The file runs in a session of its own with ONNX Runtime's profiling on. That session is slower than an unprofiled one, so its
times are shares of each other, never a latency. On the CUDA and TensorRT providers they are host times of enqueueing work:
``host_only`` says so.

A kernel's name leads back to a node: it is the node's own name, or, where ONNX Runtime fused nodes or changed their layout,
the name of the tensor that the kernel makes, with a suffix. From that tensor the way back over fused activations and sums
ends at the convolution, linear layer or batch norm whose weight names the module.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx

from compress.core import Environment, capture
from compress.errors import ConfigError
from compress.export import module_of
from compress.latency.arms import noise
from compress.latency.result import Settings
from compress.runtime import ON_GPU, OrtRuntime, arrays_of, read_onnx

_KERNEL = "_kernel_time"
_FUSED = re.compile(r"(_bn)?_nchwc(_\d+)?$")
_PARTS = re.compile(r"/(MatMulAddFusion|GemmActivationFusion|ConvActivationFusion|ConvAddActivationFusion).*$")
_LAYOUT = frozenset({"ReorderInput", "ReorderOutput", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})
_WEIGHTED = frozenset({"Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "BatchNormalization"})
_MULTIPLIES = _WEIGHTED - {"BatchNormalization"}


@dataclass(frozen=True, slots=True)
class KernelTime:
    """One kernel that runs, with its time.

    Attributes:
        name: as ONNX Runtime calls it.
        op: the kernel's operator, e.g. ``Conv``, ``FusedConv``, ``Concat``, ``ReorderInput``.
        module: the torch module whose weight it applies; empty for kernels without a weight.
        layout: it only changes how numbers lie in memory.
        blocked: it is one of the fast kernels that hold channels in blocks (``nchwc``).
        seconds: typical time; neighbours on the machine only ever add, so it is the mean between the runs' 10 % and 40 %
            quantiles.
        share: of the sum over all kernels.
        inputs: shapes of what it reads, the weight among them; channels as padded by the kernel.
        output: shape of what it makes.
        activations: numbers that it makes.
        read: bytes of activations that it reads; ``weights`` and ``written`` likewise.
        macs: multiply-accumulates of a convolution or linear layer at the shapes that really ran, padding included.
        alone: seconds without any wait for a launch, on a card; None where that was not measured.
    """

    name: str
    op: str
    module: str
    layout: bool
    blocked: bool
    seconds: float
    share: float
    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    activations: int
    read: int
    weights: int
    written: int
    macs: int
    alone: float | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """The kernels of one file, in the order in which they run.

    Attributes:
        runtime: ``ort-cpu`` and so on.
        batch: images a run.
        image: shape of one image.
        runs: how many runs the times are of.
        run_seconds: median time of a whole profiled run: with what profiling itself costs, up to several times an
            unprofiled run's.
        host_only: the times are host times of enqueueing work on a GPU.
        fallback: why something else ran than what was asked for; empty when nothing fell back.
    """

    file: str
    runtime: str
    batch: int
    image: tuple[int, ...]
    runs: int
    run_seconds: float
    kernels: tuple[KernelTime, ...]
    host_only: bool
    fallback: str
    environment: Environment

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        plain: dict[str, Any] = asdict(self) | {"environment": self.environment.to_json()}
        return plain


def profile(
    path: Path,
    *,
    runtime: OrtRuntime | None = None,
    batch: int = 1,
    image: Sequence[int] | None = None,
    seconds: float = 5.0,
    least_runs: int = 10,
    most_runs: int = 200,
    seed: int = 0,
) -> Profile:
    """Runs a file for some seconds and says what each of its kernels takes.

    Args:
        path: an ONNX file with one input.
        runtime: provider and threads; the CPU on one thread by default.
        batch: images a run.
        image: shape of one image, where the file leaves it open.
        seconds: how long to run, warm-up apart.
        least_runs: that are done however long they take.
        most_runs: that are done at the most.
        seed: of the input noise.

    Raises:
        ModelError: the file cannot be loaded, or its input does not fit the batch; export it with a dynamic batch.
        RuntimeUnavailable: the runtime insists on a device that is not there.
        ConfigError: the file leaves its image size open and none is given, or a number is not usable.
    """
    if batch < 1 or least_runs < 1 or most_runs < least_runs or not seconds > 0:
        raise ConfigError(
            f"batch {batch}, {least_runs} to {most_runs} runs in {seconds:g} s, all 1 or more are wanted",
            hint="leave them at their defaults",
        )
    runtime = runtime or OrtRuntime()
    graph = read_graph(path)
    settings = Settings(batch=batch, image=None if image is None else tuple(image), seed=seed)
    with (
        tempfile.TemporaryDirectory(prefix="compress-profile-") as folder,
        replace(runtime, profile_to=str(Path(folder) / "ort")).load(path) as session,
    ):
        feed = noise(session, path.name, settings)
        run = session.prepare(feed)
        session.run(feed)
        started, runs = perf_counter(), 0
        while runs < least_runs or (perf_counter() - started < seconds and runs < most_runs):
            run()
            runs += 1
        events = _events(Path(session.session.end_profiling()))
        active, fallback = session.provider, session.fallback
    kernels, whole = _kernels(events, graph, skip=1)
    return Profile(
        file=path.name,
        runtime=runtime.name,
        batch=batch,
        image=tuple(arrays_of(feed)[0].shape[1:]),
        runs=runs,
        run_seconds=whole,
        kernels=kernels,
        host_only=active in ON_GPU,
        fallback=fallback,
        environment=capture(threads=runtime.threads),
    )


def read_graph(path: Path) -> onnx.GraphProto:
    """The nodes and the names of the weights of a file; not their numbers where those lie in another file.

    Raises:
        ModelError: it is no ONNX file.
    """
    return read_onnx(path, weights=False).graph


def modules(graph: onnx.GraphProto, kernels: Sequence[str]) -> dict[str, str]:
    """Kernel name -> the module whose weight it applies; empty where it has none.

    Args:
        graph: as exported.
        kernels: every kernel that runs: where one begins, the way back from another ends.
    """
    by_name = {node.name: node for node in graph.node if node.name}
    producer = {output: node for node in graph.node for output in node.output}
    start: dict[str, onnx.NodeProto] = {}
    for kernel in kernels:
        base = _PARTS.sub("", kernel)
        found = by_name.get(base) or producer.get(_FUSED.sub("", base)) or by_name.get(_FUSED.sub("", base))
        if found is not None:
            start[kernel] = found
    taken = {id(node) for node in start.values()}
    weights = {tensor.name for tensor in graph.initializer}
    return {
        kernel: _module(start[kernel], producer, weights, taken - {id(start[kernel])}) if kernel in start else ""
        for kernel in kernels
    }


def _module(node: onnx.NodeProto, producer: Mapping[str, onnx.NodeProto], weights: set[str], taken: set[int]) -> str:
    """Back over what was fused into a kernel, nearest first, to a node with a weight."""
    near, seen = [node], set[int]()
    while near:
        here = near.pop(0)
        if id(here) in seen or id(here) in taken:
            continue
        seen.add(id(here))
        if here.op_type in _WEIGHTED:
            if name := _weight(here, producer, weights):
                # A batch norm that was fused into the convolution before it is that convolution's.
                before = producer.get(here.input[0]) if here.op_type == "BatchNormalization" else None
                fused = before is not None and before.op_type in _MULTIPLIES and id(before) not in taken
                return _module(before, producer, weights, taken) if fused and before is not None else name
            return ""
        near += [producer[name] for name in here.input if name in producer]
    return ""


def _weight(node: onnx.NodeProto, producer: Mapping[str, onnx.NodeProto], weights: set[str]) -> str:
    """The module of a node's weight: its initialiser without ``.weight``, or the scope that the exporter noted."""
    for name in list(node.input)[1:] + list(node.input)[:1]:
        while name not in weights and name in producer and producer[name].op_type in {"Transpose", "Identity", "Cast"}:
            name = producer[name].input[0]
        if name in weights and name.endswith(".weight"):
            return str(name).removesuffix(".weight")
    return module_of(node) or next((str(name) for name in node.input[1:] if name in weights), "")


def _events(path: Path) -> Sequence[Mapping[str, Any]]:
    events: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return events


def _kernels(events: Sequence[Mapping[str, Any]], graph: onnx.GraphProto, skip: int) -> tuple[tuple[KernelTime, ...], float]:
    """Typical times over the runs after the first ``skip``, and the median of whole runs."""
    times: dict[str, list[float]] = {}
    facts: dict[str, Mapping[str, Any]] = {}
    whole = [e["dur"] * 1e-6 for e in events if e["name"] == "model_run"][skip:]
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            name = event["name"].removesuffix(_KERNEL)
            times.setdefault(name, []).append(event["dur"] * 1e-6)
            facts[name] = event["args"]
    owner = modules(graph, list(times))
    found = [_kernel(name, facts[name], owner[name], typical(times[name][skip:])) for name in times]
    total = sum(k.seconds for k in found) or 1.0
    return tuple(replace(k, share=k.seconds / total) for k in found), float(np.median(whole))


def typical(seconds: Sequence[float]) -> float:
    """The mean between the 10 % and 40 % quantiles: finer than the microseconds that the events are written in."""
    ordered = np.sort(np.asarray(seconds))
    low = len(ordered) // 10
    return float(ordered[low : max(round(0.4 * len(ordered)), low + 1)].mean())


def _kernel(name: str, args: Mapping[str, Any], module: str, seconds: float) -> KernelTime:
    inputs, outputs = tuple(_shapes(args["input_type_shape"])), tuple(_shapes(args["output_type_shape"]))
    output = outputs[0] if outputs else ()
    op = str(args["op_name"])
    size = math.prod(output) if output else 0
    macs = _macs(op, inputs, output) if op in _MULTIPLIES else 0
    return KernelTime(
        name=name,
        op=op,
        module=module,
        layout=op in _LAYOUT,
        blocked=_FUSED.search(name) is not None,
        seconds=seconds,
        share=0.0,
        inputs=inputs,
        output=output,
        activations=size,
        read=int(args.get("activation_size", 0)),
        weights=int(args.get("parameter_size", 0)),
        written=int(args.get("output_size", 0)),
        macs=macs,
    )


def _macs(op: str, inputs: tuple[tuple[int, ...], ...], made: tuple[int, ...]) -> int:
    """A packed weight is not among the inputs: a linear layer is counted without it, a convolution is not."""
    if op in {"Gemm", "FusedGemm", "MatMul"}:
        return math.prod(made) * inputs[0][-1]
    if len(inputs) < 2 or len(inputs[1]) < 2:  # nothing, or the bias
        return 0
    places = inputs[0] if op == "ConvTranspose" else made
    return math.prod(inputs[1]) * places[0] * math.prod(places[2:])


def _shapes(listed: Sequence[Mapping[str, Sequence[int]]]) -> Iterator[tuple[int, ...]]:
    for entry in listed:
        for shape in entry.values():
            yield tuple(int(size) for size in shape)
