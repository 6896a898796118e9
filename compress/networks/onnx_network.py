"""An ONNX file as a network of the library: how its inputs are called, and whether they are images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from compress.data import Preprocessing, preset_for
from compress.errors import CheckpointError, DataError
from compress.importing import ImportedNetwork, OpenPort, example_of, import_onnx, ports_of, structure_digest
from compress.signature import Signature

_CHANNELS = (1, 3, 4)
_EXAMPLES = 3
"""More than one, so that a fixed dimension of one is no batch."""


@dataclass(frozen=True)
class FromOnnx:
    """What an ONNX file says.

    Attributes:
        model: proven against the file.
        name: of its architecture: ``onnx:`` and a digest.
        preprocessing: where it takes images with their channels first.
        example: inputs of the sizes that it takes, where it takes something else.
        notes: what a user should know.
        metadata: what the file says about itself.
    """

    model: ImportedNetwork
    name: str
    preprocessing: Preprocessing | None
    example: Any
    notes: tuple[str, ...]
    metadata: Mapping[str, str]


def is_onnx(path: Path) -> bool:
    """Whether a file is called one."""
    return path.suffix.lower() == ".onnx"


def from_onnx(path: Path, size: tuple[int, ...] | None) -> FromOnnx:
    """Imports a file.

    Args:
        path: of the file.
        size: of its open dimensions beside the batch, in order; one number for all of them.

    Raises:
        CheckpointError: there are more open dimensions than sizes, or sizes and no open dimensions.
        ImportRefused: it cannot be imported.
    """
    ports = ports_of(path)
    imported = import_onnx(path, sizes=None if size is None else {p.name: _sized(p, size, path) for p in ports})
    network, notes = imported.network, list(imported.notes)
    shapes = [network.axes.sizes[p.name] for p in ports]
    images = len(ports) == 1 and ports[0].real and len(shapes[0]) == 4 and shapes[0][1] in _CHANNELS
    preprocessing = _told(imported.metadata, path) if images else None
    if images and preprocessing is None:
        preprocessing = preset_for("", shapes[0][1:])
        notes.append("the file does not say how its images are prepared: without --mean and --std, ImageNet's are taken")
    return FromOnnx(
        model=network,
        name=f"onnx:{structure_digest(network)}",
        preprocessing=preprocessing,
        example=None if images else _example(network),
        notes=tuple(notes),
        metadata=imported.metadata,
    )


def _sized(port: OpenPort, size: tuple[int, ...], path: Path) -> tuple[int, ...]:
    """The shape of an input with its open dimensions filled in."""
    open_ones = [i for i, n in enumerate(port.dims) if n < 0 and i > 0]
    if len(size) not in (1, len(open_ones)) and open_ones:
        dims = "x".join("?" if n < 0 else str(n) for n in port.dims)
        raise CheckpointError(
            f"{path}: the input {port.name[:60]!r} takes {dims}, --size gives {len(size)} numbers",
            hint=f"give {len(open_ones)} for the dimensions that are open, or one for all of them",
        )
    filled = dict(zip(open_ones, size * len(open_ones) if len(size) == 1 else size, strict=False))
    return tuple(filled.get(i, max(n, 1)) for i, n in enumerate(port.dims))


def _told(metadata: Mapping[str, str], path: Path) -> Preprocessing | None:
    """What a file that was exported here says of its images."""
    if "preprocessing" not in metadata:
        return None
    try:
        return Preprocessing.from_json(json.loads(metadata["preprocessing"]))
    except (ValueError, DataError) as error:
        raise CheckpointError(
            f"{path}: its record of pre-processing cannot be read: {error}", hint="export it again"
        ) from error


def _example(network: ImportedNetwork) -> Any:
    found = example_of(network, _EXAMPLES)
    return found[0] if len(found) == 1 else found


def named(model: nn.Module, signature: Signature) -> Signature:
    """The signature of an imported network with the names that its file has; any other as it is."""
    if not isinstance(model, ImportedNetwork) or signature.plain:
        return signature
    names = model.graph.input_names
    return replace(signature, inputs=tuple(replace(one, name=name) for one, name in zip(signature.inputs, names, strict=True)))
