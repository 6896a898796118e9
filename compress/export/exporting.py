"""A network written as one ONNX file that loads everywhere and takes any batch size."""

from __future__ import annotations

import copy
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
import torch
from torch import Tensor, nn

from compress.errors import CompressError, ExportError, one_line
from compress.export.canonical import canonicalise
from compress.runtime import OrtRuntime, tensors

Exporter = Literal["auto", "dynamo", "legacy"]
ORDER: Mapping[Exporter, tuple[Exporter, ...]] = {"auto": ("dynamo", "legacy"), "dynamo": ("dynamo",), "legacy": ("legacy",)}
BATCHES = (1, 2, 5)
LARGEST = 2**31 - 1  # bytes: protobuf cannot hold more, and a second file is what nobody deploys
INPUT = "input"


@dataclass(frozen=True, slots=True)
class Exported:
    """A written ONNX file.

    Attributes:
        exporter: which of torch's two exporters made it.
        bytes: its size.
        warnings: what the exporters warned about, and why one was passed over.
    """

    path: Path
    exporter: str
    opset: int
    bytes: int
    warnings: tuple[str, ...]


def export(
    model: nn.Module,
    example: Tensor,
    path: Path,
    *,
    metadata: Mapping[str, str] | None = None,
    exporter: Exporter = "auto",
    opset: int = 20,
) -> Exported:
    """Write a network as ONNX, canonicalised, with provenance, and run at batches 1, 2 and 5.

    This says that the file runs, not that it computes the same: :func:`compress.export.parity.export_verified` does.

    Args:
        model: in evaluation mode; it is copied, never changed.
        example: one batch of inputs, shape (n, c, h, w); only its shape and type matter.
        path: the final name; nothing appears there unless everything succeeded.
        metadata: provenance, readable through ``session.get_modelmeta()``.
        exporter: ``auto`` takes the dynamo exporter and, where it fails, the older one; ``warnings`` says so.
        opset: operator set, asserted in the file.

    Raises:
        ExportError: training mode, too large, or no exporter could write a file that runs; the message says which and why.
    """
    _refuse(model)
    failures: list[str] = []
    for choice in ORDER[exporter]:
        try:
            return _export(model, example, path, metadata or {}, choice, opset, tuple(failures))
        except ExportError as error:
            failures.append(f"the {choice} exporter failed: {error.message}")
            last = error
    raise ExportError(
        "; ".join(failures), hint=last.hint or "report the network's name and the versions: compress doctor"
    ) from last


def _refuse(model: nn.Module) -> None:
    """Exporters only warn about training mode and then write drop-out and batch statistics into the file."""
    name = next((name or "the network" for name, module in model.named_modules() if module.training), None)
    if name is not None:
        raise ExportError(f"{name} is in training mode, evaluation mode is wanted", hint="call model.eval() before exporting")
    size = sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
    if size > LARGEST:
        raise ExportError(
            f"the weights take {size:,} bytes, one ONNX file holds at most {LARGEST:,}", hint="export in half precision"
        )


def _export(
    model: nn.Module,
    example: Tensor,
    path: Path,
    metadata: Mapping[str, str],
    exporter: Exporter,
    opset: int,
    earlier: tuple[str, ...],
) -> Exported:
    inside = copy.deepcopy(model).cpu()
    example = example.detach().cpu()
    if len(example) < 2:  # a batch of one would be taken for a constant
        example = torch.cat([example, example])
    with warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter("always")
        names = list(tensors(inside(example)))
        proto = _dynamo(inside, example, names, opset) if exporter == "dynamo" else _legacy(inside, example, names, opset)
    written = {entry.domain or "ai.onnx": entry.version for entry in proto.opset_import}
    if written != {"ai.onnx": opset}:
        raise ExportError(
            f"the file needs operator sets {written}, wanted only ai.onnx {opset}", hint="choose --opset 18 or newer"
        )
    canonicalise(proto, name=type(model).__name__, metadata=metadata)
    size = _write(proto, path, example)
    said = [one_line(warning.message, None) for warning in caught if not _is_about_the_exporter(warning)]
    return Exported(path=path, exporter=exporter, opset=opset, bytes=size, warnings=earlier + tuple(dict.fromkeys(said)))


def _dynamo(model: nn.Module, example: Tensor, names: list[str], opset: int) -> onnx.ModelProto:
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            opset_version=opset,
            external_data=False,
            dynamic_shapes=({0: "batch"},),
            input_names=[INPUT],
            output_names=names,
            verbose=False,
        )
    except Exception as error:  # the exporter's stages raise whatever the network makes them raise
        raise ExportError(_first_line(error), hint="try the other exporter: --exporter legacy") from error
    finally:
        log.setLevel(level)
    if program is None:
        raise ExportError("torch returned no program", hint="try the other exporter: --exporter legacy")
    return program.model_proto


def _legacy(model: nn.Module, example: Tensor, names: list[str], opset: int) -> onnx.ModelProto:
    buffer: Any = io.BytesIO()  # the older exporter takes a stream, though its signature no longer says so
    try:
        torch.onnx.export(
            model,
            (example,),
            buffer,
            dynamo=False,
            opset_version=opset,
            dynamic_axes={name: {0: "batch"} for name in (INPUT, *names)},
            input_names=[INPUT],
            output_names=names,
            verbose=False,
        )
        return onnx.shape_inference.infer_shapes(onnx.load_model_from_string(buffer.getvalue()), data_prop=True)
    except Exception as error:  # as above
        raise ExportError(_first_line(error), hint="try the other exporter: --exporter dynamo") from error


def _write(proto: onnx.ModelProto, path: Path, example: Tensor) -> int:
    """Write aside, run the batches, rename."""
    with beside(path) as folder:
        aside = folder / "partial.onnx"
        try:
            with aside.open("wb") as file:
                file.write(proto.SerializeToString(deterministic=True))
                file.flush()
                os.fsync(file.fileno())
            _run(aside, example)
            aside.replace(path)
            return path.stat().st_size
        except OSError as error:
            raise _unwritable(path, error) from error


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A hidden folder next to a final name, gone afterwards: what is finished in it can be renamed in one step.

    Raises:
        ExportError: the folder cannot be written to; choose another or free it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise _unwritable(path, error) from error
    with made as folder:
        yield Path(folder)


def _unwritable(path: Path, error: OSError) -> ExportError:
    reason = error.strerror or error
    return ExportError(f"cannot write {path}: {reason}", hint="check the space and rights of the folder")


def _run(path: Path, example: Tensor) -> None:
    """A checked file can still have its batch size baked in: run it."""
    try:
        with OrtRuntime(threads=None).load(path) as session:
            for batch in BATCHES:
                rows = torch.arange(batch) % len(example)
                for name, result in zip(session.output_names, session.run(example[rows].numpy()), strict=True):
                    if result.shape[:1] != (batch,):
                        raise ExportError(f"output {name!r} has shape {list(result.shape)} for a batch of {batch}")
    except ExportError:
        raise
    except CompressError as error:
        raise ExportError(f"the file does not run: {error.message}", hint=error.hint) from error


def _first_line(error: Exception) -> str:
    """The reason below the exporter's banner, on one line."""
    reason: BaseException = error
    while reason.__cause__ is not None:
        reason = reason.__cause__
    return one_line(reason)


def _is_about_the_exporter(warning: warnings.WarningMessage) -> bool:
    """Deprecations and futures of torch's own code: nothing a user could act on."""
    return issubclass(warning.category, DeprecationWarning | FutureWarning | PendingDeprecationWarning)
