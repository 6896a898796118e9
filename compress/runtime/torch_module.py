"""torch itself as a runtime: a module on the CPU or a CUDA device, as it is (eager) or captured as a CUDA graph.

What a file is, and how it becomes a module, is the caller's: :class:`TorchRuntime` is given a function that opens files. On a
CUDA device runs are timed with the device's own events (``pytest -m gpu`` where a card is; benchmarks/gpu.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from compress.errors import ModelError, RuntimeUnavailable, one_line
from compress.runtime.base import Array, Feed, TorchPrecision, Transfer, arrays_of
from compress.runtime.eager import EagerSession

Opens = Callable[[Path], tuple[nn.Module, tuple[int, ...]]]
"""A file's network in evaluation mode, nobody else's copy, and the shape of one of its inputs."""
_WARM_UPS = 3  # before a graph is captured: libraries choose their kernels and allocate


@dataclass(frozen=True, slots=True)
class TorchRuntime:
    """torch on one device, in one number format.

    Attributes:
        opens: makes a module of a file.
        device: ``cpu`` or ``cuda`` (the current one).
        precision: ``fp32`` computes in single precision everywhere, ``tf32`` lets a card round what it multiplies to TF32,
            ``fp16`` is half precision with channels last.
        threads: on the CPU; None leaves it to torch.
        cuda_graph: capture a run once and replay it, which takes one launch (needs the ``device`` transfer).
        require_gpu: as for ONNX Runtime; a CUDA device is never replaced by the CPU here.
    """

    opens: Opens
    device: Literal["cpu", "cuda"] = "cpu"
    precision: TorchPrecision = "fp32"
    threads: int | None = 1
    cuda_graph: bool = False
    require_gpu: bool = False

    @property
    def name(self) -> str:
        """``torch-cpu``, ``torch-cuda``, with ``-tf32`` or ``-fp16``, and ``-graph`` where runs are replayed."""
        precision = "" if self.precision == "fp32" else f"-{self.precision}"
        return f"torch-{self.device}{precision}" + ("-graph" if self.cuda_graph else "")

    @property
    def on_gpu(self) -> bool:
        """Whether it runs on a card."""
        return self.device == "cuda"

    def available(self) -> bool:
        """Whether this machine has the device."""
        return not self.missing()

    def missing(self) -> str:
        """Why it cannot run here; empty when it can."""
        if self.device == "cpu" or torch.cuda.is_available():
            return ""
        return f"torch {torch.__version__} sees no CUDA device on this machine"

    @contextmanager
    def load(self, path: Path) -> Iterator[TorchSession]:
        """Open a file.

        Raises:
            RuntimeUnavailable: there is no CUDA device; measure with ``torch-cpu``, or where one is.
            ModelError: the network has no tensor in a number format that could be changed, or does not fit the device.
        """
        check_torch_device(self)
        model, shape = self.opens(path)
        with _set_up(self):
            try:
                yield TorchSession(_placed(model, self), (None, *shape), runtime=self)
            except torch.OutOfMemoryError as error:
                raise ModelError(
                    f"{path} does not fit the device: {one_line(error)}", hint="measure at a smaller --batch"
                ) from error


def check_torch_device(runtime: TorchRuntime) -> None:
    """That the device is there, before anything is read.

    Raises:
        RuntimeUnavailable: it is not.
    """
    if missing := runtime.missing():
        raise RuntimeUnavailable(
            f"{runtime.name} cannot run: {missing}",
            hint="measure with --runtime torch-cpu, or go to a machine with an NVIDIA card and a torch built for CUDA",
        )


@dataclass(frozen=True, slots=True)
class TorchSession(EagerSession):
    """A module on its runtime's device, in its number format; arrays come and go in single precision."""

    runtime: TorchRuntime = field(kw_only=True)

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """Single precision."""
        return np.dtype(np.float32)

    @property
    def options(self) -> Mapping[str, str]:
        """What changes how fast it runs."""
        threads = self.runtime.threads
        found = {"provider": self.providers[0], "threads": "default" if threads is None else str(threads)}
        found["numbers"] = {"fp32": "fp32, TF32 off", "tf32": "fp32, TF32 on", "fp16": "fp16, channels last"}[
            self.runtime.precision
        ]
        if self.runtime.on_gpu:
            found |= {"kernels": "chosen by trial (cudnn.benchmark)", "cuda_graph": "on" if self.runtime.cuda_graph else "off"}
        return found

    def run(self, feed: Feed) -> tuple[Array, ...]:
        """Compute the outputs for one batch.

        Raises:
            ModelError: the network does not run on it.
        """
        try:
            return EagerSession.run(self, feed)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError) as error:
            shapes = " and ".join(str(list(array.shape)) for array in arrays_of(feed))
            raise ModelError(
                f"the network does not run on {shapes}: {one_line(error)}", hint="give the size that it was made for: --size"
            ) from error

    def prepare(self, feed: Feed, transfer: Transfer = "e2e") -> Callable[[], object]:
        """A stopwatch-ready run that returns when it is done; on a card without copies it is timed by the card's events."""
        if transfer == "e2e":
            return lambda: self.run(feed)
        given = self.placed(feed)

        def eager() -> object:
            with torch.inference_mode():
                return self.model(*given)

        if not self.runtime.on_gpu:
            return eager
        return TimedByEvents(captured(eager) if self.runtime.cuda_graph else eager)

    def placed(self, feed: Feed) -> list[Tensor]:
        """The arrays on the device, as the module wants them."""
        return [_laid(tensor, self.runtime) for tensor in EagerSession.placed(self, feed)]


