"""An ONNX file as a network, proven: the room's entrance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from onnx import TensorProto

from compress.errors import CompressError, ImportRefused
from compress.importing.building import InputShapes, built
from compress.importing.graph import dims_of
from compress.importing.network import ImportedNetwork
from compress.importing.operators.table import MAKERS
from compress.importing.parity import Proof, proven
from compress.importing.parsing import graph_of
from compress.runtime import read_onnx


@dataclass(frozen=True)
class Imported:
    """A network from an ONNX file.

    Attributes:
        network: in evaluation mode.
        proof: how far it is from the file.
        metadata: what the file says about itself.
        notes: what was changed on the way.
    """

    network: ImportedNetwork
    proof: Proof
    metadata: Mapping[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class OpenPort:
    """One input of a file.

    Attributes:
        name: of the input.
        dims: the batch first; -1 where any size will do.
        real: its numbers are floating-point ones.
    """

    name: str
    dims: tuple[int, ...]
    real: bool


def ports_of(path: Path) -> tuple[OpenPort, ...]:
    """What a file takes, without reading its weights.

    Raises:
        ModelError: it is no ONNX file.
    """
    graph = read_onnx(path, weights=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    return tuple(
        OpenPort(value.name, dims_of(value), value.type.tensor_type.elem_type == TensorProto.FLOAT)
        for value in graph.input
        if value.name not in weights
    )


def import_onnx(path: Path, *, sizes: InputShapes | None = None) -> Imported:
    """The network of a file, which computes what ONNX Runtime makes of the file: all outputs, on several batches.

    Args:
        path: the file; hostile until proven otherwise.
        sizes: shape of an input by name, the batch among it, where the file leaves dimensions open.

    Raises:
        ImportRefused: it cannot be imported, or would compute something else; the message says what stands in the way.
        ModelError: it is no ONNX file, or ONNX Runtime does not run it.
    """
    model = read_onnx(path)
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    try:
        graph = graph_of(model, MAKERS)
        del model
        network = built(graph, sizes)
        proof = proven(network, path)
    except ImportRefused as error:
        error.met_in(path)
        raise
    except CompressError:
        raise
    except (RecursionError, MemoryError, torch.OutOfMemoryError) as error:
        raise ImportRefused(f"{path}: {type(error).__name__} while it is imported", hint="do not use this file") from error
    notes = [f"imported from ONNX: outputs within {proof.error:.1e} of ONNX Runtime's"]
    if proof.silent:
        notes.append(
            f"on random inputs {', '.join(proof.silent)[:200]} is near zero everywhere: that it is ONNX Runtime's says little; "
            "look at answers on inputs of yours"
        )
    if graph.batch:
        notes.append(f"the file fixes its batch to {graph.batch}; the network takes any")
    return Imported(network=network, proof=proof, metadata=metadata, notes=tuple(notes))
