"""A proven ONNX file in the folder layout that an inference server loads, with all that its clients must know.

One folder a model: the file, the server's settings, ``labels.txt`` and ``preprocessing.json``. It is put together aside,
checked, and renamed: under the final name there is a whole package or none.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from compress.core import plural
from compress.errors import ConfigError, ExportError, one_line
from compress.export import Interface, Port, read_interface
from compress.runtime import onnx_bytes
from compress.serving import triton
from compress.serving.settings import Server, Serving
from compress.serving.staging import staged

__all__ = ["Package", "model_name", "name_of", "package"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_STRANGE = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Package:
    """A written package.

    Attributes:
        folder: ``<out>/<name>``.
        files: what is in it, relative to the folder.
        interface: of the ONNX file.
        notes: what is missing or guessed.
    """

    folder: Path
    name: str
    server: Server
    files: tuple[str, ...]
    interface: Interface
    notes: tuple[str, ...] = ()


def package(
    onnx: Path,
    out: Path,
    server: Server,
    *,
    name: str = "",
    serving: Serving | None = None,
    classes: Sequence[str] = (),
) -> Package:
    """Writes an ONNX file as a model that a server loads unmodified.

    Args:
        onnx: the file; what it says about itself travels with it.
        out: the server's model repository; made if needed.
        server: whose layout.
        name: of the model; from the file's folder where it is empty.
        serving: batching and placement.
        classes: names of the outputs, where the file does not say them.

    Raises:
        ExportError: the file cannot be served like that, or a model of that name is there already.
        ConfigError: the name cannot be one.
        RuntimeUnavailable: Triton's schema is not installed.
    """
    serving, interface = serving or Serving(), read_interface(onnx)
    interface = replace(interface, classes=tuple(classes) or interface.classes)
    name = model_name(onnx, name)
    _servable(onnx, interface, serving)
    final = out / name
    if final.exists():
        raise ExportError(
            f"{final} is there already", hint="give it another --name, or add a version to a running server: compress deploy"
        )
    try:
        with staged(out, name) as aside:
            folder = aside / name
            folder.mkdir()
            _LAYOUTS[server](onnx, folder, interface, serving)
            _shared(folder, interface, server)
            if server == "triton":
                triton.check(folder)
            _settle(folder)
            folder.rename(final)
    except OSError as error:
        raise ExportError(f"cannot write {final}: {error.strerror}", hint="check the space and rights of the folder") from error
    listed = sorted(str(entry.relative_to(final)) for entry in final.rglob("*") if entry.is_file())
    return Package(
        folder=final, name=name, server=server, files=tuple(listed), interface=interface, notes=tuple(_notes(interface))
    )


def name_of(onnx: Path) -> str:
    """After the run, or the file where it is no run's; the precision is no part of it, since versions may differ in that."""
    stem = onnx.stem.removesuffix(".fp16").removesuffix(".int8")
    return _STRANGE.sub("-", stem if stem != "model" else onnx.resolve().parent.name).strip("-.") or "model"


def model_name(onnx: Path, name: str = "") -> str:
    """What a file is served as: the name that was given, or one from the file's or its folder's.

    Raises:
        ConfigError: the name cannot be one.
    """
    name = name or name_of(onnx)
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot be a model's name: letters, digits, _ . - are wanted", hint="choose another one with --name"
        )
    return name


def _servable(onnx: Path, interface: Interface, serving: Serving) -> None:
    fixed = [port.name for port in (*interface.inputs, *interface.outputs) if not port.any_batch]
    if serving.max_batch > 0 and fixed:
        raise ExportError(
            f"{onnx}: {', '.join(fixed)} have their batch size baked in, and the server is to batch",
            hint="export it with any batch size (compress export), or serve single requests: --max-batch 0",
        )
    if interface.classes and interface.named not in (len(interface.classes), -1):
        raise ExportError(
            f"{plural(len(interface.classes), 'class name')} for {plural(interface.named, 'output')}",
            hint="give one name a line and output",
        )


def _notes(interface: Interface) -> list[str]:
    notes = []
    if interface.preprocessing is None:
        notes.append("the file does not say how its images are prepared: clients have to know size, mean and deviation")
    if not interface.classes and interface.names_classes:
        notes.append("no class names are known: give a file with --class-names")
    return notes


