"""What an ONNX file takes and gives, read off the file itself: servers and clients are told nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx import TensorProto, ValueInfoProto

from compress.data import Preprocessing
from compress.errors import DataError, ExportError, ModelError
from compress.runtime import read_onnx

KINDS: Mapping[int, str] = {  # the v2 inference protocol's names; Triton's configuration puts TYPE_ before them
    TensorProto.FLOAT: "FP32",
    TensorProto.FLOAT16: "FP16",
    TensorProto.DOUBLE: "FP64",
    TensorProto.UINT8: "UINT8",
    TensorProto.INT8: "INT8",
    TensorProto.INT64: "INT64",
    TensorProto.INT32: "INT32",
    TensorProto.BOOL: "BOOL",
}


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output.

    Attributes:
        kind: element type, e.g. ``FP32``.
        dims: all dimensions, the batch first; -1 where any size will do.
    """

    name: str
    kind: str
    dims: tuple[int, ...]

    @property
    def row(self) -> tuple[int, ...]:
        """The dimensions of one image's part."""
        return self.dims[1:]

    @property
    def any_batch(self) -> bool:
        """Whether it takes any number of images."""
        return self.dims[:1] == (-1,)


@dataclass(frozen=True, slots=True)
class Interface:
    """What a file takes, gives and says about itself.

    Attributes:
        preprocessing: how images become inputs, where the file says so.
        classes: names of the outputs, in order; empty where the file does not name them.
        embedded: the pre-processing is in the graph: bytes of pixels go in, probabilities come out.
        metadata: its provenance.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    preprocessing: Preprocessing | None
    classes: tuple[str, ...]
    embedded: bool
    metadata: Mapping[str, str]

    @property
    def names_classes(self) -> bool:
        """Whether its output is a row of logits of classes; files of before tasks were said to be of that kind."""
        return self.metadata.get("task", "classification").partition(":")[0] == "classification"

    @property
    def named(self) -> int:
        """How many numbers of its first output have a name of their own, -1 where any: classes lie behind the batch in maps."""
        dims = self.outputs[0].dims
        return dims[1] if len(dims) == 4 else dims[-1] if dims else 0


def serving_facts(preprocessing: Preprocessing | None, classes: Sequence[str] = ()) -> dict[str, str]:
    """What a client has to know, as metadata of an ONNX file; :func:`read_interface` reads it back."""
    facts = {} if preprocessing is None else {"preprocessing": json.dumps(preprocessing.to_json())}
    return facts | ({"classes": json.dumps(list(classes))} if classes else {})


def read_interface(path: Path) -> Interface:
    """Inputs, outputs and metadata of a file, without running it.

    Raises:
        ExportError: it is no ONNX file, or has an element type that no server takes; export it again.
    """
    try:
        model = read_onnx(path, weights=False)
    except ModelError as error:
        raise ExportError(error.message, hint=error.hint) from error
    weights = {tensor.name for tensor in model.graph.initializer}
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    if not model.graph.input or not model.graph.output:
        raise ExportError(f"{path} has no inputs or no outputs", hint="export it again: compress export")
    return Interface(
        inputs=tuple(_port(value, path) for value in model.graph.input if value.name not in weights),
        outputs=tuple(_port(value, path) for value in model.graph.output),
        preprocessing=_preprocessing(metadata, path),
        classes=_classes(metadata, path),
        embedded=metadata.get("embedded") == "preprocessing",
        metadata=metadata,
    )


def _port(value: ValueInfoProto, path: Path) -> Port:
    tensor = value.type.tensor_type
    kind = KINDS.get(tensor.elem_type)
    if kind is None:
        name = TensorProto.DataType.Name(tensor.elem_type)
        raise ExportError(
            f"{path}: {value.name!r} has element type {name}, wanted one of {', '.join(KINDS.values())}",
            hint="export it again: compress export",
        )
    dims = (dim.dim_value if dim.WhichOneof("value") == "dim_value" else -1 for dim in tensor.shape.dim)
    return Port(value.name, kind, tuple(dims))


def _preprocessing(metadata: Mapping[str, str], path: Path) -> Preprocessing | None:
    held = metadata.get("preprocessing")
    try:
        return None if held is None else Preprocessing.from_json(json.loads(held))
    except (ValueError, DataError) as error:
        raise ExportError(f"{path}: its record of pre-processing cannot be read: {error}", hint="export it again") from error


def _classes(metadata: Mapping[str, str], path: Path) -> tuple[str, ...]:
    try:
        held = json.loads(metadata.get("classes", "[]"))
    except ValueError as error:
        raise ExportError(f"{path}: its class names cannot be read: {error}", hint="export it again") from error
    if not isinstance(held, list) or not all(isinstance(name, str) for name in held):
        raise ExportError(f"{path}: its class names are no list of names", hint="export it again")
    return tuple(held)
