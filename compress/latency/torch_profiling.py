"""Where the time of a network goes in torch: each module's time, as the network runs, without copies.

On the CPU by the clock that decides there, on a card by events around each module. On a card a module's time also holds what
the device waits for launches, so its kernels are timed a second time without any: replayed from a CUDA graph, many in a row.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.core import capture
from compress.errors import ModelError
from compress.latency.arms import noise
from compress.latency.layer_shapes import LayerShape
from compress.latency.profiling import KernelTime, Profile, typical
from compress.latency.result import Settings
from compress.runtime import TimedByEvents, TorchRuntime, arrays_of, captured

BETWEEN = "functions"
"""The operator that stands for everything which runs outside of modules: sums, concatenations, means."""
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_REPEATS, _REPLAYS = 10, 5


@dataclass(slots=True)
class _Watched:
    """A module without children, as one run called it."""

    module: nn.Module
    seconds: list[float] = field(default_factory=list)
    read: tuple[int, ...] = ()
    made: tuple[int, ...] = ()
    arguments: tuple[Any, ...] = ()


@dataclass(slots=True)
class _Marks:
    """Beginnings and ends in one run: seconds, or events that tell them once the device is done."""

    now: Callable[[], Any]
    between: Callable[[Any, Any], float]
    begun: dict[str, Any] = field(default_factory=dict)
    ended: list[tuple[str, Any, Any]] = field(default_factory=list)


def profile_modules(
    path: Path,
    *,
    runtime: TorchRuntime,
    batch: int = 1,
    seconds: float = 5.0,
    least_runs: int = 10,
    most_runs: int = 200,
    seed: int = 0,
    launches: bool = True,
) -> tuple[Profile, Mapping[str, LayerShape]]:
    """Runs a network for some seconds and says what each of its modules takes, and what channels the layers hold.

    Args:
        path: what the runtime opens.
        runtime: device, number format, threads; it is run eager in any case.
        batch: images a run.
        seconds: how long to run, warm-up apart.
        least_runs: that are done however long they take.
        most_runs: that are done at the most.
        seed: of the input noise.
        launches: on a card, the kernels of each module are timed once more without launches between them.

    Raises:
        ModelError: the network does not run on its input.
        RuntimeUnavailable: the device is not there.
    """
    with replace(runtime, cuda_graph=False).load(path) as session:
        feed = noise(session, path.name, Settings(batch=batch, seed=seed))
        session.run(feed)
        run = session.prepare(feed, "device")
        launch = run.launch if isinstance(run, TimedByEvents) else run
        watched, whole, marks = dict[str, _Watched](), list[float](), _marks(runtime)
        started = time.perf_counter()
        with _watching(session.model, watched, marks):
            while len(whole) <= least_runs or (time.perf_counter() - started < seconds and len(whole) <= most_runs):
                whole.append(_one_run(launch, watched, marks, runtime))
        kernels = _kernels(watched, whole[1:], batch, alone=launches and runtime.on_gpu)
    found = Profile(
        file=path.name,
        runtime=runtime.name,
        batch=batch,
        image=tuple(arrays_of(feed)[0].shape[1:]),
        runs=len(whole) - 1,
        run_seconds=float(np.median(whole[1:])),
        kernels=kernels,
        host_only=False,
        fallback="",
        environment=capture(threads=runtime.threads),
    )
    return found, {name: shape for name, one in watched.items() if (shape := _shape(one.module)) is not None}


def _marks(runtime: TorchRuntime) -> _Marks:
    if not runtime.on_gpu:
        return _Marks(time.thread_time if runtime.threads == 1 else time.perf_counter, lambda start, end: float(end - start))

    def now() -> Any:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    return _Marks(now, lambda start, end: float(start.elapsed_time(end)) * 1e-3)


def _one_run(launch: Callable[[], object], watched: Mapping[str, _Watched], marks: _Marks, runtime: TorchRuntime) -> float:
    """Seconds of a run; each module's are noted with it."""
    marks.ended.clear()
    start = marks.now()
    launch()
    end = marks.now()
    if runtime.on_gpu:
        torch.cuda.synchronize()
    taken = dict.fromkeys(watched, 0.0)
    for name, begun, ended in marks.ended:  # a module may be called several times
        taken[name] = taken.get(name, 0.0) + marks.between(begun, ended)
    for name, seconds in taken.items():
        watched[name].seconds.append(seconds)
    return marks.between(start, end)


