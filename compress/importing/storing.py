"""An imported network's structure as text beside its tensors, so that a saved network needs no ONNX file to be read again."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from compress.errors import ImportRefused
from compress.importing.building import built
from compress.importing.graph import Graph
from compress.importing.network import ImportedNetwork
from compress.importing.operators.table import MAKERS
from compress.importing.parsing import graph_of, parsed

_MOST = 256 * 2**20
"""Bytes of a structure."""
_HINT = "copy the file again from where it was made"


def structure_of(network: ImportedNetwork) -> str:
    """Nodes, constants that are no weights, and the sizes at which it was imported; weights are only named."""
    model = _emptied(network.graph)
    packed = zlib.compress(model.SerializeToString(deterministic=True), 6)
    sizes = {name: list(shape) for name, shape in network.axes.sizes.items()}
    return json.dumps({"sizes": sizes, "graph": base64.b64encode(packed).decode()})


def structure_digest(network: ImportedNetwork) -> str:
    """Identifies a structure, whatever its weights."""
    return hashlib.sha256(_emptied(network.graph).SerializeToString(deterministic=True)).hexdigest()[:16]


def rebuilt(text: str) -> ImportedNetwork:
    """The network of a structure, of its original size, its weights zeros that take no memory.

    Raises:
        ImportRefused: the text is none, or of a network that cannot be imported.
    """
    try:
        told: Any = json.loads(text)
        sizes = {str(name): tuple(int(n) for n in shape) for name, shape in dict(told["sizes"]).items()}
        unpacking = zlib.decompressobj()
        data = unpacking.decompress(base64.b64decode(told["graph"]), _MOST)
    except (ValueError, KeyError, TypeError, RecursionError, zlib.error) as error:
        raise ImportRefused(f"the network's structure is damaged: {type(error).__name__}", hint=_HINT) from error
    if unpacking.unconsumed_tail or not unpacking.eof:
        raise ImportRefused(f"the network's structure is cut off, or has more than {_MOST} bytes", hint=_HINT)
    return built(graph_of(parsed(data), MAKERS, emptied=True), sizes)


def _emptied(graph: Graph) -> ModelProto:
    model = ModelProto()
    model.CopyFrom(graph.shell)
    model.graph.node.extend(graph.nodes)
    model.graph.input.extend(graph.inputs)
    model.graph.output.extend(graph.outputs)
    for name, array in graph.constants.items():
        if array.size > 1 and all(step == 0 or n == 1 for step, n in zip(array.strides, array.shape, strict=True)):
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            if not np.any(array.flat[0]):
                model.graph.initializer.append(TensorProto(name=name, dims=array.shape, data_type=kind))
                continue
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
    return model
