"""A network written as one ONNX file that loads everywhere and takes any batch size."""

from __future__ import annotations

import copy
import inspect
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import onnx
import torch
from torch import Tensor, nn

from compress.core import folder_beside
from compress.errors import CompressError, ExportError, one_line
from compress.export.canonical import canonicalise, drop_unused, refuse_infinite
from compress.export.left_out import drop_added_zeros
from compress.importing import ImportedNetwork, written
from compress.runtime import OrtRuntime
from compress.signature import Signature, bare, leaves, signature_of, tensors
from compress.surgery import Skipped

Exporter = Literal["auto", "dynamo", "legacy", "file"]
ORDER: Mapping[Exporter, tuple[Exporter, ...]] = {"auto": ("dynamo", "legacy"), "dynamo": ("dynamo",), "legacy": ("legacy",)}
_OF_FILE: tuple[Exporter, ...] = ("file",)
BATCHES = (1, 2, 5)
LARGEST = 2**31 - 1  # bytes: protobuf cannot hold more, and a second file is what nobody deploys
INPUT = "input"
INPUTS = "inputs"  # metadata: names, shapes and ranges of inputs that a file's own interface does not tell
SIDES: Mapping[int, tuple[str, ...]] = {3: ("length",), 4: ("height", "width"), 5: ("depth", "height", "width")}


@dataclass(frozen=True, slots=True)
class Exported:
    """A written ONNX file.

    Attributes:
        exporter: which of torch's two exporters made it.
        bytes: its size.
        warnings: what the exporters warned about, and why one was passed over.
        value_branches: lines of the network's code that ask for a value of its input: the file holds one branch.
    """

    path: Path
    exporter: str
    opset: int
    bytes: int
    warnings: tuple[str, ...]
    value_branches: tuple[str, ...] = ()


def export(
    model: nn.Module,
    example: Tensor,
    path: Path,
    *,
    metadata: Mapping[str, str] | None = None,
    exporter: Exporter = "auto",
    opset: int = 20,
    dynamic_size: bool = False,
) -> Exported:
    """Write a network as ONNX, canonicalised, with provenance, and run at batches 1, 2 and 5.

    This says that the file runs, not that it computes the same: :func:`compress.export.verified_export.export_verified` does.

    Args:
        model: in evaluation mode; it is copied, never changed.
        example: one batch of inputs, shape (n, c, h, w); only its shape and type matter. Rows, where the network takes rows.
        path: the final name; nothing appears there unless everything succeeded.
        metadata: provenance, readable through ``session.get_modelmeta()``.
        exporter: ``auto`` takes the dynamo exporter and, where it fails, the older one; ``warnings`` says so.
        opset: operator set, asserted in the file.
        dynamic_size: the file takes any height and width that the network takes, too.

    Raises:
        ExportError: training mode, too large, or no exporter could write a file that runs; the message says which and why.
    """
    _refuse(model)
    failures: list[str] = []
    for choice in ways(model, exporter):
        try:
            return _export(
                _Task(model=model, example=example, opset=opset, dynamic_size=dynamic_size, metadata=metadata or {}),
                path,
                choice,
                tuple(failures),
            )
        except ExportError as error:
            failures.append(f"the {choice} exporter failed: {error.message}")
            last = error
    raise ExportError(
        "; ".join(failures), hint=last.hint or "report the network's name and the versions: compress doctor"
    ) from last


def ways(model: nn.Module, exporter: Exporter) -> tuple[Exporter, ...]:
    """What writes a network, in the order in which it is tried: one that came from an ONNX file goes back into that file."""
    return _OF_FILE if isinstance(bare(model), ImportedNetwork) else ORDER[exporter]


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