def description(interface: Interface) -> dict[str, Any]:
    """What a client has to do to an image, or send instead, and what comes back."""
    source = interface.preprocessing
    images = len(interface.inputs) == 1 and len(interface.inputs[0].dims) == 4
    taken = "normalised, channels x rows x columns" if images else ", ".join(map(_described, interface.inputs))
    answers = (
        "logits" if len(interface.outputs) == 1 and interface.names_classes else ", ".join(map(_described, interface.outputs))
    )
    return {
        "embedded": interface.embedded,
        "input": "uint8 pixels, rows x columns x channels" if interface.embedded else taken,
        "output": "probabilities" if interface.embedded else answers,
        **({} if source is None else source.to_json()),
    }


def _described(port: Port) -> str:
    """``before FP32 any x 3 x 32 x 32``."""
    return f"{port.name} {port.kind} {' x '.join('any' if size < 0 else str(size) for size in port.dims)}".rstrip()


def _shared(folder: Path, interface: Interface, server: Server) -> None:
    """What every layout has."""
    (folder / "preprocessing.json").write_text(json.dumps(description(interface), indent=1) + "\n")
    if interface.classes:
        lines = (one_line(name, None) for name in interface.classes)
        (folder / triton.LABELS).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _triton(onnx: Path, folder: Path, interface: Interface, serving: Serving) -> None:
    (folder / "1").mkdir()
    (folder / "1" / triton.MODEL).write_bytes(onnx_bytes(onnx))
    extra = {"preprocessing": json.dumps(description(interface))}
    (folder / triton.CONFIG).write_text(triton.config_text(interface, folder.name, serving, extra=extra))


def _mlserver(onnx: Path, folder: Path, interface: Interface, serving: Serving) -> None:
    (folder / triton.MODEL).write_bytes(onnx_bytes(onnx))
    settings: dict[str, Any] = {
        "name": folder.name,
        "implementation": "mlserver_model.OnnxModel",
        "platform": "onnx",
        "inputs": [_tensor(port.name, port.kind, port.dims) for port in interface.inputs],
        "outputs": [_tensor(port.name, port.kind, port.dims) for port in interface.outputs],
        "parameters": {"uri": f"./{triton.MODEL}", "version": "1", "extra": _told(interface, serving)},
    }
    if serving.max_batch > 1:
        settings |= {"max_batch_size": serving.max_batch, "max_batch_time": serving.queue_delay_us / 1e6}
    (folder / "model-settings.json").write_text(json.dumps(settings, indent=1) + "\n")
    _code(folder, "mlserver_model.py", "mlserver>=1.6")


def _kserve(onnx: Path, folder: Path, interface: Interface, serving: Serving) -> None:
    (folder / triton.MODEL).write_bytes(onnx_bytes(onnx))
    settings = {"name": folder.name, "max_batch": serving.max_batch, **_told(interface, serving)}
    (folder / "model.json").write_text(json.dumps(settings, indent=1) + "\n")
    _code(folder, "kserve_server.py", "kserve>=0.15")
    (folder / "Dockerfile").write_text(
        "FROM python:3.11-slim\nWORKDIR /model\nCOPY . .\nRUN pip install --no-cache-dir -r requirements.txt\n"
        'CMD ["python", "kserve_server.py"]\n'
    )
    service = (
        "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata:\n"
        f"  name: {folder.name.lower().replace('_', '-').replace('.', '-')}\nspec:\n  predictor:\n    containers:\n"
        "      - name: kserve-container\n        image: IMAGE  # what `docker build` made of this folder\n"
    )
    (folder / "inferenceservice.yaml").write_text(service)


def _tensor(name: str, kind: str, dims: Sequence[int]) -> dict[str, Any]:
    return {"name": name, "datatype": kind, "shape": list(dims)}


def _told(interface: Interface, serving: Serving) -> dict[str, Any]:
    return {
        "threads": serving.threads,
        "device": serving.device,
        "preprocessing": description(interface),
        "classes": list(interface.classes),
    }


def _code(folder: Path, name: str, needs: str) -> None:
    """The few lines between a Python server and ONNX Runtime, and what they need."""
    source = files("compress.serving") / "servers" / name
    (folder / name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "requirements.txt").write_text(f"{needs}\nonnxruntime>=1.23\nnumpy\n")


_LAYOUTS: Mapping[Server, Any] = {"triton": _triton, "mlserver": _mlserver, "kserve": _kserve}


def _settle(folder: Path) -> None:
    """Onto the disk before the name says so."""
    for entry in folder.rglob("*"):
        if entry.is_file():
            with entry.open("rb") as file:
                os.fsync(file.fileno())
