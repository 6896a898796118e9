"""One measurement over several runtimes, batches and, on a GPU, ways of handing over the data. Needs NumPy and ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from compress.core import Phase
from compress.errors import CompressError, ConfigError, RuntimeUnavailable
from compress.latency.arms import noise
from compress.latency.measurement import MeasuredFile, Measurement
from compress.latency.protocol import BASE, measure
from compress.latency.result import Event, LatencyResult, Settings
from compress.runtime import PROVIDERS, TORCH_RUNTIMES, OrtRuntime, Provider

if TYPE_CHECKING:
    from compress.runtime import TorchRuntime

TORCH = "torch-"
"""How the names of torch's own runtimes begin."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One combination of runtime, batch and transfer.

    Attributes:
        optional: what cannot be measured this way is skipped instead of failing: not every network can be captured as a graph.
    """

    runtime: OrtRuntime | TorchRuntime
    settings: Settings
    optional: bool = False

    @property
    def name(self) -> str:
        """As messages say it."""
        where = f", {self.settings.transfer}" if self.runtime.on_gpu else ""
        return f"{self.runtime.name}, batch {self.settings.batch}{where}"


def cells(
    providers: Sequence[str], batches: Sequence[int], settings: Settings, *, threads: int | None = 1, require_gpu: bool = False,
    engines: Path | None = None, of_torch: Callable[[str], TorchRuntime] | None = None,
) -> Iterator[Condition]:  # fmt: skip
    """Every combination. On a GPU each batch comes three times: with the copies, without them, and captured as a CUDA graph.

    Args:
        providers: ``cpu``, ``cuda``, ``tensorrt``, ``openvino``; ``tensorrt-fp16`` lets TensorRT halve the precision; torch's
            own are those of ``compress.runtime.TORCH_RUNTIMES``.
        batches: images a run.
        settings: the rest, the same for all.
        threads: on the CPU.
        engines: where TensorRT keeps what it built.
        of_torch: makes one of torch's runtimes, by name; see :func:`compress.latency.torch_files.torch_runtimes`.

    Raises:
        ConfigError: a provider has another name, torch's runtimes are mixed with ONNX Runtime's, or nothing opens networks.
        RuntimeUnavailable: torch is asked for a device that is not there.
    """
    modules = sum(wanted.startswith(TORCH) for wanted in providers)
    if 0 < modules < len(providers):
        raise ConfigError(
            "torch's runtimes load networks and ONNX Runtime's load .onnx files: one measurement cannot have both",
            hint="measure twice, with --runtime torch-... and without",
        )
    for wanted in dict.fromkeys(providers):
        runtime = _torch(wanted, of_torch) if modules else _runtime(wanted, threads, require_gpu, engines)
        for batch in dict.fromkeys(batches):
            one = replace(settings, batch=batch, transfer="e2e")
            yield Condition(runtime, one)
            if runtime.on_gpu:
                yield Condition(runtime, replace(one, transfer="device"))
            if runtime.name.startswith(("ort-cuda", "torch-cuda")):
                yield Condition(replace(runtime, cuda_graph=True), replace(one, transfer="device"), optional=True)


def _torch(wanted: str, of_torch: Callable[[str], TorchRuntime] | None) -> TorchRuntime:
    if wanted not in TORCH_RUNTIMES:
        raise ConfigError(f"no runtime is called {wanted!r}", hint=f"one of {', '.join((*PROVIDERS, *TORCH_RUNTIMES))}")
    if of_torch is None:
        raise ConfigError(
            f"{wanted} loads networks and their weights, here are only ONNX files and ONNX Runtime",
            hint=f"one of {', '.join(PROVIDERS)}; where the library is installed: compress bench RUN --runtime {wanted}",
        )
    return of_torch(wanted)


def _runtime(wanted: str, threads: int | None, require_gpu: bool, engines: Path | None) -> OrtRuntime:
    fp16 = wanted == "tensorrt-fp16"
    name: Provider | None = next((known for known in PROVIDERS if known == wanted.removesuffix("-fp16")), None)
    if name is None or (wanted.endswith("-fp16") and not fp16):
        raise ConfigError(
            f"no runtime is called {wanted!r}", hint=f"one of {', '.join((*PROVIDERS, 'tensorrt-fp16', *TORCH_RUNTIMES))}"
        )
    return OrtRuntime(
        provider=name,
        threads=threads if name == "cpu" else None,
        require_gpu=require_gpu,
        fp16=fp16,
        engines=engines if name == "tensorrt" else None,
    )


def measure_all(
    base: Path,
    candidates: Mapping[str, Path],
    wanted: Iterable[Condition],
    *,
    files: Mapping[str, MeasuredFile],
    kit: str = "",
    listen: Callable[[Event | Phase], None] = lambda event: None,
) -> Measurement:
    """Compare the files in every cell; all of them are loaded and tried at every batch before the first minute is spent.

    Args:
        base: an ONNX file.
        candidates: name -> file.
        wanted: see :func:`cells`.
        files: arm -> which bytes it is; see :func:`compress.latency.measurement.identify`.
        kit: identity of the bench kit.
        listen: receives a :class:`~compress.core.events.Phase` for every cell, and what :func:`measure` tells.

    Raises:
        ModelError: a file cannot be loaded or does not take the batch.
        RuntimeUnavailable: nothing could be measured, or a GPU is required and absent.
    """
    skipped, there = list[str](), list[Condition]()
    for cell in wanted:
        missing = cell.runtime.missing()
        if missing and not cell.runtime.require_gpu:
            skipped.append(f"{cell.runtime.name.removeprefix('ort-').removesuffix('-graph')}: {missing}")
        else:
            there.append(cell)
    skipped = list(dict.fromkeys(skipped))
    try_out({BASE: base, **candidates}, [cell for cell in there if not cell.optional])
    results = list[LatencyResult]()
    for cell in there:
        listen(Phase("latency", cell.name))
        try:
            results.append(measure(base, candidates, runtime=cell.runtime, settings=cell.settings, listen=listen))
        except CompressError as error:
            if not cell.optional:
                raise
            skipped.append(f"{cell.name}: {error.message}")
    if not results:
        raise RuntimeUnavailable(
            f"nothing could be measured: {'; '.join(skipped)}",
            hint="measure with --runtime cpu, or see compress doctor",
        )
    return Measurement(tuple(results), files, kit, tuple(skipped))


def try_out(files: Mapping[str, Path], wanted: Sequence[Condition]) -> None:
    """Load every file on every runtime and give it one input at every batch.

    Raises:
        ModelError: what the first one that fails says.
    """
    for runtime in dict.fromkeys(cell.runtime for cell in wanted):
        settings = {cell.settings.batch: cell.settings for cell in wanted if cell.runtime == runtime}
        for name, path in files.items():
            with runtime.load(path) as session:
                for one in settings.values():
                    session.run(noise(session, path.name if name == BASE else name, one))