@contextmanager
def _watching(model: nn.Module, watched: dict[str, _Watched], marks: _Marks) -> Iterator[None]:
    handles = []
    for name, module in model.named_modules():
        if any(True for _ in module.children()):
            continue

        def before(module: nn.Module, args: tuple[Any, ...], *, name: str = name) -> None:
            marks.begun[name] = marks.now()

        def after(module: nn.Module, args: tuple[Any, ...], made: Any, *, name: str = name) -> None:
            marks.ended.append((name, marks.begun.pop(name), marks.now()))
            if name not in watched:
                given = next((value for value in args if isinstance(value, Tensor)), None)
                watched[name] = _Watched(
                    module=module,
                    read=() if given is None else tuple(given.shape),
                    made=tuple(made.shape) if isinstance(made, Tensor) else (),
                    arguments=args,
                )

        handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _kernels(watched: Mapping[str, _Watched], whole: list[float], batch: int, *, alone: bool) -> tuple[KernelTime, ...]:
    """Typical times of the modules in the order in which they run, and of what lies between them; the first run warmed up."""
    found = [_kernel(name, one, batch, alone=alone) for name, one in watched.items()]
    inside = np.sum([one.seconds[-len(whole) :] for one in watched.values()], axis=0) if watched else np.zeros(len(whole))
    rest = typical(np.maximum(np.asarray(whole) - inside, 0.0).tolist())
    found.append(_time(BETWEEN, BETWEEN, rest))
    total = sum(one.seconds for one in found) or 1.0
    return tuple(replace(one, share=one.seconds / total) for one in found)


def _kernel(name: str, one: _Watched, batch: int, *, alone: bool) -> KernelTime:
    weight = getattr(one.module, "weight", None)
    size, weights = (weight.element_size(), weight.numel()) if isinstance(weight, Tensor) else (4, 0)
    op, places = type(one.module).__name__, 0
    if isinstance(one.module, _CONVOLUTIONS):
        op, places = "Conv", batch * math.prod(one.made[2:])
    elif isinstance(one.module, _TRANSPOSED):
        op, places = "ConvTranspose", batch * math.prod(one.read[2:])
    elif isinstance(one.module, nn.Linear):
        op, places = "Gemm", math.prod(one.made[:-1])
    made = _time(name, op, typical(one.seconds[1:]))
    return replace(
        made,
        module=name if weights else "",
        inputs=(one.read, tuple(weight.shape)) if isinstance(weight, Tensor) else (one.read,),
        output=one.made,
        activations=math.prod(one.made) if one.made else 0,
        read=size * math.prod(one.read) if one.read else 0,
        weights=size * weights,
        written=size * math.prod(one.made) if one.made else 0,
        macs=weights * places,
        alone=_alone(one) if alone else None,
    )


def _time(name: str, op: str, seconds: float) -> KernelTime:
    return KernelTime(
        name=name,
        op=op,
        module="",
        layout=False,
        blocked=False,
        seconds=seconds,
        share=0.0,
        inputs=(),
        output=(),
        activations=0,
        read=0,
        weights=0,
        written=0,
        macs=0,
    )


def _alone(one: _Watched) -> float | None:
    """Seconds of a module's kernels with nothing between them; None where it cannot be captured."""

    def several() -> object:
        with torch.inference_mode():
            return [one.module(*one.arguments) for _ in range(_REPEATS)]

    try:
        run = TimedByEvents(captured(several))
        run()
        return min(run.device_seconds(1) for _ in range(_REPLAYS)) / _REPEATS
    except (ModelError, RuntimeError):
        return None


def _shape(module: nn.Module) -> LayerShape | None:
    """The channels of a convolution or linear layer."""
    weight = getattr(module, "weight", None)
    if not isinstance(module, (*_CONVOLUTIONS, *_TRANSPOSED, nn.Linear)) or not isinstance(weight, Tensor):
        return None
    groups = int(getattr(module, "groups", 1))
    first, second = int(weight.shape[0]), int(weight.shape[1])
    turned = isinstance(module, _TRANSPOSED)
    return LayerShape(
        outputs=second * groups if turned else first,
        inputs=first if turned else second * groups,
        cardinality=groups,
        weights=weight.numel(),
        itemsize=weight.element_size(),
    )