@dataclass(frozen=True, slots=True)
class TimedByEvents:
    """Work on a CUDA device: called, it returns when the work is done; its time is told by events around it.

    Attributes:
        launch: hands the work over and returns at once.
    """

    launch: Callable[[], object]

    def __call__(self) -> None:
        """Does the work and waits for it."""
        self.launch()
        torch.cuda.synchronize()

    def device_seconds(self, repeats: int) -> float:
        """Seconds of that many runs, each waited for before the next: from when the device could begin to when it ended.

        Where the host takes longer to hand over a run's kernels than the device to compute them, this is the host's time.
        """
        total = 0.0
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        for _ in range(repeats):
            start.record()
            self.launch()
            end.record()
            end.synchronize()
            total += start.elapsed_time(end) * 1e-3
        return total


def captured(run: Callable[[], object]) -> Callable[[], object]:
    """A CUDA graph of what a run launches.

    Raises:
        ModelError: the run waits for the device in between, or does something else that no graph can hold.
    """
    try:
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                run()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            made = run()
    except RuntimeError as error:
        raise ModelError(f"it cannot be captured as a CUDA graph: {one_line(error)}", hint="measure it eager") from error

    return Replay(graph=graph, run=run, made=made)


@dataclass(frozen=True, slots=True)
class Replay:
    """A captured run. The graph knows addresses only: what it reads and writes lives as long as this.

    Attributes:
        run: what was captured; it holds what is read.
        made: its outputs.
    """

    graph: torch.cuda.CUDAGraph
    run: Callable[[], object]
    made: object

    def __call__(self) -> object:
        """Launches all of it at once; the outputs that it fills."""
        self.graph.replay()
        return self.made


def _placed(model: nn.Module, runtime: TorchRuntime) -> nn.Module:
    """The module where and as it runs."""
    model = model.to(runtime.device)
    if runtime.precision == "fp16":
        model = model.half()
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.dim() == 4:
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return model.requires_grad_(False)


def _laid(tensor: Tensor, runtime: TorchRuntime) -> Tensor:
    """An input as the module wants it."""
    if runtime.precision != "fp16" or not tensor.is_floating_point():
        return tensor
    kept = torch.channels_last if tensor.dim() == 4 else torch.preserve_format
    return tensor.to(torch.float16, memory_format=kept)


@contextmanager
def _set_up(runtime: TorchRuntime) -> Iterator[None]:
    """torch's global settings as the runtime wants them, for as long as the context lasts."""
    threads, backends = torch.get_num_threads(), cast(Any, torch.backends)
    rounded, trial = (backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision), backends.cudnn.benchmark
    try:
        torch.set_num_threads(runtime.threads or threads)
        if runtime.on_gpu:
            wanted = "tf32" if runtime.precision == "tf32" else "ieee"
            backends.cudnn.conv.fp32_precision = wanted
            backends.cuda.matmul.fp32_precision = wanted
            backends.cudnn.benchmark = True
        yield
    finally:
        torch.set_num_threads(threads)
        if runtime.on_gpu:
            backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision = rounded
            backends.cudnn.benchmark = trial