@dataclass(frozen=True)
class _Task:
    """What is to be written.

    Attributes:
        model: the network, as its caller has it.
        example: rows of it.
        opset: operator set.
        dynamic_size: heights and widths stay open.
        metadata: provenance.
    """

    model: nn.Module
    example: Tensor
    opset: int
    dynamic_size: bool
    metadata: Mapping[str, str]

    @property
    def signature(self) -> Signature | None:
        """Of a network that takes rows."""
        return signature_of(self.model)

    def inputs(self, count: int = 0) -> tuple[Tensor, ...]:
        """The network's own inputs, of so many examples, or of those that are there."""
        example = self.example if not count else self.example[torch.arange(count) % len(self.example)]
        return (example,) if self.signature is None else self.signature.unpacked(example)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the inputs."""
        inner = bare(self.model)
        if isinstance(inner, ImportedNetwork):
            return inner.graph.input_names
        return (INPUT,) if self.signature is None else self.signature.names

    def axes(self) -> tuple[dict[int, str], ...]:
        """The open dimensions of every input."""
        batched = [True] if self.signature is None else [one.batched for one in self.signature.inputs]
        found = []
        for tensor, counts in zip(self.inputs(), batched, strict=True):
            sides = SIDES.get(tensor.dim(), ()) if counts and self.dynamic_size else ()
            found.append(({0: "batch"} if counts else {}) | dict(enumerate(sides, start=2)))
        return tuple(found)

    def shapes(self, count: int) -> list[tuple[int, ...]]:
        """Of the network's outputs, for so many examples."""
        rows = self.example[torch.arange(count) % len(self.example)]
        with torch.no_grad():
            answer = self.model(rows.to(_device(self.model)))
        return [tuple(tensor.shape) for tensor in tensors(answer).values()]

    def constant(self, names: list[str]) -> set[str]:
        """Outputs without a row an example."""
        two, three = self.shapes(2), self.shapes(3)
        return {name for name, a, b in zip(names, two, three, strict=True) if a[:1] != (2,) or b[:1] != (3,)}

    def facts(self) -> dict[str, str]:
        """Metadata, with the sizes that an open file does not tell."""
        found = dict(self.metadata)
        inner = bare(self.model)
        if isinstance(inner, ImportedNetwork) and inner.leaves_sizes_open:
            told = [{"name": name, "shape": list(shape[1:])} for name, shape in inner.axes.sizes.items()]
            return found | {INPUTS: json.dumps(told)}
        if self.signature is not None:
            found[INPUTS] = json.dumps(self.signature.to_json())
        elif self.dynamic_size:
            found[INPUTS] = json.dumps([{"name": INPUT, "shape": list(self.example.shape[1:])}])
        return found


def _export(task: _Task, path: Path, exporter: Exporter, earlier: tuple[str, ...]) -> Exported:
    if exporter == "file":
        return _into_its_file(task, path)
    inside = copy.deepcopy(task.model).cpu()
    example = task.example.detach().cpu()
    if len(example) < 2:  # a batch of one would be taken for a constant
        example = torch.cat([example, example])
    task = replace(task, example=example)
    with warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter("always")
        answer = inside(example)
        names = list(tensors(answer, taken=task.names))
        if task.signature is not None or not _only_tensors(answer):
            inside = _flat(inside, task.signature)
        write = _dynamo if exporter == "dynamo" else _legacy
        proto = write(inside, task, names)
    written = {entry.domain or "ai.onnx": entry.version for entry in proto.opset_import}
    if written != {"ai.onnx": task.opset}:
        raise ExportError(
            f"the file needs operator sets {written}, wanted only ai.onnx {task.opset}", hint="choose --opset 18 or newer"
        )
    canonicalise(proto, name=type(task.model).__name__, metadata=task.facts())
    size = _write(proto, path, task)
    said = [one_line(warning.message, None) for warning in caught if not _is_about_the_exporter(warning)]
    return Exported(path=path, exporter=exporter, opset=task.opset, bytes=size, warnings=earlier + tuple(dict.fromkeys(said)))


def _into_its_file(task: _Task, path: Path) -> Exported:
    """A network that came from an ONNX file: the file with the tensors that the network has now."""
    inner = bare(task.model)
    assert isinstance(inner, ImportedNetwork)
    model = written(inner, task.facts())
    if any(isinstance(module, Skipped) for module in inner.modules()):
        drop_added_zeros(model.graph)
        drop_unused(model.graph)
    refuse_infinite(model)
    size = _write(model, path, task)
    return Exported(path=path, exporter="file", opset=inner.graph.opset, bytes=size, warnings=())


