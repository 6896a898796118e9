"""Triton's model configuration: written from the ONNX file, and checked against it.

The schema is the one that tritonclient ships. Its file is loaded by itself, because the package around it wants grpc.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from compress.core import plural
from compress.errors import ExportError, RuntimeUnavailable
from compress.export import Interface, Port, read_interface
from compress.serving.settings import Serving

CONFIG, MODEL, LABELS = "config.pbtxt", "model.onnx", "labels.txt"


def config_text(interface: Interface, name: str, serving: Serving, *, extra: Mapping[str, str]) -> str:
    """The text of ``config.pbtxt`` for a file.

    Args:
        interface: of the ONNX file.
        name: of the model; also its folder's.
        serving: batching, instances, threads, devices.
        extra: parameters that clients can read back from the server.

    Raises:
        RuntimeUnavailable: tritonclient is not installed.
    """
    from google.protobuf import text_format

    pb = schema()
    config = pb.ModelConfig(name=name, backend="onnxruntime", max_batch_size=serving.max_batch)
    for port in interface.inputs:
        config.input.add(name=port.name, data_type=_kind(pb, port), dims=_dims(port, serving))
    for index, port in enumerate(interface.outputs):
        labels = LABELS if index == 0 and interface.classes and len(port.row) == 1 else ""  # of a row of numbers
        config.output.add(name=port.name, data_type=_kind(pb, port), dims=_dims(port, serving), label_filename=labels)
    config.version_policy.latest.num_versions = serving.keep_versions
    kind = {
        "auto": pb.ModelInstanceGroup.KIND_AUTO,
        "cpu": pb.ModelInstanceGroup.KIND_CPU,
        "gpu": pb.ModelInstanceGroup.KIND_GPU,
    }
    config.instance_group.add(count=serving.instances, kind=kind[serving.device])
    if serving.max_batch > 0:
        config.dynamic_batching.preferred_batch_size.extend(serving.preferred)
        config.dynamic_batching.max_queue_delay_microseconds = serving.queue_delay_us
    for batch in sorted({1, *serving.preferred, serving.max_batch} - {0}):
        warm = config.model_warmup.add(name=f"batch {batch}", batch_size=batch if serving.max_batch > 0 else 0)
        for port in interface.inputs:
            dims = [abs(size) for size in _dims(port, serving)]
            warm.inputs[port.name].CopyFrom(pb.ModelWarmup.Input(data_type=_kind(pb, port), dims=dims, random_data=True))
    if serving.tensorrt:
        accelerator = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="tensorrt")
        accelerator.parameters["precision_mode"] = serving.tensorrt.upper()
        accelerator.parameters["max_workspace_size_bytes"] = str(1 << 30)
    if serving.threads:
        config.parameters["intra_op_thread_count"].string_value = str(serving.threads)
    for key, value in extra.items():
        config.parameters[key].string_value = value
    return str(text_format.MessageToString(config))


def check(folder: Path) -> None:
    """Refuses a model's folder that Triton would refuse, or that would answer otherwise than its ONNX files.

    Args:
        folder: ``<repository>/<name>``.

    Raises:
        ExportError: with everything that is wrong with it.
        RuntimeUnavailable: tritonclient is not installed.
    """
    if faults := tuple(_faults(folder)):
        raise ExportError(
            f"{folder} is no model that Triton can serve: {'; '.join(faults)}", hint="write it again: compress package"
        )


def parse(path: Path) -> Any:
    """A ``config.pbtxt`` as Triton's own message.

    Raises:
        ExportError: it is missing, or Triton's schema does not know what it says.
    """
    from google.protobuf import text_format

    try:
        return text_format.Parse(path.read_text(), schema().ModelConfig())
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{path} cannot be read: {error}", hint="write it again: compress package") from error
    except text_format.ParseError as error:
        raise ExportError(f"{path} is no configuration of Triton: {error}", hint="write it again: compress package") from error


def versions(folder: Path) -> tuple[int, ...]:
    """The versions of a model that lie in its folder, oldest first."""
    found = (int(entry.name) for entry in folder.iterdir() if entry.is_dir() and entry.name.isdecimal())
    return tuple(sorted(number for number in found if number > 0))


def _faults(folder: Path) -> Iterator[str]:
    config = parse(folder / CONFIG)
    if config.name not in ("", folder.name):
        yield f"its configuration calls it {config.name!r}, the folder is called {folder.name!r}"
    if config.backend != "onnxruntime" and config.platform != "onnxruntime_onnx":
        yield f"backend {config.backend or config.platform!r}, wanted 'onnxruntime'"
    yield from _batching(config)
    if not (found := versions(folder)):
        yield "no version: a folder named 1 is wanted"
    for version in found:
        try:
            interface = read_interface(folder / str(version) / MODEL)
        except ExportError as error:
            yield f"version {version}: {error.message}"
            continue
        yield from (f"version {version}: {fault}" for fault in _ports("input", config, config.input, interface.inputs))
        yield from (f"version {version}: {fault}" for fault in _ports("output", config, config.output, interface.outputs))
    yield from _labels(folder, config)


def _batching(config: Any) -> Iterator[str]:
    most, preferred = config.max_batch_size, list(config.dynamic_batching.preferred_batch_size)
    if most < 0:
        yield f"max_batch_size {most}, 0 or more is wanted"
    if config.HasField("dynamic_batching") and most <= 0:
        yield f"dynamic batching with max_batch_size {most}, more than 0 is wanted"
    if wrong := [size for size in preferred if not 0 < size <= most]:
        yield f"preferred batch sizes {wrong}, 1 to {most} are wanted"
    for warm in config.model_warmup:
        if warm.batch_size > max(most, 0):
            yield f"warm-up {warm.name!r} has a batch of {warm.batch_size}, at most {most} is wanted"
        known = {port.name: (port.data_type, tuple(port.dims)) for port in config.input}
        for name, sample in warm.inputs.items():
            kind, dims = known.get(name, (None, ()))
            fits = len(dims) == len(sample.dims) and all(a in (-1, b) for a, b in zip(dims, sample.dims, strict=True))
            if kind != sample.data_type or not fits:
                yield f"warm-up {warm.name!r} feeds {name!r} {list(sample.dims)}, no such input"
    for group in config.instance_group:
        if group.count < 1:
            yield f"an instance group of {group.count}, 1 or more is wanted"


def _ports(what: str, config: Any, configured: Sequence[Any], ports: Sequence[Port]) -> Iterator[str]:
    """Names, types and dimensions must be the ONNX file's."""
    pb, batched = schema(), config.max_batch_size > 0
    said = {port.name: port for port in configured}
    if set(said) != {port.name for port in ports}:
        yield f"{what}s {sorted(said)}, the ONNX file has {sorted(port.name for port in ports)}"
        return
    for port in ports:
        found = said[port.name]
        if found.data_type != _kind(pb, port):
            yield f"{what} {port.name!r} is {pb.DataType.Name(found.data_type)}, the ONNX file's is TYPE_{port.kind}"
        if batched and not port.any_batch:
            yield f"{what} {port.name!r} has its batch of {port.dims[:1]} baked in, any batch is wanted"
        wanted = port.row if batched else port.dims
        if len(wanted) != len(found.dims) or any(
            w not in (-1, f) for w, f in zip(wanted, found.dims, strict=True)
        ):  # -1 in the file: the configuration may be narrower
            yield f"{what} {port.name!r} has dims {list(found.dims)}, the ONNX file's are {list(wanted)}"