def _device(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))


def _only_tensors(answer: Any) -> bool:
    """Whether exporters understand an answer as it is: tensors in tuples, lists and plain mappings."""
    if isinstance(answer, tuple | list) and not hasattr(answer, "_fields"):
        return all(_only_tensors(part) for part in answer)
    if type(answer) is dict:
        return all(_only_tensors(part) for part in answer.values())
    return isinstance(answer, Tensor)


def _flat(model: nn.Module, signature: Signature | None) -> nn.Module:
    """The network between flat tensors: its inputs one by one, its answer as a tuple; names inside stay what they are."""
    model = bare(model)
    kind = type(model)

    def forward(self: Any, *given: Any) -> tuple[Tensor, ...]:
        args, kwargs = signature.arguments(given) if signature is not None else (given, {})
        return tuple(leaf for _, leaf in leaves(kind.forward(self, *args, **kwargs)) if isinstance(leaf, Tensor))

    model.__class__ = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
    return model


def _dynamo(model: nn.Module, task: _Task, names: list[str]) -> onnx.ModelProto:
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    axes = task.axes()
    flat = any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(model.forward).parameters.values())
    try:
        program = torch.onnx.export(
            model,
            task.inputs(),
            dynamo=True,
            opset_version=task.opset,
            external_data=False,
            dynamic_shapes=(axes,) if flat else axes,
            input_names=list(task.names),
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


def _legacy(model: nn.Module, task: _Task, names: list[str]) -> onnx.ModelProto:
    buffer: Any = io.BytesIO()  # the older exporter takes a stream, though its signature no longer says so
    open_dims: dict[str, dict[int, str]] = dict(zip(task.names, task.axes(), strict=True))
    open_dims |= {name: {0: "batch"} for name in names if name not in task.constant(names)}
    try:
        torch.onnx.export(
            model,
            task.inputs(),
            buffer,
            dynamo=False,
            opset_version=task.opset,
            dynamic_axes=open_dims,
            input_names=list(task.names),
            output_names=names,
            verbose=False,
        )
        return onnx.shape_inference.infer_shapes(onnx.load_model_from_string(buffer.getvalue()), data_prop=True)
    except Exception as error:  # as above
        raise ExportError(_first_line(error), hint="try the other exporter: --exporter dynamo") from error


def _write(proto: onnx.ModelProto, path: Path, task: _Task) -> int:
    """Write aside, run the batches, rename."""
    with beside(path) as folder:
        aside = folder / "partial.onnx"
        try:
            with aside.open("wb") as file:
                file.write(proto.SerializeToString(deterministic=True))
                file.flush()
                os.fsync(file.fileno())
            _run(aside, task)
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
    with ExitStack() as held:
        try:
            folder = held.enter_context(folder_beside(path))
        except OSError as error:
            raise _unwritable(path, error) from error
        yield folder


def _unwritable(path: Path, error: OSError) -> ExportError:
    reason = error.strerror or error
    return ExportError(f"cannot write {path}: {reason}", hint="check the space and rights of the folder")


def _run(path: Path, task: _Task) -> None:
    """A checked file can still have its batch size baked in: run it."""
    try:
        with OrtRuntime(threads=None).load(path) as session:
            for batch in BATCHES:
                given = dict(zip(task.names, task.inputs(batch), strict=True))
                results = session.run([given[one.name].numpy() for one in session.inputs])
                wanted: list[tuple[int, ...]] = []
                for index, (name, result) in enumerate(zip(session.output_names, results, strict=True)):
                    if result.shape[:1] == (batch,):
                        continue
                    wanted = wanted or task.shapes(batch)  # not every output has a row an example, but one of them has
                    if result.shape != wanted[index] or not any(array.shape[:1] == (batch,) for array in results):
                        raise ExportError(
                            f"output {name!r} has shape {list(result.shape)} for a batch of {batch}, "
                            f"the network gives {list(wanted[index])}"
                        )
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