def _labels(folder: Path, config: Any) -> Iterator[str]:
    for port in config.output:
        if not port.label_filename:
            continue
        try:
            names = (folder / port.label_filename).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            yield f"labels of {port.name!r} cannot be read: {error}"
            continue
        if list(port.dims)[-1:] not in ([len(names)], [-1]):
            yield f"{plural(len(names), 'label')} for output {port.name!r} with dims {list(port.dims)}"


def _dims(port: Port, serving: Serving) -> list[int]:
    return list(port.row if serving.max_batch > 0 else port.dims)


def _kind(pb: Any, port: Port) -> int:
    return int(pb.DataType.Value(f"TYPE_{port.kind}"))


@cache
def schema() -> Any:
    """Triton's protobuf schema, ``model_config_pb2``.

    Raises:
        RuntimeUnavailable: tritonclient is not installed; the hint says how.
    """
    hint = "pip install 'smaller-convnets[serving]', or: pip install tritonclient"
    package = importlib.util.find_spec("tritonclient")
    if package is None or not package.submodule_search_locations:
        raise RuntimeUnavailable("Triton's schema comes with tritonclient, which is not installed", hint=hint)
    path = Path(package.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("compress_triton_model_config_pb2", path)
    try:
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a generated file meets in another protobuf
        raise RuntimeUnavailable(f"tritonclient's schema cannot be loaded: {error}", hint=hint) from error
    return module
